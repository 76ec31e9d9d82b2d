"""Feature files in the layout of MMSA: padded at the end, lengths beside them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.padded_sequences import (
    Padded,
    Sequences,
    right_padded,
)

LABELS = "regression_labels"
SCORES = {
    "score": LABELS,
    "score_text": f"{LABELS}_T",
    "score_audio": f"{LABELS}_A",
    "score_video": f"{LABELS}_V",
}
MODALITIES = {"text": "text", "audio": "audio", "video": "vision"}
PIECES = "text_bert"
SEGMENTS = f"{PIECES} has several segments; every piece is taken for the first one"
_MOST = 1 << 24  # no vocabulary is larger


def matches(table: Mapping[Any, Any]) -> bool:
    """Whether a split looks like one of this layout."""
    return LABELS in table


def read(fields: CheckedFields) -> Sequences:
    """One split.

        text                  (n t 768) vectors of BERT
        text_bert             (n 3 t) word pieces, which are real, segments
        audio, vision         (n t f)
        audio_lengths, vision_lengths       (n), unless aligned with the text
        regression_labels     (n); _T, _A, _V: of the modalities alone
        id, raw_text          (n)

    Deviation:
        Only the pieces that `text_bert` calls real are; with them goes the text, and
        audio and video that have no lengths and as many steps. Without `text_bert`
        steps of zeros at the end are padding.
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
            notes += _behind(name, rows)
    labels = {
        name: _column(fields, key, count)
        for name, key in SCORES.items()
        if key in fields
    }
    ids = fields.strings("id", count) if "id" in fields else ()
    texts = fields.strings("raw_text", count) if "raw_text" in fields else ()
    return Sequences(inputs, labels, ids, texts, notes)


def is_aligned(fields: CheckedFields) -> bool:
    """Whether step t of one modality belongs to step t of the others."""
    return "audio_lengths" not in fields and "vision_lengths" not in fields


def _pieces(fields: CheckedFields, count: int) -> Padded | None:
    """The word pieces of the text."""
    if PIECES not in fields:
        return None
    found = fields.integers(PIECES, (3,), count, _MOST)
    if found.shape[1] != 3:
        raise fields.error(PIECES, f"has the shape {found.shape}, not (n 3 t)")
    ids, real = found[:, 0], found[:, 1]
    if real.max() > 1 or (np.diff(real, axis=1) > 0).any():
        raise fields.error(PIECES, "[:, 1] is not ones and then zeros")
    return right_padded(ids, real.sum(axis=1))


def _modality(
    fields: CheckedFields, key: str, count: int, pieces: Padded | None
) -> Padded:
    """Text, audio or vision."""
    values = fields.numbers(key, (3,), count)
    steps, lengths = values.shape[1], None
    if f"{key}_lengths" in fields:
        lengths = fields.integers(f"{key}_lengths", (1,), count, steps)
    elif pieces is not None and pieces.values.shape[1] == steps:
        lengths = pieces.stop
    return right_padded(values, lengths)


def _behind(name: str, rows: Padded) -> list[str]:
    """A note if something stands where the padding should be."""
    pairs = zip(rows.values, rows.stop, strict=True)
    count = sum(bool(values[stop:].any()) for values, stop in pairs)
    if not count:
        return []
    return [f"{name} of {count} examples goes on behind its length; that is left out"]


def _column(fields: CheckedFields, key: str, count: int) -> np.ndarray:
    """One score for each example, (n) float32."""
    values = fields.numbers(key, (1, 2), count).reshape(count, -1)
    if values.shape[1] != 1:
        raise fields.error(key, f"has {values.shape[1]} columns")
    return values[:, 0].astype(np.float32)
