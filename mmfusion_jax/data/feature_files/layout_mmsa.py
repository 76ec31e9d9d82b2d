"""Reads feature files in the MMSA layout: right-padded, with lengths."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.checked_fields import CheckedFields
from mmfusion_jax.data.feature_files.modality_rows import (
    read_right_padded,
)
from mmfusion_jax.data.feature_files.padded_sequences import (
    Padded,
    Sequences,
    right_padded,
)
from mmfusion_jax.errors import shown, shown_name

LABELS = "regression_labels"
SCORES = {
    "score": LABELS,
    "score_text": f"{LABELS}_T",
    "score_audio": f"{LABELS}_A",
    "score_video": f"{LABELS}_V",
}
MODALITIES = {"text": "text", "audio": "audio", "video": "vision"}
PIECES = "text_bert"
NAMES = (
    *MODALITIES.values(),
    PIECES,
    "audio_lengths",
    "vision_lengths",
    *SCORES.values(),
    "id",
    "raw_text",
)
"""All entries that are read."""

ALIASES = {
    "text": ("language",),
    "audio": ("acoustic",),
    "vision": ("video", "visual"),
    "audio_lengths": ("acoustic_lengths",),
    "vision_lengths": ("video_lengths", "visual_lengths"),
}
"""Entry -> other names under which it is read."""

UNUSED = ("annotations", "classification_labels")
"""Entries of published files with classes, which are made of the scores."""
SEGMENTS = f"{PIECES} has several segments; all tokens are treated as segment 0"
_MAX_VOCAB = 1 << 24


def matches(table: Mapping[Any, Any]) -> bool:
    """Returns whether a split has this layout."""
    return LABELS in CheckedFields("", table)


def read(fields: CheckedFields) -> Sequences:
    """Reads one split.

        text                  (n t 768) BERT embeddings
        text_bert             (n 3 t) token ids, mask, segment ids
        audio, vision         (n t f), a list of (t f), or (n f)
        audio_lengths, vision_lengths       (n), unless aligned with the text
        regression_labels     (n); _T, _A, _V: labels of single modalities
        id, raw_text          (n)

    Deviation:
        The mask of `text_bert` also masks the text, and audio and video that have no
        lengths and the same number of steps. Without `text_bert` zero steps at the end
        are padding.
    """
    count = len(_column(fields, LABELS, -1))
    pieces = _pieces(fields, count)
    inputs: dict[str, Sequence[np.ndarray]] = {}
    if pieces is not None:
        inputs["pieces"] = pieces
    notes = []
    if pieces is not None and fields.numbers(PIECES, (3,))[:, 2].any():
        notes.append(SEGMENTS)
    for name, key in MODALITIES.items():
        if key in fields:
            rows = _modality(fields, key, count, pieces)
            inputs[name] = rows
            if isinstance(rows, Padded):
                notes += _past_length(name, rows)
    labels = {
        name: _column(fields, key, count)
        for name, key in SCORES.items()
        if key in fields
    }
    ids = fields.strings("id", count) if "id" in fields else ()
    texts = fields.strings("raw_text", count, " ") if "raw_text" in fields else ()
    return Sequences(inputs, labels, ids, texts, notes)


def is_aligned(fields: CheckedFields, found: Sequences) -> bool:
    """Returns whether the modalities of a split are aligned step by step."""
    has_lengths = "audio_lengths" in fields or "vision_lengths" in fields
    return not has_lengths and all(isinstance(x, Padded) for x in found.inputs.values())


def _pieces(fields: CheckedFields, count: int) -> Padded | None:
    """Returns the token ids of the text."""
    if PIECES not in fields:
        return None
    field = f"part['{PIECES}']"
    found = fields.numbers(PIECES, (2, 3), count)
    if found.ndim == 2:
        raise fields.error(
            PIECES,
            f"has the shape {found.shape}; expected (n 3 t): ids, mask, segments",
            f"in every split: ids = {shown_name(field)}; {shown_name(field)} = "
            "np.stack([ids, ids > 0, 0 * ids], axis=1)",
        )
    if found.shape[1] != 3:
        fix = "docs/formats.md describes the layouts"
        if found.shape[2] == 3:
            fix = (
                f"in every split: {shown_name(field)} = "
                f"{shown_name(field)}.transpose(0, 2, 1)"
            )
        raise fields.error(
            PIECES, f"must have the shape (n 3 t), not {found.shape}", fix
        )
    found = fields.integers(PIECES, (3,), count, _MAX_VOCAB)
    ids, mask = found[:, 0], found[:, 1]
    bad = (mask.max(axis=1) > 1) | (np.diff(mask, axis=1) > 0).any(axis=1)
    if bad.any():
        raise fields.error(
            PIECES,
            f"[:, 1] must be ones followed by zeros; example {bad.argmax():d} has "
            f"{shown(mask[bad.argmax()].tolist())}",
        )
    return right_padded(ids, mask.sum(axis=1))


def _modality(
    fields: CheckedFields, key: str, count: int, pieces: Padded | None
) -> Sequence[np.ndarray]:
    """Text, audio or vision."""
    # Without lengths of its own, a modality with as many steps as the text is aligned
    # with it.
    ids = PIECES if key == "text" else ""
    return read_right_padded(fields, key, count, pieces, ids)


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
    values = fields.numbers(key, (1, 2, 3), count)
    columns = values.reshape(len(values), -1)
    if columns.shape[1] != 1:
        one_hot = ((columns == 0) | (columns == 1)).all() and (
            columns.sum(axis=1) == 1
        ).all()
        what = f"must have one column, not {columns.shape[1]:d}"
        fix = "store one score for each example, (n)"
        if one_hot:
            what += "; it is one-hot encoded, as classes are"
            fix = "classes are not scores: take the scores that they were made of"
        raise fields.error(key, what, fix)
    return columns[:, 0].astype(np.float32)
