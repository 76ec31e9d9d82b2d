"""Directives that quote the repository: docstrings, configs, sections and tables.

{summary} models.CFNSR        docstrings of public names, above their arguments
{deviations} CFN-SR           every `Deviation:` of a docstring that names the paper
{config} cfn_sr               the docstring of a config
{config-fields}               the fields that every config has
{parts}                       the short names of encoders, fusion blocks, losses, ...
{excerpt} README.md           a section of a Markdown file, or the tables in it
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from docutils.parsers.rst import directives
from public_api import PACKAGE, public_paths, summary, value_of
from repository_files import ROOT, sections, with_links
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PAPERS = ("CFN-SR", "MEA", "MCL-MCF", "Hetero-Fusion-Net", "OF-CMAER-CAT")


class Deviation(NamedTuple):
    """What a function or class does differently from a paper.

    Attributes:
        path: Import path.
        reference: Text of its section `Reference:`, or "".
        text: Text of its section `Deviation:`.
    """

    path: str
    reference: str
    text: str

    @property
    def papers(self) -> tuple[str, ...]:
        """The papers that the reference names."""
        return tuple(
            p for p in PAPERS if re.search(rf"(?<![\w-]){p}\b", self.reference)
        )


def all_deviations() -> list[Deviation]:
    """Returns the sections `Deviation:` of all docstrings of the package."""
    return [
        found
        for path in sorted((ROOT / "mmfusion_jax").rglob("*.py"))
        for found in _deviations_of(path)
    ]


def _deviations_of(path: Path) -> Iterator[Deviation]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    module = module.removesuffix(".__init__")

    def walk(node: ast.AST, prefix: str) -> Iterator[Deviation]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(child) or ""
            if deviation := section(text, "Deviation"):
                name = f"{prefix}.{child.name}"
                yield Deviation(name, section(text, "Reference"), deviation)
            yield from walk(child, f"{prefix}.{child.name}")

    yield from walk(ast.parse(path.read_text("utf-8")), module)


def section(docstring: str, name: str) -> str:
    """Returns the text of a section of a docstring, without its indentation."""
    found = re.search(rf"^{name}:\n((?: .*(?:\n|$)|\n)+)", docstring, re.MULTILINE)
    if found is None:
        return ""
    return re.sub(r"^ {4}", "", found[1], flags=re.MULTILINE).strip()


def blocks(text: str) -> list[nodes.Element]:
    """Returns paragraphs and indented blocks of plain text as nodes."""
    found: list[nodes.Element] = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        if part.startswith("    "):
            code = re.sub(r"^ {4}", "", part, flags=re.MULTILINE)
            if found and isinstance(found[-1], nodes.literal_block):
                code = f"{found.pop().astext()}\n\n{code}"
            found.append(nodes.literal_block(code, code, language="none"))
        else:
            found.append(nodes.paragraph("", "", *inline_nodes(" ".join(part.split()))))
    return found


def inline_nodes(text: str) -> list[nodes.Node]:
    """Returns a line of plain text as nodes; `name` is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return [nodes.Text(text)]
    return [
        nodes.literal(part, part) if i % 2 else nodes.Text(part)
        for i, part in enumerate(parts)
        if part
    ]


def reference(directive: SphinxDirective, path: str, shown: str) -> nodes.Node:
    """Returns a link to the entry of a public name."""
    return addnodes.pending_xref(
        "",
        nodes.literal(shown, shown),
        refdomain="py",
        reftype="obj",
        reftarget=path,
        refexplicit=True,
        refdoc=directive.env.docname,
    )


def table(heads: tuple[str, ...], widths: tuple[int, ...], rows: list) -> nodes.table:
    """Returns a table; a cell is a list of nodes."""
    group = nodes.tgroup("", cols=len(widths))
    group += [nodes.colspec(colwidth=width) for width in widths]
    row = lambda cells: nodes.row(
        "", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells)
    )
    group += nodes.thead("", row([[nodes.Text(head)] for head in heads]))
    group += nodes.tbody("", *map(row, rows))
    return nodes.table("", group)


class SummaryDirective(SphinxDirective):
    """Quotes what the docstrings of public names have above their arguments."""

    required_arguments = 1
    optional_arguments = 9

    def run(self) -> list[nodes.Node]:
        """Returns a list of definitions."""
        self.env.note_reread()  # Sphinx does not know which files the text is from
        return [nodes.definition_list("", *map(self._item, self.arguments))]

    def _item(self, name: str) -> nodes.Element:
        path = f"{PACKAGE}.{name}"
        text = inspect.getdoc(value_of(path)) or ""
        text = re.split(r"^(?:Parameters[:,] |\w+:$)", text, flags=re.MULTILINE)[0]
        term = nodes.term("", "", reference(self, path, name))
        return nodes.definition_list_item("", term, nodes.definition("", *blocks(text)))


class FieldsDirective(SphinxDirective):
    """A table of the fields that every config has."""

    def run(self) -> list[nodes.Node]:
        """Returns two tables: single fields and groups."""
        from mmfusion_jax.config.base import FIELDS, GROUPS, REQUIRED

        self.env.note_reread()
        code = lambda text: [nodes.literal(text, text)]
        rows = [
            [
                code(name),
                [nodes.Text("required")]
                if field.default is REQUIRED
                else code(repr(field.default)),
                inline_nodes(field.description),
            ]
            for name, field in FIELDS.items()
        ]
        groups = [[code(name), inline_nodes(text)] for name, text in GROUPS.items()]
        return [
            table(("field", "default", "meaning"), (38, 17, 45), rows),
            table(("group of fields", "meaning"), (38, 62), groups),
        ]


