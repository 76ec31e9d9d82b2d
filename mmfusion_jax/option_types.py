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
from collections.abc import Collection, Hashable, Sequence, Sized
from typing import Annotated, Literal, TypeAlias

FLOAT32_MAX = 3.4028234663852886e38
FLOAT32_TINY = 1.1754943508222875e-38
"""Smallest positive number that XLA does not flush to 0."""

MAX_SIZE = 2**20
"""Largest width, kernel or vocabulary: arrays of larger ones do not fit any device."""

MAX_RATE = 1e6
"""Largest rate, weight or scale that a training survives: the square of its product
with a usual gradient is still a float32."""


@dataclasses.dataclass(frozen=True)
class Range:
    """A number within bounds, which is neither infinite nor 0 in float32.

    Attributes:
        minimum: The smallest value.
        maximum: The largest value.
        exclusive: `minimum` itself is not allowed.
        below: `maximum` itself is not allowed.
    """

    minimum: float
    maximum: float = math.inf
    exclusive: bool = False
    below: bool = False

    def allows(self, value: float) -> bool:
        """Returns whether `value` is a float32, or an integer, within the bounds."""
        # Comparisons with NaN are False, so NaN is not allowed by any range.
        low = value > self.minimum if self.exclusive else value >= self.minimum
        high = value < self.maximum if self.below else value <= self.maximum
        magnitude = abs(value)
        held = value == 0 or FLOAT32_TINY <= magnitude <= FLOAT32_MAX
        return low and high and held

    def __str__(self) -> str:
        parts = []
        if self.minimum > -math.inf:
            what = "above" if self.exclusive else "at least"
            parts.append(f"{what} {plain_number(self.minimum)}")
        if self.maximum < math.inf:
            what = "below" if self.below else "at most"
            parts.append(f"{what} {plain_number(self.maximum)}")
        return f"a number {' and '.join(parts)}" if parts else "a finite number"


def plain_number(bound: float) -> str:
    """Returns a bound as the user would write it: 1000000, not 1e+06."""
    return str(int(bound)) if bound == int(bound) else str(bound)


@dataclasses.dataclass(frozen=True)
class NotEmpty:
    """A sequence with at least one element, or a string with at least one character."""

    def allows(self, value: Sized) -> bool:
        """Returns whether `value` has an element."""
        return len(value) > 0

    def __str__(self) -> str:
        return "at least one element"


@dataclasses.dataclass(frozen=True)
class Distinct:
    """A sequence in which every element occurs once."""

    def allows(self, value: Collection[Hashable]) -> bool:
        """Returns whether no element of `value` occurs twice."""
        return len(set(value)) == len(value)

    def __str__(self) -> str:
        return "every element once"


@dataclasses.dataclass(frozen=True)
class NotAllZero:
    """Weights, at least one of which is not 0; an empty sequence is allowed."""

    def allows(self, value: Collection[float]) -> bool:
        """Returns whether an element of `value` is not 0, or there are none."""
        return not value or any(value)

    def __str__(self) -> str:
        return "at least one element that is not 0"


@dataclasses.dataclass(frozen=True)
class Increasing:
    """Two numbers, the first of which is at most the second."""

    def allows(self, value: Sequence[float]) -> bool:
        """Returns whether the numbers are in increasing order."""
        return all(a <= b for a, b in zip(value, value[1:], strict=False))

    def __str__(self) -> str:
        return "numbers in increasing order"


@dataclasses.dataclass(frozen=True)
class HasEncoder:
    """Marks names of modalities, each of which must have an encoder in the config.

    `config.resolve` checks them, because a type does not know the encoders.

    Attributes:
        all: A sequence that is not empty must name every modality.
    """

    all: bool = False


@dataclasses.dataclass(frozen=True)
class Divides:
    """Marks a number that must divide another option of the same part.

    Attributes:
        option: Name of the other option.
    """

    option: str


PositiveInt: TypeAlias = Annotated[int, Range(1)]
NonNegativeInt: TypeAlias = Annotated[int, Range(0)]
PositiveFloat: TypeAlias = Annotated[float, Range(0, exclusive=True)]
NonNegativeFloat: TypeAlias = Annotated[float, Range(0)]
Fraction: TypeAlias = Annotated[float, Range(0, 1)]
ProperFraction: TypeAlias = Annotated[float, Range(0, 1, below=True)]
"""A fraction that leaves something: 1 is not allowed."""
AnyFloat: TypeAlias = Annotated[float, Range(-FLOAT32_MAX, FLOAT32_MAX)]
"""Any number that float32 holds."""
PositiveInts: TypeAlias = Annotated[tuple[PositiveInt, ...], NotEmpty()]

Size: TypeAlias = Annotated[int, Range(1, MAX_SIZE)]
"""A width, number of channels, kernel or vocabulary."""
OptionalSize: TypeAlias = Annotated[int, Range(0, MAX_SIZE)]
"""A size; 0 for none."""
Sizes: TypeAlias = Annotated[tuple[Size, ...], NotEmpty()]
Heads: TypeAlias = Annotated[Size, Divides("hidden_dim")]
"""A number of attention heads, which divides the option `hidden_dim`."""
Depth: TypeAlias = Annotated[int, Range(0, 1000)]
"""A number of layers: tracing more of them would take hours."""
Depths: TypeAlias = Annotated[tuple[Annotated[int, Range(1, 1000)], ...], NotEmpty()]

LearningRate: TypeAlias = Annotated[float, Range(0, MAX_RATE, exclusive=True)]
Weight: TypeAlias = Annotated[float, Range(0, MAX_RATE)]
"""The weight of a loss term, or a weight decay."""
Scale: TypeAlias = Annotated[float, Range(1 / MAX_RATE, MAX_RATE)]
"""A temperature, or a factor of attention logits."""
Epsilon: TypeAlias = Annotated[float, Range(0, 1, exclusive=True)]
"""A number that is added to a variance."""
Decibel: TypeAlias = Annotated[float, Range(-100, 100)]
Seed: TypeAlias = Annotated[int, Range(0, 2**31 - 1)]

Name: TypeAlias = Annotated[str, NotEmpty()]
"""Name of an auxiliary output or of a stream that a fusion block adds."""
Names: TypeAlias = Annotated[tuple[Name, ...], NotEmpty(), Distinct()]
Modality: TypeAlias = Annotated[str, HasEncoder(), NotEmpty()]
OptionalModality: TypeAlias = Annotated[str, HasEncoder()]
"""A modality; "" for none."""
Modalities: TypeAlias = Annotated[tuple[str, ...], HasEncoder(), NotEmpty(), Distinct()]
AllModalities: TypeAlias = Annotated[
    tuple[str, ...], HasEncoder(all=True), NotEmpty(), Distinct()
]
"""All modalities of a model, such as the classes of a discriminator."""
ModalityOrder: TypeAlias = Annotated[tuple[str, ...], HasEncoder(all=True), Distinct()]
"""All modalities of a model, in an order; () for the order of their names."""

SelectionProtocol: TypeAlias = Literal["validation", "fixed_epochs", "as_published"]
"""Selection of the checkpoint: on the validation split, after a fixed number of epochs,
or as the paper's code does, which may use the test split."""

Parallel: TypeAlias = Literal["jit", "pmap", "shard_map"]
"""How devices share a training step, see `mmf.Executor`."""
