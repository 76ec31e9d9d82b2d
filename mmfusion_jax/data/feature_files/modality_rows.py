"""Reads the features of one modality: padded arrays, ragged lists or vectors."""

from collections.abc import Sequence

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.padded_sequences import Padded, right_padded
from mmfusion_jax.errors import shown_name


def read_features(
    fields: CheckedFields, key: str, count: int, ids: str = ""
) -> np.ndarray | list[np.ndarray]:
    """Reads features with any kind of padding.

    Args:
        fields: Split of a file.
        key: Its entry: an array (n t f), a list or object array of n arrays (t f), in
            which None and empty arrays are missing, or vectors (n f), which are read as
            one step.
        count: n; -1 for any.
        ids: Entry that holds the token ids of this modality; "" for none.

    Returns:
        (n t f), or n arrays (t f) float32 of different lengths.

    Raises:
        DataError: The entry has another form; the message shows an example.
    """
    found = fields.get(key)
    if isinstance(found, np.ndarray) and found.dtype.kind in "biuf":
        return _steps(fields, key, found, count, ids)
    listed = fields.rows(key)
    fields.check_rows(key, len(listed), count)
    rows = [fields.example(key, i, row) for i, row in enumerate(listed)]
    if len({row.shape for row in rows}) == 1:
        return _steps(fields, key, np.stack(rows), count, ids)
    return _ragged(fields, key, rows)


def read_right_padded(
    fields: CheckedFields,
    key: str,
    count: int,
    aligned_with: Padded | None = None,
    ids: str = "",
) -> Sequence[np.ndarray]:
    """Reads features whose padding is at the end.

    Args:
        fields: Split of a file.
        key: Its entry, as in `read_features`; its lengths are in `KEY_lengths`.
        count: n.
        aligned_with: Sequences whose lengths to use if the file has none, and the
            same number of steps; None treats zeros at the end as padding.
        ids: As in `read_features`.
    """
    values = read_features(fields, key, count, ids)
    lengths_key = f"{key}_lengths"
    has_lengths = lengths_key in fields
    if isinstance(values, list):
        if not has_lengths:
            return values
        return _cut(fields, lengths_key, values)
    steps, stop = values.shape[1], None
    if aligned_with is not None and aligned_with.values.shape[1] == steps:
        stop = aligned_with.stop
    if has_lengths and is_vectors(fields, key):
        # Lengths of the sequences that the vectors were made of.
        fields.integers(lengths_key, (1,), count, 1 << 53)
        fields.notes.append(f"{shown_name(lengths_key)} is ignored")
    elif has_lengths:
        stop = fields.integers(
            lengths_key, (1,), count, steps, fix=_too_long(lengths_key, steps)
        )
    return right_padded(values, stop)


def is_vectors(fields: CheckedFields, key: str) -> bool:
    """Returns whether an entry has one vector for each example, (n f)."""
    found = fields.get(key)
    if isinstance(found, np.ndarray) and found.dtype.kind in "biuf":
        return found.ndim == 2
    sizes = [np.ndim(row) for row in fields.rows(key) if row is not None and len(row)]
    return set(sizes) == {1}


def _steps(
    fields: CheckedFields, key: str, values: np.ndarray, count: int, ids: str
) -> np.ndarray:
    """Returns an array (n t f) of an array with two or three axes."""
    if values.ndim == 2 and ids and values.dtype.kind in "iu":
        raise fields.error(
            key,
            f"has the shape {values.shape} and integers, as token ids have; expected "
            "features (n t f)",
            f"store the ids as {shown_name(ids)}; docs/formats.md shows its shape",
        )
    if values.ndim not in (2, 3):
        raise fields.error(
            key, f"has the shape {values.shape}; expected (n t f) or (n f)"
        )
    fields.check_rows(key, len(values), count)
    if not values.size:
        raise fields.error(key, f"is empty: its shape is {values.shape}")
    if values.ndim == 3:
        return values
    fields.notes.append(
        f"{shown_name(key)} has one vector for each example, read as one step"
    )
    return values[:, None]


def _ragged(
    fields: CheckedFields, key: str, rows: list[np.ndarray]
) -> list[np.ndarray]:
    """Returns the rows as (t f) float32, with t = 0 for empty ones."""
    first = next((i for i, row in enumerate(rows) if row.size), None)
    if first is None:
        raise fields.error(key, "is empty in every example")
    expected = rows[first].shape
    if len(expected) not in (1, 2):
        raise fields.error(
            key,
            f"of example {first:d} has the shape {shape_text(expected)}; expected "
            "(t f) or (f)",
        )
    for index, row in enumerate(rows):
        same = row.ndim == len(expected) and row.shape[-1] == expected[-1]
        if row.size and not same:
            raise fields.error(
                key,
                "must have the same number of features in every example; example "
                f"{first:d} has the shape {shape_text(expected)}, example {index:d} "
                f"{shape_text(row.shape)}",
                "only the number of steps, the first axis, may differ: (t f)",
            )
    if len(expected) == 1:
        fields.notes.append(
            f"{shown_name(key)} has one vector for each example, read as one step"
        )
    with np.errstate(over="ignore"):  # becomes infinite, and is counted as such
        return [
            row.astype(np.float32).reshape(-1, expected[-1])
            if row.size
            else np.zeros((0, expected[-1]), np.float32)
            for row in rows
        ]


def _cut(
    fields: CheckedFields, lengths_key: str, rows: list[np.ndarray]
) -> list[np.ndarray]:
    """Returns the rows up to their lengths."""
    longest = max(map(len, rows))
    lengths = fields.integers(
        lengths_key,
        (1,),
        len(rows),
        longest,
        fix=_too_long(lengths_key, longest),
    )
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if length > len(row):
            raise fields.error(
                lengths_key,
                f"of example {index:d} is {length:d}, but it has {len(row)} steps",
                f"remove {shown_name(lengths_key)}: a list of arrays needs no lengths",
            )
    return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def _too_long(lengths_key: str, steps: int) -> str:
    """Returns the fix for lengths beyond the array."""
    field = f"part['{shown_name(lengths_key)}']"
    return (
        "if the features were cut, cut the lengths of every split too: "
        f"{shown_name(field)} = np.minimum({shown_name(field)}, {steps:d})"
    )


def shape_text(shape: tuple[int, ...]) -> str:
    """Returns a shape as in the documentation, such as "(12 5)"."""
    return f"({' '.join(map(str, shape))})"
