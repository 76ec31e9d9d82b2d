"""Reads feature files in the layout of MMIM and MISA: unpadded lists of examples."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.emotion_labels import (
    FLAGS,
    are_intensities,
    flags_of_intensities,
)
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.errors import DataError, join_names, shown_name

COLUMNS = (1, 7)


def read(where: str, rows: Any) -> Sequences:
    """Reads one split.

        [((words, visual, acoustic, actual_words, ...), label, id), ...]

    `words` are word ids, (t), `visual` and `acoustic` (t f), and the label is (1 1), or
    (1 7), the score and six emotions. Lengths, which may follow, are ignored: they are
    those of the arrays.

    Deviation:
        The word embeddings are in another file, a pickle of program objects, which is
        not read: the words stay ids. A modality without steps is missing; the papers'
        code replaces it by one step of zeros.
    """
    if not isinstance(rows, list | tuple) or not rows:
        raise DataError("D70", f"{where} is not a list of examples.")
    inputs: dict[str, list[np.ndarray]] = {"words": [], "audio": [], "video": []}
    columns, ids, texts = [], [], []
    for index, row in enumerate(rows):
        parts, label, name = _parts(where, index, row)
        fields = CheckedFields(
            f"{where}, example {index}",
            dict(zip(("words", "video", "audio"), parts, strict=False))
            | {"label": label},
        )
        words = fields.integers("words", (1,), -1, 1 << 24, empty=True)
        inputs["words"].append(words)
        for modality in ("audio", "video"):
            inputs[modality].append(_features(fields, modality))
        columns.append(_columns(fields))
        ids.append(_name(name))
        texts.append(" ".join(map(str, parts[3])))
    for modality in ("audio", "video"):
        inputs[modality] = _one_width(
            f"{where}: {shown_name(modality)}", inputs[modality]
        )
    return Sequences(inputs, _labels(where, columns), ids, texts)


def _parts(where: str, index: int, row: Any) -> tuple[Sequence[Any], Any, Any]:
    """Inputs, label and id of an example."""
    is_triple = isinstance(row, list | tuple) and len(row) == 3
    if is_triple and isinstance(row[0], list | tuple) and len(row[0]) >= 4:
        return row[0], row[1], row[2]
    raise DataError(
        "D70",
        f"{where}, example {index}, is not ((words, visual, acoustic, actual_words), "
        "label, id).",
    )


def _features(fields: CheckedFields, name: str) -> np.ndarray:
    """(t f) float32; (0) for an empty sequence."""
    values = fields.numbers(name, (1, 2), empty=True)
    if values.ndim == 1 and len(values):
        raise fields.error(name, f"has the shape {values.shape}")
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _one_width(where: str, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the same (t f), with the right width for sequences without steps."""
    widths = {x.shape[1] for x in rows if len(x)}
    if len(widths) != 1:
        raise DataError(
            "D71",
            f"{where} must have the same number of features in every "
            f"example, not {join_names(sorted(widths), 'none at all')}.",
        )
    return [x if len(x) else np.zeros((0, *widths), np.float32) for x in rows]


def _columns(fields: CheckedFields) -> np.ndarray:
    """Returns the score, and the intensities if there are any, (1) or (7)."""
    values = fields.numbers("label", (1, 2)).ravel()
    if values.size not in COLUMNS:
        raise fields.error("label", f"must have 1 or 7 values, not {values.size}")
    if not are_intensities(values[1:]):
        raise fields.error("label", "has intensities that are negative or NaN")
    return values


def _labels(where: str, columns: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the scores, and the flags of six emotions if all examples have them."""
    if len(sizes := sorted({len(row) for row in columns})) > 1:
        raise DataError(
            "D71",
            f"{where}: label must have the same number of values in every example, "
            f"not {join_names(sizes)}.",
        )
    table = np.stack(columns).astype(np.float32)
    labels = {"score": table[:, 0]}
    if table.shape[1] > 1:
        labels[FLAGS] = flags_of_intensities(table[:, 1:])
    return labels


def _name(value: Any) -> str:
    """Returns an id as a string with `CLIP_SEPARATOR`, from "video[3]"."""
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    return text.replace("[", "$_$").rstrip("]")
