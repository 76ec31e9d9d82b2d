"""Feature files in the layout of MulT: padded in front, no lengths."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.padded_sequences import (
    Sequences,
    aligned,
    left_padded,
)

LABELS = "labels"
MODALITIES = {"text": "text", "audio": "audio", "video": "vision"}
COLUMNS = (1, 7)
"""Scores of CMU-MOSEI may come with six emotions behind them."""


def matches(table: Mapping[Any, Any]) -> bool:
    """Whether a split looks like one of this layout."""
    return LABELS in table


def read(fields: CheckedFields) -> Sequences:
    """One split.

        text, audio, vision   (n t f)
        labels                (n 1 1) a score; or (n 4 2) yes or no for four emotions
        id                    (n 3) video, start, end; or none

    Deviation:
        Steps of zeros in front are padding. Aligned files have no padding of their own
        for each modality: all begin with the first step that is real in any.
    """
    given = fields.numbers(LABELS, (1, 2, 3))
    count = len(given)
    arrays = _arrays(fields, count)
    ids = fields.strings("id", count) if "id" in fields else ()
    return Sequences(left_padded(arrays), _labels(fields, given), ids)


def is_aligned(fields: CheckedFields) -> bool:
    """Whether step t of one modality belongs to step t of the others."""
    return aligned(_arrays(fields, -1))


def _arrays(fields: CheckedFields, count: int) -> dict[str, np.ndarray]:
    return {
        name: fields.numbers(key, (3,), count)
        for name, key in MODALITIES.items()
        if key in fields
    }


def _labels(fields: CheckedFields, given: np.ndarray) -> dict[str, np.ndarray]:
    """A score, or flags of which each is written as (not so, so)."""
    if given.ndim == 3 and given.shape[2] == 2:
        flags = fields.integers(LABELS, (3,), len(given), 1)
        if (flags.sum(axis=2) != 1).any():
            raise fields.error(LABELS, "says both yes and no, or neither")
        return {"emotions": flags.argmax(axis=2).astype(np.int32)}
    columns = given.reshape(len(given), -1)
    if columns.shape[1] not in COLUMNS:
        raise fields.error(LABELS, f"has the shape {given.shape}")
    return {"score": columns[:, 0].astype(np.float32)}
