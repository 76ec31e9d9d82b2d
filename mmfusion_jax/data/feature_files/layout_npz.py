"""Reads feature files in the npz layout of this library: plain arrays."""

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.padded_sequences import (
    Padded,
    Sequences,
    right_padded,
)

FEATURES = ("text", "audio", "video")
IDS = ("pieces", "words")
SCORES = ("score", "score_text", "score_audio", "score_video")


def read(fields: CheckedFields) -> Sequences:
    """Reads one split, whose arrays are named `train_text` and so on.

    text, audio, video    (n t f) features, right-padded
    pieces, words         (n t) token ids (BERT) or word ids
    NAME_lengths          (n) valid steps of NAME; else zeros at the end are padding
    score                 (n); score_text, score_audio, score_video likewise
    emotions              (n k) 0 or 1; instead of a score or beside it
    id, raw_text          (n) strings
    """
    label = "emotions" if "emotions" in fields else "score"
    count = len(fields.numbers(label, (1, 2)))
    inputs = {
        name: _modality(fields, name, count)
        for name in (*FEATURES, *IDS)
        if name in fields
    }
    labels: dict[str, np.ndarray] = {
        name: fields.numbers(name, (1,), count).astype(np.float32)
        for name in SCORES
        if name in fields
    }
    if label == "emotions":
        labels[label] = fields.integers(label, (2,), count, 1)
    ids = fields.strings("id", count) if "id" in fields else ()
    texts = fields.strings("raw_text", count) if "raw_text" in fields else ()
    return Sequences(inputs, labels, ids, texts)


def _modality(fields: CheckedFields, name: str, count: int) -> Padded:
    if name in IDS:
        values = fields.integers(name, (2,), count, 1 << 24)
    else:
        values = fields.numbers(name, (3,), count)
    lengths = None
    if f"{name}_lengths" in fields:
        maximum = values.shape[1]
        lengths = fields.integers(f"{name}_lengths", (1,), count, maximum)
    return right_padded(values, lengths)
