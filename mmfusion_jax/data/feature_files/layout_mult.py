"""Reads feature files in the MulT layout: left-padded, without lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.emotion_labels import (
    FLAGS,
    are_intensities,
    bad_intensity,
    flags_of_intensities,
)
from mmfusion_jax.data.feature_files.modality_rows import read_features
from mmfusion_jax.data.feature_files.padded_sequences import (
    Padded,
    Sequences,
    left_padded,
    right_padded_alike,
    zeros_at_end,
)
from mmfusion_jax.errors import shown

LABELS = "labels"
MODALITIES = {"text": "text", "audio": "audio", "video": "vision"}
NAMES = (*MODALITIES.values(), LABELS, "id")
"""All entries that are read."""

ALIASES = {
    "text": ("language",),
    "audio": ("acoustic",),
    "vision": ("video", "visual"),
}
"""Entry -> other names under which it is read."""

COLUMNS = (1, 7)
"""A score, or the score and six emotions of CMU-MOSEI."""


def matches(table: Mapping[Any, Any]) -> bool:
    """Returns whether a split has this layout."""
    fields = CheckedFields("", table, ALIASES)
    return LABELS in fields and any(key in fields for key in MODALITIES.values())


def read(fields: CheckedFields) -> Sequences:
    """Reads one split.

        text, audio, vision   (n t f), a list of (t f), or (n f)
        labels                (n 1 1) a score; (n 1 7) a score and intensities of six
                          emotions; or (n 4 2) one-hot flags of four emotions
        id                    (n 3) video, start, end; optional

    Deviation:
        Zero steps at the beginning are padding. In aligned files all modalities have
        the same padding: they start at the first step that is non-zero in any of them.
        Published files are padded at the beginning; if no example begins with zeros and
        some end with them, the file is padded at the end.
    """
    values = fields.numbers(LABELS, (1, 2, 3))
    count = len(values)
    found = {
        name: read_features(fields, key, count)
        for name, key in MODALITIES.items()
        if key in fields
    }
    arrays = {n: x for n, x in found.items() if isinstance(x, np.ndarray)}
    padded = left_padded(arrays)
    if zeros_at_end(arrays):
        padded = right_padded_alike(arrays)
        fields.notes.append(
            "zero steps are at the end, unlike in published files of this layout: read "
            "as padding"
        )
    inputs: dict[str, Sequence[np.ndarray]] = {}
    for name, rows in found.items():
        inputs[name] = rows if isinstance(rows, list) else padded[name]
    ids = fields.strings("id", count) if "id" in fields else ()
    return Sequences(inputs, _labels(fields, values), ids)


def is_aligned(fields: CheckedFields, found: Sequences) -> bool:
    """Returns whether the modalities of a split are aligned step by step."""
    del fields
    arrays = [x.values for x in found.inputs.values() if isinstance(x, Padded)]
    return len(arrays) == len(found.inputs) and len({x.shape[1] for x in arrays}) == 1


def _labels(fields: CheckedFields, values: np.ndarray) -> dict[str, np.ndarray]:
    """Returns a score and flags, or flags one-hot encoded as (false, true)."""
    if values.ndim == 3 and values.shape[2] == 2:
        flags = fields.integers(LABELS, (3,), len(values), 1)
        if (flags.sum(axis=2) != 1).any():
            bad = np.argwhere(flags.sum(axis=2) != 1)[0]
            raise fields.error(
                LABELS,
                f"must be one-hot encoded; example {bad[0]:d} has "
                f"{shown(flags[tuple(bad)].tolist())} for emotion {bad[1]:d}",
            )
        return {FLAGS: flags.argmax(axis=2).astype(np.int32)}
    columns = values.reshape(len(values), -1)
    if columns.shape[1] not in COLUMNS:
        raise fields.error(
            LABELS,
            f"has the shape {values.shape}; expected (n 1 1), (n 1 7) or (n 4 2)",
        )
    labels = {"score": columns[:, 0].astype(np.float32)}
    if columns.shape[1] > 1:
        if not are_intensities(columns[:, 1:]):
            raise fields.error(LABELS, bad_intensity(columns))
        labels[FLAGS] = flags_of_intensities(columns[:, 1:])
    return labels
