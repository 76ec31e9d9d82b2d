"""The common form of feature files in all layouts: variable-length sequences."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

CLIP_SEPARATOR = "$_$"
"""Separates the video from the clip in the id of an example."""


@dataclasses.dataclass(frozen=True)
class Padded(Sequence[np.ndarray]):
    """Sequences stored in one padded array.

    Attributes:
        values: (n t f) features, or (n t) ids.
        start: First valid step of each, (n) int.
        stop: Step after the last valid one, (n) int.
    """

    values: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Returns the valid steps of one example, (t f) float32 or (t) int32."""
        rows = self.values[index, self.start[index] : self.stop[index]]
        ids = np.issubdtype(rows.dtype, np.integer) and rows.ndim == 1
        with np.errstate(over="ignore"):  # becomes infinite, and is counted as such
            return rows.astype(np.int32 if ids else np.float32)


@dataclasses.dataclass(frozen=True)
class Sequences:
    """One split of a file.

    Attributes:
        inputs: Name -> a sequence for each example, without padding: "text", "audio"
            and "video", (t f) float32; "pieces", (t) int32, token ids of BERT;
            "words", (t) int32, word ids. A sequence without steps is missing.
        labels: "score", (n) float32, and optionally "score_text", "score_audio" and
            "score_video"; "emotions", (n k) int32 0 or 1, instead or in addition.
        ids: Ids of the examples, "video$_$clip"; () if the file has none.
        texts: Transcripts; () if the file has none.
        notes: Remarks about the file.
        tokens: The words of each example; () if the file has none.
    """

    inputs: Mapping[str, Sequence[np.ndarray]]
    labels: Mapping[str, np.ndarray]
    ids: Sequence[str] = ()
    texts: Sequence[str] = ()
    notes: Sequence[str] = ()
    tokens: Sequence[Sequence[str]] = ()

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    def examples(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields the inputs of each example, in order."""
        for i in range(len(self)):
            yield {name: rows[i] for name, rows in self.inputs.items()}


def video(name: str) -> str:
    """Returns the video that an example is a segment of."""
    return name.split(CLIP_SEPARATOR)[0]


def right_padded(values: np.ndarray, lengths: np.ndarray | None = None) -> Padded:
    """Sequences whose padding is at the end.

    Args:
        values: (n t ...).
        lengths: Number of valid steps of each, (n); None treats zero steps at the end
            as padding.
    """
    if lengths is None:
        nonzero = _nonzero(values)
        last = nonzero.shape[1] - nonzero[:, ::-1].argmax(axis=1)
        lengths = np.where(nonzero.any(axis=1), last, 0)
    return Padded(values, np.zeros(len(values), int), lengths)


def left_padded(values: Mapping[str, np.ndarray]) -> dict[str, Padded]:
    """Sequences whose padding, steps of zeros, is at the beginning.

    Args:
        values: Name -> (n t f). If all have the same number of steps, they are aligned:
            step t of one corresponds to step t of the others, and they start together.

    Returns:
        The sequences; one that is all zeros has no steps.
    """
    start = {}
    for name, array in values.items():
        nonzero = _nonzero(array)
        start[name] = np.where(nonzero.any(1), nonzero.argmax(1), array.shape[1])
    if values and aligned(values):
        # Zeros at the beginning of one modality, such as silence, are values where
        # another one has begun.
        first = np.min(list(start.values()), axis=0)
        steps = next(iter(values.values())).shape[1]
        start = {m: np.where(b < steps, first, steps) for m, b in start.items()}
    stop = {name: np.full(len(x), x.shape[1]) for name, x in values.items()}
    return {name: Padded(x, start[name], stop[name]) for name, x in values.items()}


def right_padded_alike(values: Mapping[str, np.ndarray]) -> dict[str, Padded]:
    """Returns sequences as `left_padded` does, with the padding at the end."""
    turned = left_padded({name: x[:, ::-1] for name, x in values.items()})
    return {
        name: Padded(x, np.zeros(len(x), int), x.shape[1] - turned[name].start)
        for name, x in values.items()
    }


def zeros_at_end(values: Mapping[str, np.ndarray]) -> bool:
    """Returns whether examples end with zero steps, and none begins with them.

    Args:
        values: Name -> (n t f). Examples that are all zeros are not counted.
    """
    nonzero = [_nonzero(x) for x in values.values() if x.shape[1] > 1]
    present = [rows[rows.any(axis=1)] for rows in nonzero]
    return all(rows[:, 0].all() for rows in present) and any(
        not rows[:, -1].all() for rows in present
    )


def aligned(values: Mapping[str, np.ndarray]) -> bool:
    """Returns whether all arrays (n t f) have the same number of steps."""
    return len({x.shape[1] for x in values.values()}) == 1


def _nonzero(values: np.ndarray) -> np.ndarray:
    """Steps that are not all zeros, (n t) bool; NaN is not zero."""
    return np.asarray(values.reshape(*values.shape[:2], -1).any(axis=-1))
