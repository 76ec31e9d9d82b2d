"""The fields of one split of a feature file, checked when they are read."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.entry_names import CUTOFF, spelling
from mmfusion_jax.data.feature_files.padded_sequences import CLIP_SEPARATOR
from mmfusion_jax.errors import DataError, closest, join_names, shown, shown_name

DESCRIBED = "docs/formats.md describes the layouts"

EXPECTED = {1: "(n)", 2: "(n k)", 3: "(n t f)"}
"""Number of axes -> shape, for messages."""

_MAX_DEPTH = 8
_PLAIN = (str, bytes, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True)
class CheckedFields:
    """One split of an untrusted feature file.

    Attributes:
        where: File and split, for error messages.
        table: Name -> anything.
        aliases: Name -> other names under which it is read, if the file has no entry of
            that name. Names that differ in case, separators or a plural s are read too.
        read: Name -> key of `table` from which it was read.
        notes: Remarks about what was read.
    """

    where: str
    table: Mapping[Any, Any]
    aliases: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    read: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: list[str] = dataclasses.field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return self._key(name) is not None

    @property
    def unread(self) -> list[Any]:
        """Keys of `table` that were not read."""
        used = set(self.read.values())
        return [key for key in self.table if key not in used]

    @property
    def renamed(self) -> list[str]:
        """Entries that were read under another name, such as "video as vision"."""
        pairs = [(_text(key), name) for name, key in self.read.items()]
        return [
            f"{shown_name(key)} as {shown_name(name)}"
            for key, name in pairs
            if key != name
        ]

    @functools.cached_property
    def _spellings(self) -> dict[str, list[Any]]:
        """Spelling -> keys of `table`."""
        found: dict[str, list[Any]] = {}
        for key in self.table:
            found.setdefault(spelling(key), []).append(key)
        return found

    def _key(self, name: str) -> Any:
        """Returns the key of a field; None if it is missing."""
        if name in self.table:
            return name
        wanted = {spelling(one) for one in (name, *self.aliases.get(name, ()))}
        keys = [key for one in sorted(wanted) for key in self._spellings.get(one, ())]
        if len(keys) > 1:
            raise DataError(
                "D71",
                f"{self.where} contains {join_names(keys)}, which are all read as "
                f"{shown(name)}.",
                f"keep one of them, and name it {shown_name(name)}",
            )
        return keys[0] if keys else None

    def get(self, name: str) -> Any:
        """Returns the field `name`; DataError if it is missing."""
        key = self._key(name)
        if key is None:
            known = [str(key) for key in self.table]
            near = closest(name, known, CUTOFF)
            fix = f"it contains {join_names(known[:12], 'nothing')}"
            if near:
                fix = f"if {shown(near)} is meant, rename it to {shown_name(name)}"
            raise DataError("D70", f"{self.where} has no {shown(name)}.", fix)
        self.read[name] = key
        return self.table[key]

    def numbers(
        self, name: str, axes: Sequence[int], count: int = -1, *, empty: bool = False
    ) -> np.ndarray:
        """Returns a numeric array.

        Args:
            name: Name of the field, an array or nested lists of numbers.
            axes: Allowed numbers of axes.
            count: Length of the first axis; -1 for any length above 0.
            empty: True if the array may be empty.
        """
        values = self._array(name)
        if values.ndim not in axes:
            listed = " or ".join(EXPECTED[n] for n in axes)
            raise self.error(
                name, f"has the shape {values.shape}; expected {shown_name(listed)}"
            )
        self.check_rows(name, len(values), count, empty=empty)
        if len(values) and not values.size:
            raise self.error(name, f"is empty: its shape is {values.shape}")
        return values

    def check_rows(
        self, name: str, rows: int, count: int = -1, *, empty: bool = False
    ) -> None:
        """Raises DataError if a field does not have one row for each label."""
        if not rows and not empty:
            raise self.error(
                name, "is empty", "the program that wrote the file stored no examples"
            )
        if count not in (-1, rows):
            raise self.error(name, f"has {rows:d} rows, but there are {count} labels")

    def integers(
        self,
        name: str,
        axes: Sequence[int],
        count: int,
        maximum: int,
        *,
        empty: bool = False,
        fix: str = DESCRIBED,
    ) -> np.ndarray:
        """Integers 0..maximum, int32, stored as any numeric dtype.

        Args:
            name: Name of the field.
            axes: As in `numbers`.
            count: As in `numbers`.
            maximum: Maximum of the values.
            empty: As in `numbers`.
            fix: Remedy for a value above the maximum.
        """
        values = self.numbers(name, axes, count, empty=empty)
        valid = (values >= 0) & (values <= maximum) & (values == np.trunc(values))
        if not valid.all():
            position = np.argwhere(~valid)[0]
            value = values[tuple(position)]
            raise self.error(
                name,
                f"must be integers from 0 to {maximum}; example {position[0]:d} has "
                f"{shown(value)}",
                fix if value > maximum else DESCRIBED,
            )
        return values.astype(np.int32)

    def strings(
        self, name: str, count: int, separator: str = CLIP_SEPARATOR
    ) -> tuple[str, ...]:
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
        return tuple(_text(one, separator) for one in found)

    def rows(self, name: str) -> list[Any]:
        """Returns a list or array as a list of its rows."""
        found = self.get(name)
        if isinstance(found, np.ndarray) and found.ndim:
            return found.tolist() if found.dtype.kind in "OSU" else list(found)
        if not isinstance(found, list | tuple):
            raise self.error(name, f"must be an array, not {_kind(found)}")
        return list(found)

    def example(self, name: str, index: int, value: Any) -> np.ndarray:
        """Returns one row as a numeric array; None becomes an empty one."""
        if value is None:
            return np.zeros(0, np.float32)
        made = value
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            made = self._converted(name, value, index)
        return made

    def _array(self, name: str) -> np.ndarray:
        found = self.get(name)
        if isinstance(found, np.ndarray) and found.dtype.kind in "biuf":
            return found
        return self._converted(name, self.rows(name), -1)

    def _converted(self, name: str, value: Any, index: int) -> np.ndarray:
        """Returns nested lists and object arrays as a numeric array.

        Args:
            name: Name of the field.
            value: All rows, or one of them.
            index: Number of the row, for error messages; -1 for all rows.
        """
        try:
            made = np.asarray(value)
            if made.dtype.kind == "O":  # object arrays, maybe of numbers
                value = _as_lists(value)
                made = np.asarray(value)
        except ValueError:  # lists of different lengths
            raise self._uneven(name, value, index) from None
        if made.dtype.kind in "biuf":
            return made
        rows = value if index < 0 and isinstance(value, list) else [value]
        for number, row in enumerate(rows):
            bad = _not_numbers(row)
            if bad:
                raise self._not_numeric(name, number if index < 0 else index, bad[0])
        raise self.error(name, f"must be numeric, not {made.dtype.name}")

    def _uneven(self, name: str, value: Any, index: int) -> DataError:
        """Returns the error for rows of different shapes."""
        if index >= 0 or not isinstance(value, list):
            what = f"has an example {index:d} whose rows have different lengths"
            return self.error(name, what)
        shapes = [_shape(row) for row in value]
        number = next((i for i, s in enumerate(shapes) if s != shapes[0]), 0)
        return self.error(
            name,
            f"must have rows of the same shape; example 0 has {shown(shapes[0])}, "
            f"example {number:d} has {shown(shapes[number])}",
        )

    def _not_numeric(self, name: str, index: int, value: Any) -> DataError:
        """Returns the error for a value that is not a number."""
        what = f"must be numeric; example {index:d} has {shown(value)}"
        field = f"part[{shown(name)}]"
        fix = DESCRIBED
        if isinstance(value, str | bytes):
            fix = (
                "names of classes and texts are not scores or features: take the "
                "numbers that they were made of"
            )
            if name == "text":
                fix = "sentences are named raw_text; text is for embeddings (n t f)"
            elif _is_number(value):
                fix = (
                    "convert the texts of every split: "
                    f"{shown_name(field)} = [float(x) for x in {shown_name(field)}]"
                )
        elif value is None:
            fix = "remove these examples from every entry of the split"
        return self.error(name, what, fix)

    def error(self, name: str, what: str, fix: str = DESCRIBED) -> DataError:
        """Returns the error for an invalid field."""
        key = self._key(name)
        name = name if key is None else _text(key)
        return DataError("D71", f"{self.where}: {shown_name(name)} {what}.", fix)


def _as_lists(value: Any, depth: int = 0) -> Any:
    """Returns object arrays as lists, also where they are nested."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        value = value.tolist()
    # A hostile file can nest one list in itself so often that a copy has no end.
    if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
        return [
            one if type(one) in _PLAIN else _as_lists(one, depth + 1) for one in value
        ]
    return value


