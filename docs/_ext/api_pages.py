"""Writes one page for each public module: a table of its names, then each of them."""

import importlib
import inspect
from typing import Any

from api_text import inline, to_rst
from public_api import (
    PACKAGE,
    PublicModule,
    attribute_doc,
    public_modules,
    public_paths,
    summary,
    value_of,
)
from repository_files import DOCS, GENERATED
from repository_pages import write
from sphinx.application import Sphinx

FOLDER = DOCS / GENERATED / "api"


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension."""
    app.connect("builder-inited", _write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_pages(app: Sphinx) -> None:
    documented = set(public_paths().values())
    modules = public_modules()
    for module in modules:
        write(FOLDER / f"{module.name}.rst", _page(module, documented))
    names = {f"{module.name}.rst" for module in modules}
    for path in FOLDER.glob("*.rst"):
        if path.name not in names:
            path.unlink()


def _page(module: PublicModule, documented: set[str]) -> str:
    title = module.name
    text = inspect.getdoc(importlib.import_module(module.name)) or ""
    short = module.name.replace(PACKAGE, "mmf", 1)
    lines = [title, "=" * len(title), "", *to_rst(text.split("\n")), ""]
    lines += [f".. py:module:: {module.name}", "   :no-index-entry:", ""]
    if module.modules:
        lines += [".. toctree::", "   :hidden:", ""]
        lines += [f"   {path}" for path in module.modules]
        lines += ["", *_table("module", module.modules), ""]
    paths = [f"{module.name}.{name}" for name in module.names]
    if paths:
        lines += _table(f"name in ``{short}``", paths)
    for path in paths:
        if path in documented:
            lines += ["", *_entry(path)]
    return "\n".join(lines) + "\n"


def _table(heading: str, paths: Any) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 34 66", ""]
    lines += [f"   * - {heading}", "     - "]
    home = public_home()
    for path in paths:
        target = home.get(path, path)
        module = path in {m.name for m in public_modules()}
        role = "mod" if module else "obj"
        value = importlib.import_module(path) if module else value_of(path)
        shown = path.rpartition(".")[2]
        text = summary(value) if _has_text(value) else ""
        lines += [f"   * - :py:{role}:`{shown} <{target}>`", f"     - {inline(text)}"]
    return lines


def public_home() -> dict[str, str]:
    """Returns public name -> the public name under which it is documented."""
    paths, found = public_paths(), {}
    for module in public_modules():
        table = getattr(importlib.import_module(module.name), "PUBLIC", {})
        for name in module.names:
            path = table.get(name, f"{module.name}:{name}").replace(":", ".")
            found[f"{module.name}.{name}"] = paths[path]
    return found


def _has_text(value: Any) -> bool:
    """Returns whether the docstring is of the value, not of its type."""
    return inspect.ismodule(value) or inspect.isclass(value) or inspect.isroutine(value)


def _entry(path: str) -> list[str]:
    value = value_of(path)
    if inspect.isclass(value):
        members = _members(value)
        lines = [f".. autoclass:: {path}"]
        if members:
            lines.append(f"   :members: {', '.join(members)}")
        if issubclass(value, BaseException):
            lines.append("   :show-inheritance:")
        if "__call__" in vars(value) and value.__call__.__doc__:
            lines.append("   :special-members: __call__")
        return lines
    if inspect.isroutine(value):
        return [f".. autofunction:: {path}"]
    text = [f"   {line}" for line in to_rst(attribute_doc(path).split("\n"))]
    module, _, name = path.rpartition(".")
    head = [f".. py:data:: {name}", f"   :module: {module}"]
    return [*head, f"   :value: {_shown(value)}", "", *text]


def _members(value: type) -> list[str]:
    """Returns public methods and properties that a class defines and documents."""
    kinds = (property, classmethod, staticmethod)
    return [
        name
        for name, member in vars(value).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, kinds))
        and inspect.getdoc(member)
        and name not in ("setup", "replace")
    ]


def _shown(value: Any) -> str:
    text = getattr(value, "name", None) or repr(value)
    return text.replace("\n", " ")[:80]
