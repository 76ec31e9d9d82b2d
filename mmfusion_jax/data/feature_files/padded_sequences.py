"""What a file of features holds, whatever it looked like: one form for all formats."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

APART = "$_$"
"""Stands between the video and the clip in the name of an example."""


@dataclasses.dataclass(frozen=True)
class Padded(Sequence[np.ndarray]):
    """Sequences that lie side by side in one padded array.

    Attributes:
        values: (n t f) numbers, or (n t) ids.
        start: first real step of each, (n) int.
        stop: step after the last real one, (n) int.
    """

    values: np.ndarray
    start: np.ndarray
    stop: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: Any) -> np.ndarray:
        """The real steps of one example, (t f) float32 or (t) int32."""
        rows = self.values[index, self.start[index] : self.stop[index]]
        ids = np.issubdtype(rows.dtype, np.integer) and rows.ndim == 1
        with np.errstate(over="ignore"):  # becomes infinite, and is counted as that
            return rows.astype(np.int32 if ids else np.float32)


@dataclasses.dataclass(frozen=True)
class Sequences:
    """One split of a file.

    Attributes:
        inputs: name -> a sequence for each example, without padding: "text", "audio"
            and "video", (t f) float32; "pieces", (t) int32, the word pieces of BERT;
            "words", (t) int32, numbers of words. One of no steps is missing.
        labels: "score", (n) float32, and perhaps "score_text", "score_audio" and
            "score_video"; or "emotions", (n 4) int32.
        ids: names of the examples, "video$_$clip"; () where the file has none.
        texts: what was said; () where the file has none.
        notes: what is odd about the file, in sentences.
    """

    inputs: Mapping[str, Sequence[np.ndarray]]
    labels: Mapping[str, np.ndarray]
    ids: Sequence[str] = ()
    texts: Sequence[str] = ()
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))

    def examples(self) -> Iterator[dict[str, np.ndarray]]:
        """The inputs of each example, in order."""
        for i in range(len(self)):
            yield {name: rows[i] for name, rows in self.inputs.items()}


def video(name: str) -> str:
    """The video that an example was cut from."""
    return name.split(APART)[0]


def right_padded(values: np.ndarray, lengths: np.ndarray | None = None) -> Padded:
    """Sequences whose padding is at the end.

    Args:
        values: (n t ...).
        lengths: real steps of each, (n); None leaves out the steps of zeros at the
            end.
    """
    if lengths is None:
        real = _real(values)
        last = real.shape[1] - real[:, ::-1].argmax(axis=1)
        lengths = np.where(real.any(axis=1), last, 0)
    return Padded(values, np.zeros(len(values), int), lengths)


def left_padded(values: Mapping[str, np.ndarray]) -> dict[str, Padded]:
    """Sequences whose padding, steps of zeros, is in front.

    Args:
        values: name -> (n t f). Where all have as many steps, they are aligned: step t
            of one belongs to step t of the others, and they begin together.

    Returns:
        The same; what is zero throughout has no steps.
    """
    begin = {}
    for name, array in values.items():
        real = _real(array)
        begin[name] = np.where(real.any(1), real.argmax(1), array.shape[1])
    if aligned(values):
        first = np.min(list(begin.values()), axis=0)
        steps = next(iter(values.values())).shape[1]
        begin = {m: np.where(b < steps, first, steps) for m, b in begin.items()}
    stop = {name: np.full(len(x), x.shape[1]) for name, x in values.items()}
    return {name: Padded(x, begin[name], stop[name]) for name, x in values.items()}


def aligned(values: Mapping[str, np.ndarray]) -> bool:
    """Whether all of (n t f) have as many steps."""
    return len({x.shape[1] for x in values.values()}) == 1


def _real(values: np.ndarray) -> np.ndarray:
    """Which steps are not zero throughout, (n t) bool; NaN is not zero."""
    return np.asarray(values.reshape(*values.shape[:2], -1).any(axis=-1))
