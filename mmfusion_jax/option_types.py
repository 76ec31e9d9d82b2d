"""Types of options with bounds: what a config can set a width, a rate or a tuple to.

A part that annotates its arguments with these types gets them checked when a config is
resolved.

Example:
    >>> import dataclasses
    >>> import mmfusion_jax as mmf
    >>> @dataclasses.dataclass(frozen=True)
    ... class AddNoise:
    ...     modality: str
    ...     std: mmf.option_types.NonNegativeFloat = 0.1
    >>> AddNoise("audio").std
    0.1
"""

import dataclasses
import math
from collections.abc import Sized
from typing import Annotated, Literal, TypeAlias


@dataclasses.dataclass(frozen=True)
class Range:
    """A finite number within bounds.

    Attributes:
        minimum: The smallest value.
        maximum: The largest value.
        exclusive: `minimum` itself is not allowed.
    """

    minimum: float
    maximum: float = math.inf
    exclusive: bool = False

    def allows(self, value: float) -> bool:
        """Returns whether `value` is finite and within the bounds."""
        # Comparisons with NaN are False, so NaN is not allowed by any range.
        above = value > self.minimum if self.exclusive else value >= self.minimum
        return above and value <= self.maximum and -math.inf < value < math.inf

    def __str__(self) -> str:
        parts = []
        if self.minimum > -math.inf:
            what = "above" if self.exclusive else "at least"
            parts.append(f"{what} {self.minimum}")
        if self.maximum < math.inf:
            parts.append(f"at most {self.maximum}")
        return f"a number {' and '.join(parts)}" if parts else "a finite number"


@dataclasses.dataclass(frozen=True)
class NotEmpty:
    """A sequence with at least one element."""

    def allows(self, value: Sized) -> bool:
        """Returns whether `value` has an element."""
        return len(value) > 0

    def __str__(self) -> str:
        return "at least one element"


PositiveInt: TypeAlias = Annotated[int, Range(1)]
NonNegativeInt: TypeAlias = Annotated[int, Range(0)]
PositiveFloat: TypeAlias = Annotated[float, Range(0, exclusive=True)]
NonNegativeFloat: TypeAlias = Annotated[float, Range(0)]
Fraction: TypeAlias = Annotated[float, Range(0, 1)]
PositiveInts: TypeAlias = Annotated[tuple[PositiveInt, ...], NotEmpty()]
Names: TypeAlias = Annotated[tuple[str, ...], NotEmpty()]
Depth: TypeAlias = Annotated[int, Range(0, 1000)]
"""A number of layers: tracing more of them would take hours."""
Depths: TypeAlias = Annotated[tuple[Annotated[int, Range(1, 1000)], ...], NotEmpty()]

SelectionProtocol: TypeAlias = Literal["validation", "fixed_epochs", "as_published"]
"""Selection of the checkpoint: on the validation split, after a fixed number of epochs,
or as the paper's code does, which may use the test split."""
