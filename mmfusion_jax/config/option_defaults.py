"""Options of a part as fields of a config: which values fit, and their defaults."""

import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from ml_collections.config_dict import placeholder

from mmfusion_jax.config.load import Config
from mmfusion_jax.config.validate import matches

INNER = ("encoder", "fusion")
"""Kinds of parts that are options of a model, an encoder or a fusion block."""

TYPES = (bool, int, float, str, tuple)
"""Types of fields that a flag can set."""


def fits(option: str, value: Any, parameter: inspect.Parameter) -> bool:
    """Returns whether a value of another part has the type of an argument."""
    if option in INNER:
        return isinstance(value, Mapping)
    hint, default = parameter.annotation, parameter.default
    if hint not in (parameter.empty, Any) and not isinstance(hint, str):
        return matches(value, hint)
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    number = int | float
    if isinstance(value, number) and isinstance(default, number):
        return True
    return value is not None and type(value) is type(default)


def option_default(
    group: Config, option: str, parameter: inspect.Parameter, empty: Any
) -> None:
    """Sets an option to its default, if a flag could set it.

    Args:
        group: The group of fields of the part.
        option: Name of the option.
        parameter: The argument of the part.
        empty: Value of a string without a default; None for a placeholder, which a
            flag must set.
    """
    default, kind = parameter.default, _field_type(parameter.annotation)
    if default is parameter.empty and kind is str and empty is not None:
        group[option] = empty
    elif default is None or default is parameter.empty:
        if kind is not None:
            group[option] = placeholder(kind)
    elif isinstance(default, list | tuple) and all(
        isinstance(x, TYPES) for x in default
    ):
        group[option] = tuple(default)
    elif isinstance(default, bool | int | float | str):
        # A flag has the type of the value: 0 would not take 0.5.
        group[option] = float(default) if kind is float else default


def _field_type(hint: Any) -> Any:
    """Returns the type of a field for an annotation; None if a flag cannot set it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _field_type(arguments[0])
    if origin in (Union, types.UnionType):
        return next(filter(None, map(_field_type, arguments)), None)
    if origin is Literal:
        return type(arguments[0])
    if origin in (tuple, list, Sequence):
        return tuple
    return hint if hint in TYPES else None
