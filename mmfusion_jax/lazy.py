"""Public names of a package that are imported when they are first used."""

import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

from mmfusion_jax.errors import shown, suggest


def attach(
    module: str, names: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of a package.

    A package imports the same names under TYPE_CHECKING, for editors and type checkers,
    so that they are checked although `__getattr__` would accept any name.

    Args:
        module: `__name__` of the package.
        names: Public name -> import path, "package.module:Name" or "package.module".
    """

    def load(name: str) -> Any:
        path = names.get(name)
        if path is None:
            raise AttributeError(_unknown(module, name, names), name=name)
        source, _, attribute = path.partition(":")
        value = import_module(source)
        if attribute:
            value = getattr(value, attribute)
        setattr(sys.modules[module], name, value)
        return value

    def public() -> list[str]:
        own = [name for name in vars(sys.modules[module]) if name.startswith("__")]
        return sorted({*own, *names})

    return load, public, sorted(names)


def by_name(paths: Iterable[str]) -> dict[str, str]:
    """Returns name -> import path; the name is the last part of the path."""
    return {path.replace(":", ".").rpartition(".")[2]: path for path in paths}


def _unknown(module: str, name: str, names: Iterable[str]) -> str:
    message = f"module {shown(module)} has no attribute {shown(name)}"
    # The import system asks for names such as __path__, which resemble no public name.
    return message if name.startswith("_") else message + "; " + suggest(name, names)
