"""The public names of the package, from its own lists."""

import importlib
import inspect
import re
from types import ModuleType
from typing import Any, NamedTuple

from sphinx.pycode import ModuleAnalyzer

PACKAGE = "mmfusion_jax"


class PublicModule(NamedTuple):
    """A module with public names.

    Attributes:
        name: Import path.
        names: Public names in it, without modules.
        modules: Import paths of the public modules in it.
    """

    name: str
    names: tuple[str, ...]
    modules: tuple[str, ...]


def public_modules() -> list[PublicModule]:
    """Returns the package and every public module below it."""
    found, waiting = [], [PACKAGE]
    while waiting:
        name = waiting.pop(0)
        module = importlib.import_module(name)
        paths = getattr(module, "PUBLIC", None)
        if paths is None:
            names, modules = _defined_in(module), ()
        else:
            names = tuple(sorted(n for n, path in paths.items() if ":" in path))
            modules = tuple(sorted(p for p in paths.values() if ":" not in p))
        found.append(PublicModule(name, names, modules))
        waiting += modules
    return found


def _defined_in(module: ModuleType) -> tuple[str, ...]:
    """Returns names of documented classes and functions of a module without a list."""
    return tuple(
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (inspect.isclass(value) or inspect.isroutine(value))
    )


def public_paths() -> dict[str, str]:
    """Returns "module.Name" where it is defined -> "module.Name" where it is public.

    A name that is public in the package itself is documented there only.
    """
    found: dict[str, str] = {}
    for module in public_modules():
        paths = getattr(importlib.import_module(module.name), "PUBLIC", {})
        for name in module.names:
            path = paths.get(name, f"{module.name}:{name}").replace(":", ".")
            found.setdefault(path, f"{module.name}.{name}")
    return found


def value_of(path: str) -> Any:
    """Returns what a public name refers to."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def attribute_doc(path: str) -> str:
    """Returns the string below the assignment of a public constant, or ""."""
    module, _, name = path.rpartition(".")
    source = importlib.import_module(module).PUBLIC[name]
    module, _, name = source.partition(":")
    found = ModuleAnalyzer.for_module(module).find_attr_docs()
    return "\n".join(found.get(("", name), ()))


def summary(value: Any) -> str:
    """Returns the first sentence of a docstring, in one line."""
    text = inspect.getdoc(value) or ""
    line = " ".join(text.split("\n\n")[0].split())
    return re.split(r"(?<![. ])\. (?=[A-Z])", line)[0].rstrip(".") + "." if line else ""
