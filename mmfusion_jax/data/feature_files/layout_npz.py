"""Our own layout, for features that nobody else has: one npz, plain arrays."""

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.padded_sequences import (
    Padded,
    Sequences,
    right_padded,
)

VECTORS = ("text", "audio", "video")
NUMBERS = ("pieces", "words")
SCORES = ("score", "score_text", "score_audio", "score_video")


def read(fields: CheckedFields) -> Sequences:
    """One split, whose arrays are called `train_text` and so on.

    text, audio, video    (n t f) numbers, padded at the end
    pieces, words         (n t) numbers of word pieces (BERT) or words
    NAME_lengths          (n) real steps of NAME; else zeros at the end are padding
    score                 (n), score_text, score_audio, score_video alike
    emotions              (n k) 0 or 1
    id, raw_text          (n) text
    """
    label = "emotions" if "emotions" in fields else "score"
    count = len(fields.numbers(label, (1, 2)))
    inputs = {
        name: _modality(fields, name, count)
        for name in (*VECTORS, *NUMBERS)
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
    if name in NUMBERS:
        values = fields.integers(name, (2,), count, 1 << 24)
    else:
        values = fields.numbers(name, (3,), count)
    lengths = None
    if f"{name}_lengths" in fields:
        most = values.shape[1]
        lengths = fields.integers(f"{name}_lengths", (1,), count, most)
    return right_padded(values, lengths)