class PartsDirective(SphinxDirective):
    """Tables of the parts that a config can name."""

    def run(self) -> list[nodes.Node]:
        """Returns one table for each kind of part."""
        from mmfusion_jax.config.registry import TABLES

        home = public_paths()
        found: list[nodes.Node] = []
        for kind, names in TABLES.items():
            found.append(nodes.rubric("", kind.capitalize()))
            rows = [self._row(name, path, home) for name, path in names.items()]
            found.append(table(("name", "", ""), (25, 30, 45), rows))
        return found

    def _row(self, name: str, path: str, home: dict[str, str]) -> list:
        public = home.get(path.replace(":", "."))
        cells = [[nodes.literal(name, name)]]
        if public is None:
            return [*cells, [], []]
        shown = public.removeprefix(f"{PACKAGE}.")
        text = summary(value_of(public)) if callable(value_of(public)) else ""
        return [*cells, [reference(self, public, shown)], inline_nodes(text)]


class DeviationsDirective(SphinxDirective):
    """Lists the deviations from one paper; without an argument, all others."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Returns a list of definitions."""
        self.env.note_reread()
        (paper,) = self.arguments or (None,)
        if paper is not None and paper not in PAPERS:
            raise self.error(f"{paper!r} is not a paper; known: {', '.join(PAPERS)}.")
        found = [
            deviation
            for deviation in all_deviations()
            if (paper in deviation.papers if paper else not deviation.papers)
        ]
        if not found:
            raise self.error(f"No docstring has a deviation from {paper!r}.")
        home = public_paths()
        return [nodes.definition_list("", *(self._item(d, home) for d in found))]

    def _item(self, deviation: Deviation, home: dict[str, str]) -> nodes.Element:
        path = deviation.path
        owner, _, method = path.rpartition(".")
        public = home.get(path) or (
            f"{home[owner]}.{method}" if owner in home else None
        )
        shown = (public or path).removeprefix("mmfusion_jax.")
        name: nodes.Node = nodes.literal(shown, shown)
        if path in home:
            name = reference(self, home[path], shown)
        term = nodes.term("", "", name)
        body = blocks(deviation.text)
        if deviation.reference:
            source = " ".join(deviation.reference.split())
            text = nodes.emphasis("", "", *inline_nodes(source))
            body.insert(0, nodes.paragraph("", "", text))
        return nodes.definition_list_item("", term, nodes.definition("", *body))


class ConfigDirective(SphinxDirective):
    """Quotes the docstring of a config."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Returns paragraphs and code."""
        path = ROOT / "configs" / f"{self.arguments[0]}.py"
        if not path.exists():
            raise self.error(f"{path} does not exist.")
        self.env.note_dependency(str(path))
        return list(blocks(ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""))


class ExcerptDirective(SphinxDirective):
    """Quotes a section of a Markdown file, or only its tables.

    Options:
        section: Heading of the section; the text above the first one if it is missing.
        tables: Quote the tables only.
        rows: Pattern of the first cell of the rows to keep; all if it is missing.
        code: Quote the code block only whose first line is a comment with this name.
    """

    required_arguments = 1
    option_spec = {
        "section": directives.unchanged_required,
        "tables": directives.flag,
        "rows": directives.unchanged_required,
        "code": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        """Returns the parsed section."""
        source = self.arguments[0]
        path = ROOT / source
        if not path.exists():
            raise self.error(f"{source} does not exist.")
        self.env.note_dependency(str(path))
        text = self._section(path.read_text("utf-8"))
        if "code" in self.options:
            return [self._code(text, self.options["code"])]
        if "tables" in self.options:
            text = "\n\n".join(self._tables(text))
            if not text:
                raise self.error(f"{source} has no such table.")
        url = self.config.repository_url
        return self.parse_text_to_nodes(
            with_links(text, source, self.env.docname, url), allow_section_headings=True
        )

    def _section(self, text: str) -> str:
        heading = self.options.get("section")
        if heading is None:
            return text
        found = sections(text)
        if heading not in found:
            known = ", ".join(repr(name) for name in found)
            raise self.error(f"{self.arguments[0]} has the sections {known}.")
        return found[heading]

    def _code(self, text: str, name: str) -> nodes.literal_block:
        start = rf"^```python\n(# {re.escape(name)}\n.*?)^```"
        found = re.search(start, text, re.MULTILINE | re.DOTALL)
        if found is None:
            raise self.error(f"{self.arguments[0]} has no code block {name!r}.")
        return nodes.literal_block(found[1], found[1], language="python")

    def _tables(self, text: str) -> Iterator[str]:
        pattern = re.compile(self.options.get("rows", ""))
        for table in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
            head, line, *rows = table.strip().split("\n")
            rows = [row for row in rows if pattern.search(row.split("|")[1].strip())]
            if rows:
                yield "\n".join((head, line, *rows))


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension."""
    app.add_directive("summary", SummaryDirective)
    app.add_directive("config-fields", FieldsDirective)
    app.add_directive("parts", PartsDirective)
    app.add_directive("deviations", DeviationsDirective)
    app.add_directive("config", ConfigDirective)
    app.add_directive("excerpt", ExcerptDirective)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
