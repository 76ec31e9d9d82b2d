"""Reads feature files in the MulT layout: left-padded, without lengths."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.emotion_labels import (
    FLAGS,
    are_intensities,
    flags_of_intensities,
)
from mmfusion_jax.data.feature_files.padded_sequences import (
    Sequences,
    aligned,
    left_padded,
)

LABELS = "labels"
MODALITIES = {"text": "text", "audio": "audio", "video": "vision"}
COLUMNS = (1, 7)
"""A score, or the score and six emotions of CMU-MOSEI."""


def matches(table: Mapping[Any, Any]) -> bool:
    """Returns whether a split has this layout."""
    return LABELS in table


def read(fields: CheckedFields) -> Sequences:
    """Reads one split.

        text, audio, vision   (n t f)
        labels                (n 1 1) a score; (n 1 7) a score and intensities of six
                          emotions; or (n 4 2) one-hot flags of four emotions
        id                    (n 3) video, start, end; optional

    Deviation:
        Zero steps at the beginning are padding. In aligned files all modalities have
        the same padding: they start at the first step that is non-zero in any of them.
    """
    values = fields.numbers(LABELS, (1, 2, 3))
    count = len(values)
    arrays = _arrays(fields, count)
    ids = fields.strings("id", count) if "id" in fields else ()
    return Sequences(left_padded(arrays), _labels(fields, values), ids)


def is_aligned(fields: CheckedFields) -> bool:
    """Returns whether the modalities are aligned step by step."""
    return aligned(_arrays(fields, -1))


def _arrays(fields: CheckedFields, count: int) -> dict[str, np.ndarray]:
    return {
        name: fields.numbers(key, (3,), count)
        for name, key in MODALITIES.items()
        if key in fields
    }


def _labels(fields: CheckedFields, values: np.ndarray) -> dict[str, np.ndarray]:
    """Returns a score and flags, or flags one-hot encoded as (false, true)."""
    if values.ndim == 3 and values.shape[2] == 2:
        flags = fields.integers(LABELS, (3,), len(values), 1)
        if (flags.sum(axis=2) != 1).any():
            raise fields.error(LABELS, "must be one-hot encoded")
        return {FLAGS: flags.argmax(axis=2).astype(np.int32)}
    columns = values.reshape(len(values), -1)
    if columns.shape[1] not in COLUMNS:
        raise fields.error(LABELS, f"has the shape {values.shape}")
    labels = {"score": columns[:, 0].astype(np.float32)}
    if columns.shape[1] > 1:
        if not are_intensities(columns[:, 1:]):
            raise fields.error(LABELS, "has intensities that are negative or NaN")
        labels[FLAGS] = flags_of_intensities(columns[:, 1:])
    return labels
