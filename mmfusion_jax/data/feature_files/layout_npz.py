"""Reads feature files in the npz layout of this library: plain arrays."""

from collections.abc import Sequence

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.entry_names import describe_unread, nearest
from mmfusion_jax.data.feature_files.modality_rows import read_right_padded
from mmfusion_jax.data.feature_files.padded_sequences import (
    Padded,
    Sequences,
    right_padded,
)
from mmfusion_jax.errors import DataError, join_names, shown_name

FEATURES = ("text", "audio", "video")
IDS = ("pieces", "words")
SCORES = ("score", "score_text", "score_audio", "score_video")
NAMES = (
    *FEATURES,
    *IDS,
    *(f"{name}_lengths" for name in (*FEATURES, *IDS)),
    *SCORES,
    "emotions",
    "id",
    "raw_text",
)
"""All arrays of a split, without its name."""

ALIKE = {
    "vision": "video",
    "visual": "video",
    "acoustic": "audio",
    "language": "text",
    "text_bert": "pieces",
    "labels": "score",
    "sentiment": "score",
    "regression_labels": "score",
}
"""Names of other layouts -> name in this one."""


def read(fields: CheckedFields) -> Sequences:
    """Reads one split, whose arrays are named `train_text` and so on.

    text, audio, video    (n t f) features, right-padded, or (n f)
    pieces, words         (n t) token ids (BERT) or word ids
    NAME_lengths          (n) valid steps of NAME; else zeros at the end are padding
    score                 (n); score_text, score_audio, score_video likewise
    emotions              (n k) 0 or 1; instead of a score or beside it
    id, raw_text          (n) strings

    Raises:
        DataError: There is an array of another name: one that is misspelled would be
            missing without a word.
    """
    _check_names(fields)
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
    texts = fields.strings("raw_text", count, " ") if "raw_text" in fields else ()
    return Sequences(inputs, labels, ids, texts)


def _check_names(fields: CheckedFields) -> None:
    """Raises DataError if there are arrays of other names, or lengths of nothing."""
    present = [name for name in NAMES if name in fields.table]
    unknown = [name for name in fields.table if name not in NAMES]
    unknown += [
        name
        for name in present
        if name.endswith("_lengths") and name.removesuffix("_lengths") not in present
    ]
    if not unknown:
        return
    hints = {str(name): nearest(name, NAMES, ALIKE) for name in unknown}
    parts = [
        f"{shown_name(name)} to {shown_name(hint)}"
        for name, hint in hints.items()
        if hint and hint not in fields.table
    ]
    fix = f"remove them; a split can have {join_names(NAMES)}"
    if parts:
        fix = f"rename {', '.join(map(str, parts))}; docs/formats.md lists the names"
    raise DataError(
        "D71",
        f"{fields.where}: arrays that are not read: {describe_unread(unknown, hints)}.",
        fix,
    )


def _modality(fields: CheckedFields, name: str, count: int) -> Sequence[np.ndarray]:
    if name not in IDS:
        return read_right_padded(fields, name, count, ids="words")
    values = fields.integers(name, (2,), count, 1 << 24)
    return _ids(fields, name, values)


def _ids(fields: CheckedFields, name: str, values: np.ndarray) -> Padded:
    """Token ids with their lengths."""
    lengths = None
    if f"{name}_lengths" in fields:
        maximum = values.shape[1]
        lengths = fields.integers(f"{name}_lengths", (1,), len(values), maximum)
    return right_padded(values, lengths)
