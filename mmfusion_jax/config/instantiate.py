"""Options of a part against the arguments of its target."""

import inspect
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from mmfusion_jax.config.validate import check_type, metadata
from mmfusion_jax.errors import (
    ConfigError,
    join_names,
    shorten,
    shown_name,
    suggest,
)
from mmfusion_jax.option_types import Divides

LINEN_FIELDS = frozenset({"parent", "name"})
"""Fields that every Linen module has."""


def arguments_of(target: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """Returns the arguments of a class or function; none if they are not known.

    Annotations are types, also where their module does not evaluate them.
    """
    # Annotations are strings in modules with `from __future__ import annotations`.
    for evaluate in (True, False):
        try:
            return inspect.signature(target, eval_str=evaluate).parameters
        except Exception:  # annotations of a user's module may fail in any way
            continue
    return {}


def takes_any(target: Callable[..., Any]) -> bool:
    """Returns whether a class or function has `**kwargs`."""
    return any(p.kind is p.VAR_KEYWORD for p in arguments_of(target).values())


def accepted(target: Callable[..., Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns those of `values` that `target` has arguments for."""
    arguments = arguments_of(target)
    return {name: value for name, value in values.items() if name in arguments}


def check_options(
    target: Callable[..., Any],
    options: Mapping[str, Any],
    where: str,
    provided: Collection[str] = (),
    offered: Collection[str] = (),
    types: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Checks options before the target is called with them.

    Args:
        target: A class or function.
        options: Its arguments by name, as a config states them.
        where: The group of fields of the config, for messages.
        provided: Arguments that do not come from the config.
        offered: Arguments that need not come from the config.
        types: Types of arguments whose annotations do not have bounds.

    Raises:
        ConfigError: The target has no such argument, an option has another type than
            the annotation of its argument, or does not divide the option that it must
            divide, or an argument without a default is missing or None.
    """
    arguments = arguments_of(target)
    any_name = takes_any(target)
    names = [
        name
        for name, p in arguments.items()
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        and name not in LINEN_FIELDS.union(provided)
    ]
    required = {
        name
        for name in names
        if arguments[name].default is inspect.Parameter.empty and name not in offered
    }
    _check_set(required, options, where)
    for name, value in options.items():
        if name in names:
            hint = types.get(name, arguments[name].annotation)
            if hint is not inspect.Parameter.empty and not isinstance(hint, str):
                check_type(f"{where}.{name}", value, hint)
        elif not any_name or name in provided:
            raise ConfigError(
                "C02", f"{where}.{shown_name(name)} is unknown.", suggest(name, names)
            )
    _check_divisors(arguments, options, where)
    for name in names:
        if name in required and name not in options:
            raise ConfigError(
                "C31",
                f"{where}.{shown_name(name)} is missing.",
                f"add {shown_name(name)} to {where} in the config file"
                + (
                    f"; not from the config: {join_names(provided)}" if provided else ""
                ),
            )


def _check_divisors(
    arguments: Mapping[str, inspect.Parameter],
    options: Mapping[str, Any],
    where: str,
) -> None:
    """Raises ConfigError if an option does not divide the one that it must divide."""
    values = {name: options.get(name, p.default) for name, p in arguments.items()}
    for name, p in arguments.items():
        for mark in metadata(p.annotation, Divides):
            small, large = values[name], values.get(mark.option)
            if not (isinstance(small, int) and isinstance(large, int)):
                continue
            if small > 0 and large % small:
                divisors = [k for k in range(1, small + 1) if large % k == 0]
                raise ConfigError(
                    "C10",
                    f"{where}.{shown_name(name)}={small:d} does not divide "
                    f"{where}.{shown_name(mark.option)}={large:d}.",
                    f"--{where}.{shown_name(name)}={divisors[-1]:d}, or another "
                    f"{shown_name(mark.option)}",
                )


def _check_set(
    required: Collection[str], options: Mapping[str, Any], where: str
) -> None:
    """Raises ConfigError if options without a default are None: flags can set them."""
    empty = [name for name in options if name in required and options[name] is None]
    if empty:
        flags = [f"--{where}.{shown_name(name)}=VALUE" for name in empty]
        raise ConfigError(
            "C31",
            f"{where}: {join_names(empty)} must be set, since there is not a default.",
            shorten(" ".join(flags)),
        )
