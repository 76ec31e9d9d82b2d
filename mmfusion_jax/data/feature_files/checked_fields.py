"""The entries of one split of a file, checked as they are taken."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.padded_sequences import APART
from mmfusion_jax.errors import DataError, suggest


@dataclasses.dataclass(frozen=True)
class CheckedFields:
    """One split of a file, of which nothing is known.

    Attributes:
        where: file and split, as messages name them.
        table: name -> anything.
    """

    where: str
    table: Mapping[Any, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.table

    def get(self, name: str) -> Any:
        """The entry `name`; DataError if it is not there."""
        if name not in self.table:
            known = [str(key) for key in self.table]
            raise DataError(
                "D70", f"{self.where} lacks {name!r}.", suggest(name, known)
            )
        return self.table[name]

    def numbers(
        self, name: str, axes: Sequence[int], count: int = -1, *, empty: bool = False
    ) -> np.ndarray:
        """Numbers.

        Args:
            name: of the entry.
            axes: how many axes it may have.
            count: how long the first one is; -1 for any length above 0.
            empty: whether there may be none at all.
        """
        try:
            values = np.asarray(self.get(name))
        except ValueError as error:  # lists of different lengths
            raise self.error(name, f"is no array ({error})") from error
        if values.dtype.kind not in "biuf":
            raise self.error(name, f"is {values.dtype}, not numbers")
        if values.ndim not in axes:
            raise self.error(name, f"has the shape {values.shape}")
        if not len(values) and not empty:
            raise self.error(name, "is empty")
        if len(values) and not values.size:
            raise self.error(name, f"is empty: its shape is {values.shape}")
        if count not in (-1, len(values)):
            raise self.error(name, f"has {len(values)} rows, the labels {count}")
        return values

    def integers(
        self,
        name: str,
        axes: Sequence[int],
        count: int,
        most: int,
        *,
        empty: bool = False,
    ) -> np.ndarray:
        """Whole numbers 0..most, int32, written as any kind of number."""
        values = self.numbers(name, axes, count, empty=empty)
        if not ((values >= 0) & (values <= most) & (values == np.trunc(values))).all():
            raise self.error(name, f"is not made of whole numbers from 0 to {most}")
        return values.astype(np.int32)

    def strings(self, name: str, count: int) -> tuple[str, ...]:
        """A text for each example; parts of one are joined."""
        found = self.get(name)
        if isinstance(found, np.ndarray):
            found = found.tolist()
        if not isinstance(found, list | tuple):
            raise self.error(name, "is no list of names")
        if len(found) != count:
            raise self.error(name, f"has {len(found)} rows, the labels {count}")
        return tuple(_text(one) for one in found)

    def error(self, name: str, what: str) -> DataError:
        """The error for an entry that is not as it should be."""
        return DataError(
            "D71", f"{self.where}: {name} {what}.", "docs/formats.md has the layouts"
        )


def _text(value: Any) -> str:
    """A name or sentence, whatever wrote it."""
    if isinstance(value, list | tuple):
        return APART.join(map(_text, value))
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode()
