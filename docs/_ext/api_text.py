"""Docstrings as reStructuredText, signatures without what Flax adds, internal names.

Docstrings of this library are plain text: names and code are between single backticks,
equations and commands are indented, and nothing else is markup.
"""

import re
from typing import Any

from docutils import nodes
from public_api import public_paths
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment

_SECTION = re.compile(
    r"(Args|Attributes|Raises|Returns|Yields|Example|Reference|Deviation):"
)
_FLAX = re.compile(r",?\s*\*?,?\s*(?:parent|name): .*?= (?:<[^>]*>|None)")


def inline(text: str) -> str:
    """Returns a line of a docstring as reStructuredText.

    `name` becomes ``name``; characters that are markup elsewhere are escaped.
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:  # a backtick without a partner
        return _escaped(text).replace("`", r"\`")
    found = ""
    for i, part in enumerate(parts):
        if i % 2:
            found += f"``{part}``"
        else:
            # A letter behind inline markup requires a separator.
            separated = i > 0 and re.match(r"[\w(]", part)
            found += (r"\ " if separated else "") + _escaped(part)
    return found


def _escaped(text: str) -> str:
    text = re.sub(r"([*|\\]|(?<=\w)_(?!\w))", r"\\\1", text)
    text = re.sub(r"\((?=\w+\) )", r"\\(", text)  # "(b) bool" is not a list
    return re.sub(r"^(\s*\w+)\. ", r"\1\\. ", text)


def to_rst(lines: list[str]) -> list[str]:
    """Returns a docstring, or a part of it, as reStructuredText for napoleon.

    A block is text that is indented below a paragraph, such as an equation: it becomes
    a literal block. The lines of a section are indented too, but are text.
    """
    found: list[str] = []
    margin, block = 0, None
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            found.append("")
            continue
        if block is not None and indent >= block:
            found.append(line)
            continue
        block = None
        if indent == 0:
            margin = 4 if _SECTION.fullmatch(line) else 0
            found.append(line if margin else inline(line))
            continue
        after_blank = number > 0 and not lines[number - 1].strip()
        example = line.lstrip().startswith(">>>") or _in_example(lines, number)
        if example:
            found.append(line)
        elif (
            after_blank
            and indent > margin
            and not line.lstrip().startswith("- ")
            and not _is_entry(lines, number)
        ):
            block = indent
            found += [" " * margin + "::", "", line]
        else:
            line = _entry(line, lines[number - 1]) if indent == margin else line
            found.append(line[:indent] + inline(line[indent:]))
    return found


def _entry(line: str, above: str) -> str:
    """Returns a line of a section so that napoleon reads it as what it is."""
    if above in ("Returns:", "Yields:") and ":" in line:
        return f"    : {line.lstrip()}"  # the text before a colon would be the type
    # "a, b: text" is an entry for both; a space would separate type and name.
    names = re.match(r" {4}\w+(?:, \w+)+:", line)
    return names[0].replace(", ", ",") + line[names.end() :] if names else line


def _in_example(lines: list[str], number: int) -> bool:
    """Returns whether the last heading above a line is `Example:`."""
    for line in reversed(lines[:number]):
        if _SECTION.fullmatch(line):
            return line == "Example:"
    return False


def _is_entry(lines: list[str], number: int) -> bool:
    """Returns whether a line continues an entry of a list of arguments."""
    above = [line for line in lines[:number] if line.strip()]
    return bool(above) and bool(re.match(r" {8,}\S", above[-1]))


def _change_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    del app, what, name, obj, options
    lines[:] = to_rst(lines)


def _change_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None] | None:
    """Removes the arguments that every Linen module has, and default objects."""
    del app, options
    if signature is None:
        return None
    if what == "class":
        from flax import linen

        if issubclass(obj, linen.Module):
            signature = _FLAX.sub("", signature)
        returns = None
    # Defaults that are not literals: a function has a name, an object does not.
    signature = re.sub(r"<function (\w+)[^>]*>", r"\1", signature)
    signature = re.sub(r"<[^<>]*>", "...", signature)
    return _without_bounds(signature), returns and _without_bounds(returns)


def _without_bounds(text: str) -> str:
    """Returns a signature with T in place of `Annotated[T, ...]`."""
    while (found := re.search(r"~?(?:typing\.)?Annotated\[", text)) is not None:
        depth, end, comma = 1, found.end(), 0
        while depth:
            character = text[end]
            depth += (character in "[(") - (character in "])")
            if character == "," and depth == 1 and not comma:
                comma = end
            end += 1
        text = text[: found.start()] + text[found.end() : comma] + text[end:]
    return text


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, child: nodes.Node
) -> nodes.Node | None:
    """Resolves "module.Name" where a name is defined to the entry of the public name.

    A type that is not public remains text.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("mmfusion_jax."):
        return None
    public = public_paths().get(target)
    if public is None or public == target:
        return None if public else _text_of_type(node, child)
    domain = env.get_domain("py")
    return domain.resolve_xref(
        env, node["refdoc"], app.builder, "obj", public, node, child
    )


def _text_of_type(node: addnodes.pending_xref, child: nodes.Node) -> nodes.Node | None:
    """Returns the text of an annotation; a link in a page must have a target."""
    return child if node.get("reftype") == "class" else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.connect("autodoc-process-docstring", _change_docstring, priority=100)
    app.connect("autodoc-process-signature", _change_signature)
    app.connect("missing-reference", _resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
