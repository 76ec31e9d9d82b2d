"""Emotions of feature files: yes/no flags, and one class where one flag is set."""

import dataclasses

import numpy as np

FLAGS = "emotions"
"""Label of the flags, (n k) int32 0 or 1."""

CLASS = "emotion"
"""Label of the one flag that is set, (n) int32; not stored, see `one_class`."""

MOSEI_EMOTIONS = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""Columns after the score in label arrays of CMU-MOSEI, as its SDK orders them."""


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """Numbers of examples that do not have a class.

    Attributes:
        none: Examples without a flag that is set.
        several: Examples with several.
    """

    none: int
    several: int

    @property
    def total(self) -> int:
        """Number of both."""
        return self.none + self.several

    @property
    def description(self) -> str:
        """Both numbers in words."""
        return f"{self.none:d} with no emotion, {self.several:d} with several"


def one_class(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray, LeftOut]:
    """Returns the class of the examples with exactly one flag.

    Args:
        flags: (n k) 0 or 1.

    Returns:
        The positions of these examples, (j) int, their classes, (j) int32, and the
        numbers of the others.
    """
    count = np.asarray(flags).sum(axis=1)
    rows = np.flatnonzero(count == 1)
    classes = np.asarray(flags)[rows].argmax(axis=1).astype(np.int32)
    return rows, classes, LeftOut(int((count == 0).sum()), int((count > 1).sum()))


def flags_of_intensities(intensities: np.ndarray) -> np.ndarray:
    """Returns flags that are set where an intensity is above 0.

    Args:
        intensities: (n k) finite, at least 0: means over annotators of 0 to 3.

    Returns:
        (n k) int32 0 or 1.
    """
    return (intensities > 0).astype(np.int32)


def are_intensities(values: np.ndarray) -> bool:
    """Returns whether all values are finite and not negative."""
    return bool((np.isfinite(values) & (values >= 0)).all())


def bad_intensity(columns: np.ndarray) -> str:
    """Returns the message for intensities that are negative or NaN.

    Args:
        columns: (n 1+k) a score and k intensities.
    """
    values = columns[:, 1:]
    row, column = np.argwhere(~(np.isfinite(values) & (values >= 0)))[0]
    return (
        f"has intensities that are negative or NaN; example {row:d} has "
        f"{values[row, column]:g} for emotion {column:d}"
    )