def _not_numbers(value: Any) -> list[Any]:
    """Returns the first value that is not a number, in a list; [] for none."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "biuf":
            return []
        value = value.tolist()
    if isinstance(value, list | tuple):
        return next((bad for one in value if (bad := _not_numbers(one))), [])
    if isinstance(value, bool | float):
        return []
    is_small = isinstance(value, int) and value.bit_length() < 64
    return [] if is_small else [value]


def _is_number(value: str | bytes) -> bool:
    """Returns whether a text is that of a number."""
    try:
        float(value[:100])
    except ValueError:
        return False
    return True


def _shape(value: Any) -> tuple[int, ...] | str:
    """Returns the shape of nested lists; "ragged" if they have none."""
    try:
        return np.shape(value)
    except ValueError:
        return "ragged"


def _kind(value: Any) -> str:
    """Returns what a value is, for a message."""
    return f"a value of type {type(value).__name__}"


def _text(value: Any, separator: str = CLIP_SEPARATOR) -> str:
    """Returns a name or sentence of any type as a string."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return separator.join(_text(one, separator) for one in value)
    if isinstance(value, bytes):
        try:
            text = value.decode("utf-8")
        except UnicodeDecodeError:
            text = value.decode("latin1")
    else:
        text = str(value)
    # Pickles may hold lone surrogates, which can be neither stored nor printed.
    return text.encode("utf-8", "replace").decode()
