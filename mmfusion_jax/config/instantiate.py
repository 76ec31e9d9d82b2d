"""Names of a config to what they name, its options to arguments."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from mmfusion_jax.errors import ConfigError, suggest

Config: TypeAlias = Any
"""A ConfigDict; to a type checker its fields could be anything."""


def choose(table: Mapping[str, Any], name: str, where: str) -> Any:
    """The entry `name` of a table; ConfigError with the nearest name if unknown."""
    if name not in table:
        raise ConfigError("C03", f"{where}={name!r} is unknown; {suggest(name, table)}")
    return table[name]


def call(make: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    """`make(**options)`; an option that it does not have is a ConfigError."""
    check_options(make, options, where)
    return make(**options)


def check_options(
    make: Callable[..., Any], options: Mapping[str, Any], where: str
) -> None:
    """Raises ConfigError for the first option that `make` does not have."""
    takes = inspect.signature(make).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        for key in options:
            if key not in takes:
                names = [n for n in takes if n not in ("parent", "name")]
                raise ConfigError(
                    "C02", f"{where}.{key} is unknown; {suggest(key, names)}"
                )


def known(make: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that `make` takes."""
    takes = inspect.signature(make).parameters
    return {k: v for k, v in options.items() if k in takes}
