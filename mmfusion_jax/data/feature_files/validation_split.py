"""A validation split for files that have only a training and a test split."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from mmfusion_jax.data.feature_files.example_ids import find_videos
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.errors import DataError

FRACTION = 0.15
"""Minimum fraction of the training examples to cut off, about that of CMU-MOSI."""


def cut_off_validation(where: str, train: Sequences) -> tuple[Sequences, Sequences]:
    """Returns a training split without some of its videos, and a split with these.

    Which videos is determined by their names alone, so that two files of the same clips
    are cut alike, and adding a clip changes no other. A video is never divided: its
    clips have the same speaker and topic.

    Args:
        where: The file, for error messages.
        train: The training split.

    Raises:
        DataError: The ids do not name the videos, or there is only one video.
    """
    fix = (
        "add a split 'valid' with clips of other videos, or ids such as 'video$_$clip'"
    )
    videos = find_videos({"train": train.ids})
    names = list(videos.names["train"])
    if not names or not all(names):
        raise DataError(
            "D70",
            f"{where} has no validation split, and its ids do not name the videos, so "
            "that none can be cut off by video.",
            fix,
        )
    order = sorted(set(names), key=lambda one: hashlib.sha256(one.encode()).digest())
    if len(order) < 2:
        raise DataError(
            "D70",
            f"{where} has no validation split, and all of its training examples are of "
            "one video.",
            fix,
        )
    chosen: set[str] = set()
    for one in order[:-1]:
        if sum(name in chosen for name in names) >= FRACTION * len(names):
            break
        chosen.add(one)
    is_valid = np.array([name in chosen for name in names])
    rest, valid = (np.flatnonzero(mask) for mask in (~is_valid, is_valid))
    note = (
        f"the file has no validation split: {len(chosen)} of {len(order)} videos, "
        f"{len(valid)} of {len(names)} examples, were cut off the training split"
    )
    return take(train, rest, [note]), take(train, valid)


def take(
    part: Sequences, rows: Sequence[int] | np.ndarray, notes: Sequence[str] = ()
) -> Sequences:
    """Returns some examples of a split.

    Args:
        part: The split.
        rows: Positions of the examples.
        notes: Remarks to add; without any, those of the split are left out.
    """
    only: Callable[[Sequence], list] = lambda values: (
        [values[int(i)] for i in rows] if len(values) else []
    )
    return Sequences(
        {name: only(values) for name, values in part.inputs.items()},
        {name: values[rows] for name, values in part.labels.items()},
        only(part.ids),
        only(part.texts),
        [*part.notes, *notes] if notes else [],
        only(part.tokens),
    )
