"""The fields of one split of a feature file, checked when they are read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.padded_sequences import CLIP_SEPARATOR
from mmfusion_jax.errors import DataError, shorten, shown, shown_name, suggest


@dataclasses.dataclass(frozen=True)
class CheckedFields:
    """One split of an untrusted feature file.

    Attributes:
        where: File and split, for error messages.
        table: Name -> anything.
    """

    where: str
    table: Mapping[Any, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.table

    def get(self, name: str) -> Any:
        """Returns the field `name`; DataError if it is missing."""
        if name not in self.table:
            known = [str(key) for key in self.table]
            raise DataError(
                "D70", f"{self.where} has no {shown(name)}.", suggest(name, known)
            )
        return self.table[name]

    def numbers(
        self, name: str, axes: Sequence[int], count: int = -1, *, empty: bool = False
    ) -> np.ndarray:
        """Returns a numeric array.

        Args:
            name: Name of the field.
            axes: Allowed numbers of axes.
            count: Length of the first axis; -1 for any length above 0.
            empty: True if the array may be empty.
        """
        try:
            values = np.asarray(self.get(name))
        except ValueError as error:  # lists of different lengths
            raise self.error(name, f"is not an array ({shorten(error)})") from error
        if values.dtype.kind not in "biuf":
            raise self.error(name, f"must be numeric, not {values.dtype.name}")
        if values.ndim not in axes:
            raise self.error(name, f"has the shape {values.shape}")
        if not len(values) and not empty:
            raise self.error(name, "is empty")
        if len(values) and not values.size:
            raise self.error(name, f"is empty: its shape is {values.shape}")
        if count not in (-1, len(values)):
            raise self.error(
                name, f"has {len(values)} rows, but there are {count} labels"
            )
        return values

    def integers(
        self,
        name: str,
        axes: Sequence[int],
        count: int,
        maximum: int,
        *,
        empty: bool = False,
    ) -> np.ndarray:
        """Integers 0..maximum, int32, stored as any numeric dtype."""
        values = self.numbers(name, axes, count, empty=empty)
        valid = (values >= 0) & (values <= maximum) & (values == np.trunc(values))
        if not valid.all():
            raise self.error(name, f"must be integers from 0 to {maximum}")
        return values.astype(np.int32)

    def strings(self, name: str, count: int) -> tuple[str, ...]:
        """Returns a string for each example; lists of strings are joined."""
        found = self.get(name)
        if isinstance(found, np.ndarray):
            found = found.tolist()
        if not isinstance(found, list | tuple):
            raise self.error(name, "must be a list of strings")
        if len(found) != count:
            raise self.error(
                name, f"has {len(found)} rows, but there are {count} labels"
            )
        return tuple(_text(one) for one in found)

    def error(self, name: str, what: str) -> DataError:
        """Returns the error for an invalid field."""
        return DataError(
            "D71",
            f"{self.where}: {shown_name(name)} {what}.",
            "docs/formats.md describes the layouts",
        )


def _text(value: Any) -> str:
    """Returns a name or sentence of any type as a string."""
    if isinstance(value, list | tuple):
        return CLIP_SEPARATOR.join(map(_text, value))
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    # Pickles may hold lone surrogates, which can be neither stored nor printed.
    return text.encode("utf-8", "replace").decode()
