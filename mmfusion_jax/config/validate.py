"""Checks of config values: choices, ranges and types."""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, Union, get_args, get_origin

from mmfusion_jax.config.registry import check_name
from mmfusion_jax.errors import ConfigError, suggest

TYPE_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    type(None): "None",
}


class Check(Protocol):
    """A rule for the value of a field."""

    def check(self, field: str, value: Any) -> None:
        """Raises ConfigError if `value` is not allowed for `field`."""
        ...


@dataclasses.dataclass(frozen=True)
class Choice:
    """The value is one of a few names.

    Attributes:
        names: The allowed values.
    """

    names: tuple[str, ...]

    def check(self, field: str, value: Any) -> None:
        if value not in self.names:
            raise ConfigError(
                "C03",
                f"--config.{field}={value!r} is not an allowed value.",
                suggest(str(value), self.names),
            )


@dataclasses.dataclass(frozen=True)
class PartName:
    """The value is a short name of a table, or an import path "package.module:Name".

    Attributes:
        kind: A key of `registry.TABLES`.
    """

    kind: str

    def check(self, field: str, value: Any) -> None:
        check_name(self.kind, value, f"--config.{field}")


@dataclasses.dataclass(frozen=True)
class Range:
    """The value is a finite number within bounds.

    Attributes:
        minimum: The smallest value.
        maximum: The largest value.
        exclusive: `minimum` itself is not allowed.
    """

    minimum: float
    maximum: float = math.inf
    exclusive: bool = False

    def check(self, field: str, value: Any) -> None:
        above = value > self.minimum if self.exclusive else value >= self.minimum
        if above and value <= self.maximum and math.isfinite(value):
            return
        bound = (
            f"above {self.minimum}" if self.exclusive else f"at least {self.minimum}"
        )
        if self.maximum < math.inf:
            bound += f" and at most {self.maximum}"
        raise ConfigError(
            "C10", f"--config.{field}={value} is out of range.", f"a number {bound}"
        )


def check_type(field: str, value: Any, hint: Any) -> None:
    """Raises ConfigError if a value does not have the type of a hint.

    Args:
        field: The full name of the field, with "config.".
        value: Its value.
        hint: A type as in an annotation. A hint that is not made of plain types,
            literals, tuples and mappings allows every value.
    """
    if not matches(value, hint):
        raise ConfigError(
            "C11", f"{field}={value!r} is not {describe(hint)}.", "see --print_config"
        )


def matches(value: Any, hint: Any) -> bool:
    """Returns whether `value` has the type `hint`; an integer is also a float."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(matches(value, one) for one in arguments)
    if origin is Literal:
        return value in arguments
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        kinds = (int,) if hint is int else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if origin in (tuple, list, Sequence):
        return _is_sequence_of(value, origin, arguments)
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        return isinstance(value, Mapping)
    return True


def _is_sequence_of(value: Any, origin: Any, arguments: tuple[Any, ...]) -> bool:
    """Returns whether `value` is a tuple or list whose elements have the right type."""
    if not isinstance(value, tuple | list):
        return False
    if origin is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(matches, value, arguments))
    return not arguments or all(matches(one, arguments[0]) for one in value)


def describe(hint: Any) -> str:
    """Returns a type in words, such as "an integer"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in TYPE_NAMES:
        return TYPE_NAMES[hint]
    if hint is None:
        return "None"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(describe, arguments)))
    if origin is Literal:
        return f"one of {', '.join(map(repr, arguments))}"
    if origin in (tuple, list, Sequence):
        kinds = dict.fromkeys(describe(one) for one in arguments if one is not Ellipsis)
        return f"a sequence, each {' or '.join(kinds)}" if kinds else "a sequence"
    if origin in (dict, Mapping):
        return "a group of fields"
    return f"a {getattr(hint, '__name__', hint)}"
