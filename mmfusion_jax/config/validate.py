"""Checks of config values: choices, types and bounds."""

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from mmfusion_jax.config.registry import TABLES, check_name
from mmfusion_jax.errors import ConfigError, shorten, shown, shown_name, suggest
from mmfusion_jax.option_types import FLOAT32_MAX, FLOAT32_TINY, Range

T = TypeVar("T")

# JAX's integers have 32 bits by default.
INT32 = Range(-math.inf, 2**31 - 1)
FINITE = Range(-math.inf)
TYPE_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "None",
}
PLURALS = {bool: "booleans", int: "integers", float: "numbers", str: "strings"}
PLAIN = {
    bool: bool,
    int: int,
    float: int | float,
    str: str,
    type(None): type(None),
    None: type(None),
}
"""Plain type -> what a value of this type may be: an integer is also a number."""


@dataclasses.dataclass(frozen=True)
class PartName:
    """The type of a field that names a part: a short name, or "package.module:Name".

    Attributes:
        kind: A key of `registry.TABLES`.
    """

    kind: str


def choices(hint: Any) -> list[str]:
    """Returns the names that a field of this type may have, if they are listed."""
    if isinstance(hint, PartName):
        return sorted(TABLES[hint.kind])
    return [str(one) for one in get_args(hint)] if get_origin(hint) is Literal else []


def check_type(field: str, value: Any, hint: Any) -> None:
    """Raises ConfigError if a value does not have the type of a hint.

    Args:
        field: The full name of the field, with "config.".
        value: Its value.
        hint: A type as in an annotation, with bounds as in `option_types`, or a
            `PartName`. A hint that is not made of plain types, literals, tuples and
            mappings allows every value.
    """
    if isinstance(hint, PartName):
        check_name(hint.kind, value, field)
        return
    if get_origin(hint) is Literal and value not in get_args(hint):
        raise ConfigError(
            "C03",
            f"{shorten(field)}={shown(value)} is not an allowed value.",
            suggest(str(value), map(str, get_args(hint))),
        )
    if not matches(value, hint):
        raise ConfigError(
            "C11", f"{shorten(field)}={shown(value)} is not {describe(hint)}."
        )
    for part, bound in _bounds(value, hint):
        if not bound.allows(part):
            # A float that is finite and within the bounds, such as 1e300 or 1e-320.
            limits = f"; float32 has {FLOAT32_TINY:.1e} to {FLOAT32_MAX:.1e}"
            lost = isinstance(part, float) and part - part == 0 and part != 0
            lost = lost and not FINITE.allows(part)
            fix = shorten(bound) + (limits if lost else "")
            message = f"{shorten(field)}={shown(value)} is out of range."
            raise ConfigError("C10", message, fix)


def metadata(hint: Any, kind: type[T]) -> list[T]:
    """Returns the marks of a class in a type, such as those of `HasEncoder`."""
    if get_origin(hint) is Annotated:
        first, *marks = get_args(hint)
        return [*(m for m in marks if isinstance(m, kind)), *metadata(first, kind)]
    if get_origin(hint) in (Union, types.UnionType):
        return [mark for one in get_args(hint) for mark in metadata(one, kind)]
    return []


def _bounds(value: Any, hint: Any) -> Iterator[tuple[Any, Any]]:
    """Yields every number and sequence in a value that fits a hint, and its bounds."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        yield from ((value, one) for one in arguments[1:] if hasattr(one, "allows"))
        yield from _bounds(value, arguments[0])
    elif origin in (Union, types.UnionType):
        yield from _bounds(value, next(h for h in arguments if matches(value, h)))
    elif origin in (tuple, list, Sequence) and arguments:
        hints = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        for one, inner in zip(value, hints, strict=False):
            yield from _bounds(one, inner)
    elif isinstance(value, int | float):
        yield value, INT32 if isinstance(value, int) else FINITE


def matches(value: Any, hint: Any) -> bool:
    """Returns whether `value` has the type `hint`; an integer is also a float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return matches(value, arguments[0])
    if origin in (Union, types.UnionType):
        return any(matches(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if origin in (tuple, list, Sequence):
        return _is_sequence_of(value, origin, arguments)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return isinstance(value, Mapping)
    if hint in PLAIN:
        # In Python, True is an integer.
        is_bool = isinstance(value, bool)
        return isinstance(value, PLAIN[hint]) and is_bool == (hint is bool)
    return True


def _is_sequence_of(value: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    """Returns whether `value` is a tuple or list whose elements have the right type."""
    if not isinstance(value, tuple | list):
        return False
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(matches, value, arguments))
    return not arguments or all(matches(one, arguments[0]) for one in value)


def _plural(hint: Any) -> str:
    """Returns what the elements of a tuple are, such as "integers"."""
    if get_origin(hint) is Literal:
        return f"values out of {', '.join(map(shown, get_args(hint)))}"
    return PLURALS.get(_plain(hint), "values")


def _plain(hint: Any) -> Any:
    """Returns a type without its bounds."""
    return _plain(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def describe(hint: Any) -> str:
    """Returns a type in words, such as "an integer"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return describe(arguments[0])
    if hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    if hint is None:
        return "None"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, arguments)))
    if origin is Literal:
        return f"one of {', '.join(map(shown, arguments))}"
    if origin in (tuple, list, Sequence):
        kinds = [one for one in arguments if one is not Ellipsis]
        words = dict.fromkeys(map(_plural, kinds))
        count = f"{len(kinds)} " if kinds and kinds[-1] is arguments[-1] else ""
        return f"a tuple of {count}{' or '.join(words) or 'values'}"
    if origin in (dict, Mapping):
        return "a group of fields"
    return f"a {shown_name(getattr(hint, '__name__', hint))}"
