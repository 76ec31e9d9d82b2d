"""Reads feature files in the MMSA layout: right-padded, with lengths."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.padded_sequences import (
    Padded,
    Sequences,
    right_padded,
)
from mmfusion_jax.errors import shown_name

LABELS = "regression_labels"
SCORES = {
    "score": LABELS,
    "score_text": f"{LABELS}_T",
    "score_audio": f"{LABELS}_A",
    "score_video": f"{LABELS}_V",
}
MODALITIES = {"text": "text", "audio": "audio", "video": "vision"}
PIECES = "text_bert"
SEGMENTS = f"{PIECES} has several segments; all tokens are treated as segment 0"
_MAX_VOCAB = 1 << 24


def matches(table: Mapping[Any, Any]) -> bool:
    """Returns whether a split has this layout."""
    return LABELS in table


def read(fields: CheckedFields) -> Sequences:
    """Reads one split.

        text                  (n t 768) BERT embeddings
        text_bert             (n 3 t) token ids, mask, segment ids
        audio, vision         (n t f)
        audio_lengths, vision_lengths       (n), unless aligned with the text
        regression_labels     (n); _T, _A, _V: labels of single modalities
        id, raw_text          (n)

    Deviation:
        The mask of `text_bert` also masks the text, and audio and video that have no
        lengths and the same number of steps. Without `text_bert` zero steps at the end
        are padding.
    """
    score = fields.numbers(LABELS, (1, 2))
    count = len(score)
    pieces = _pieces(fields, count)
    inputs = {} if pieces is None else {"pieces": pieces}
    notes = [SEGMENTS] if pieces is not None and fields.get(PIECES)[:, 2].any() else []
    for name, key in MODALITIES.items():
        if key in fields:
            rows = _modality(fields, key, count, pieces)
            inputs[name] = rows
            notes += _past_length(name, rows)
    labels = {
        name: _column(fields, key, count)
        for name, key in SCORES.items()
        if key in fields
    }
    ids = fields.strings("id", count) if "id" in fields else ()
    texts = fields.strings("raw_text", count) if "raw_text" in fields else ()
    return Sequences(inputs, labels, ids, texts, notes)


def is_aligned(fields: CheckedFields) -> bool:
    """Returns whether the modalities are aligned step by step."""
    return "audio_lengths" not in fields and "vision_lengths" not in fields


def _pieces(fields: CheckedFields, count: int) -> Padded | None:
    """Returns the token ids of the text."""
    if PIECES not in fields:
        return None
    found = fields.integers(PIECES, (3,), count, _MAX_VOCAB)
    if found.shape[1] != 3:
        raise fields.error(PIECES, f"must have the shape (n 3 t), not {found.shape}")
    ids, mask = found[:, 0], found[:, 1]
    if mask.max() > 1 or (np.diff(mask, axis=1) > 0).any():
        raise fields.error(PIECES, "[:, 1] must be ones followed by zeros")
    return right_padded(ids, mask.sum(axis=1))


def _modality(
    fields: CheckedFields, key: str, count: int, pieces: Padded | None
) -> Padded:
    """Text, audio or vision."""
    values = fields.numbers(key, (3,), count)
    steps, lengths = values.shape[1], None
    if f"{key}_lengths" in fields:
        lengths = fields.integers(f"{key}_lengths", (1,), count, steps)
    elif pieces is not None and pieces.values.shape[1] == steps:
        # Without lengths of its own, a modality with as many steps as the text is
        # aligned with it.
        lengths = pieces.stop
    return right_padded(values, lengths)


def _past_length(name: str, rows: Padded) -> list[str]:
    """Returns a note if there are non-zero values in the padding."""
    pairs = zip(rows.values, rows.stop, strict=True)
    count = sum(bool(values[stop:].any()) for values, stop in pairs)
    if not count:
        return []
    return [
        f"{shown_name(name)} of {count} examples has non-zero values past "
        "its length; truncated"
    ]


def _column(fields: CheckedFields, key: str, count: int) -> np.ndarray:
    """One score for each example, (n) float32."""
    values = fields.numbers(key, (1, 2), count).reshape(count, -1)
    if values.shape[1] != 1:
        raise fields.error(key, f"must have one column, not {values.shape[1]}")
    return values[:, 0].astype(np.float32)
