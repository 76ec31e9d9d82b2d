"""Reads lists of examples, as MISA, MMIM and MAG-BERT store them: without padding."""

from collections.abc import Sequence
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
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.errors import DataError, join_names, shown, type_name

COLUMNS = (1, 7)
_PARTS = 4
_LENGTHS = 2
_MAX_VOCAB = 1 << 24


def matches(rows: Any) -> bool:
    """Returns whether a split is a list of such examples, as far as its first shows."""
    return isinstance(rows, list | tuple) and bool(rows) and _is_example(rows[0])


def columns(where: str, rows: Any) -> CheckedFields:
    """Returns the parts of a list of examples: words, video, audio, label, id."""
    if not isinstance(rows, list | tuple) or not rows:
        raise DataError("D70", f"{where} is not a list of examples.")
    for index, row in enumerate(rows):
        if not _is_example(row):
            raise _not_an_example(where, index, row)
    parts, labels, names = zip(*rows, strict=True)
    table = {
        "words": [one[0] for one in parts],
        "video": [one[1] for one in parts],
        "audio": [one[2] for one in parts],
        "label": list(labels),
        "id": list(names),
    }
    if all(len(one) >= _PARTS for one in parts):
        table["actual_words"] = [one[_PARTS - 1] for one in parts]
    fields = CheckedFields(where, table)
    if any(len(one) > _PARTS + _LENGTHS for one in parts):
        fields.notes.append(
            f"inputs after the first {_PARTS + _LENGTHS} of an example are not read"
        )
    return fields


def read(fields: CheckedFields) -> Sequences:
    """Reads one split, as `columns` returns it.

        [((words, visual, acoustic, actual_words, ...), label, id), ...]

    `words` are word ids (t), or the words themselves; `visual` and `acoustic` are
    (t f), or (f) in all examples; the label is (1 1), or (1 7), the score and six
    emotions. `actual_words` are missing in the files of MAG-BERT. Lengths, which may
    follow, are ignored: they are those of the arrays.

    Deviation:
        The word embeddings are in another file, a pickle of program objects, which is
        not read: the words stay ids. A modality without steps is missing; the papers'
        code replaces it by one step of zeros.
    """
    count = len(fields.rows("label"))
    inputs: dict[str, Sequence[np.ndarray]] = {}
    tokens = _tokens(fields)
    if not tokens:
        inputs["words"] = _word_ids(fields)
    for modality in ("audio", "video"):
        values = read_features(fields, modality, count)
        with np.errstate(over="ignore"):  # becomes infinite, and is counted as such
            inputs[modality] = [row.astype(np.float32) for row in values]
    texts = [" ".join(words) for words in tokens]
    if "actual_words" in fields:
        rows = fields.rows("actual_words")
        texts = [" ".join(map(_word, words)) for words in rows]
    ids = [_name(name) for name in fields.rows("id")]
    return Sequences(inputs, _labels(fields), ids, texts, tokens=tokens)


def _is_example(row: Any) -> bool:
    """Returns whether a row is ((words, visual, acoustic, ...), label, id)."""
    if not isinstance(row, list | tuple) or len(row) != 3:
        return False
    parts = row[0]
    if not isinstance(parts, list | tuple) or len(parts) < 3:
        return False
    return all(map(_is_sequence, parts[:_PARTS]))


def _is_sequence(value: Any) -> bool:
    """Returns whether a value is a list or an array with at least one axis."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, list | tuple)


def _not_an_example(where: str, index: int, row: Any) -> DataError:
    """Returns the error for a row of another form."""
    what = type_name(row)
    if isinstance(row, list | tuple):
        what = f"a tuple of {join_names(map(type_name, row[:6]), 'nothing')}"
    return DataError(
        "D70",
        f"{where}, example {index:d}, is not ((words, visual, acoustic, actual_words), "
        f"label, id), but {what}.",
        "docs/formats.md, section 'MISA, MMIM and MAG-BERT'",
    )


def _tokens(fields: CheckedFields) -> list[list[str]]:
    """Returns the words of each example; [] if they are ids."""
    rows = fields.rows("words")
    lists = [row.tolist() if isinstance(row, np.ndarray) else row for row in rows]
    first = next((one for row in lists for one in row), None)
    if not isinstance(first, str | bytes):
        return []
    for index, row in enumerate(lists):
        bad = [one for one in row if not isinstance(one, str | bytes)]
        if bad:
            raise fields.error(
                "words",
                f"must be all texts or all ids; example 0 has {shown(first)}, example "
                f"{index:d} {shown(bad[0])}",
            )
    return [[_word(one) for one in row] for row in lists]


def _word_ids(fields: CheckedFields) -> list[np.ndarray]:
    """Returns the word ids of each example, (t) int32."""
    found = []
    for index, row in enumerate(fields.rows("words")):
        one = CheckedFields(f"{fields.where}, example {index:d}", {"words": row})
        values = one.numbers("words", (1,), empty=True)
        valid = (values >= 0) & (values <= _MAX_VOCAB) & (values == np.trunc(values))
        if not valid.all():
            raise one.error(
                "words",
                f"must be integers from 0 to {_MAX_VOCAB}, not "
                f"{shown(values[~valid][0])}",
            )
        found.append(values.astype(np.int32))
    return found


def _labels(fields: CheckedFields) -> dict[str, np.ndarray]:
    """Returns the scores, and the flags of six emotions if all examples have them."""
    rows = [
        fields.example("label", i, row).ravel()
        for i, row in enumerate(fields.rows("label"))
    ]
    for index, row in enumerate(rows):
        if row.size not in COLUMNS:
            raise fields.error(
                "label",
                f"must have 1 or 7 values; example {index:d} has {row.size:d}",
            )
    if len(sizes := sorted({row.size for row in rows})) > 1:
        raise fields.error(
            "label",
            "must have the same number of values in every example, not "
            f"{join_names(sizes)}",
        )
    table = np.stack(rows).astype(np.float32)
    labels = {"score": table[:, 0]}
    if table.shape[1] > 1:
        if not are_intensities(table[:, 1:]):
            raise fields.error("label", bad_intensity(table))
        labels[FLAGS] = flags_of_intensities(table[:, 1:])
    return labels


def _word(value: Any) -> str:
    """Returns a word as a string."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode()


def _name(value: Any) -> str:
    """Returns an id as a string with `CLIP_SEPARATOR`, from "video[3]"."""
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "replace").decode().replace("[", "$_$").rstrip("]")
