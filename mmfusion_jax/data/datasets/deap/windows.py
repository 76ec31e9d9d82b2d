"""DEAP: EEG and peripheral physiology of people who watch music videos."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example, dataset_loader, subject_dataset
from mmfusion_jax.data.datasets.deap.prepare import (
    CHANNELS,
    EEG,
    HIGH,
    LOW,
    RATE,
    RATINGS,
    SIGNALS,
    SPLIT,
    open_or_prepare,
)
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.data.storage.array_record_store import Records, Store
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import ConfigError, DataError

CLASSES = ("low", "high")
PEOPLE, TRIALS, SECONDS = 32, 40, 60
"""Participants, films each of them saw, and seconds of a film, as published."""

FILES = "s[0-9][0-9].dat"
EXPECTED_LAYOUT = """\
  folder/s01.dat .. s32.dat    one for each participant, at any depth, as in
      data_preprocessed_python.zip; ask for it with the signed licence at
      https://www.eecs.qmul.ac.uk/mmv/datasets/deap/"""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/of_cmaer_cat.py:digits "
    "runs on embedded data, without DEAP"
)


@dataclasses.dataclass(frozen=True)
class DeapSource:
    """Windows of some participants as examples.

    Attributes:
        records: the seconds of each participant.
        indices: (n 2) participant, and its first second, of every window.
        window: seconds of a window.
        labels: label name -> (n).
    """

    records: Sequence[Records]
    indices: np.ndarray
    window: int
    labels: Mapping[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        person, first = self.indices[index].tolist()
        seconds = range(first, first + self.window)
        x = np.concatenate([self.records[person][i][SIGNALS] for i in seconds])
        mask = np.ones(len(x), bool)
        return {
            "inputs": {"eeg": x[:, :EEG], "peripheral": x[:, EEG:]},
            "masks": {"eeg": mask, "peripheral": mask},
            "labels": {name: value[index] for name, value in self.labels.items()},
            "weight": np.float32(1),
        }


def outline(
    *,
    fold: int = 0,
    folds: int = 8,
    protocol: str = "validation",
    threshold: float = 5.0,
    window: int = 1,
    hop: int = 1,
    **_: Any,
) -> Dataset:
    """What `load_deap` returns, with zeros for examples; reads nothing."""
    _check(threshold, window, hop)
    _check_window(window, SECONDS)
    people = cross_validation_split(range(PEOPLE), fold, folds, protocol)
    each = TRIALS * len(range(0, SECONDS - window + 1, hop))
    return outline_dataset(
        "deap",
        "DEAP",
        {split: each * len(chosen) for split, chosen in people.items()},
        {
            "eeg": ((RATE * window, EEG), "float32"),
            "peripheral": ((RATE * window, CHANNELS - EEG), "float32"),
        },
        classes=dict.fromkeys(RATINGS, CLASSES),
    )


@dataset_loader(takes=("fold", "folds", "protocol"), outline=outline)
def load_deap(
    data_dir: str,
    *,
    fold: int = 0,
    folds: int = 8,
    protocol: str = "validation",
    threshold: float = 5.0,
    window: int = 1,
    hop: int = 1,
) -> Dataset:
    """Windows of the preprocessed signals, and how the participant felt.

    Read once for all folds. An example holds "eeg", (t 32) float32, and "peripheral",
    (t 8): eyes, muscles, skin, breath, pulse and temperature; t is 128 a second. Every
    channel of every participant has mean 0 and deviation 1 over their own recording.

    Labels: "valence", "arousal", "dominance" and "liking", each of `CLASSES`: a rating
    above the threshold is high.

    Args:
        data_dir: folder with the files of the participants.
        fold: fold f tests every folds-th participant from the f-th on.
        folds: how many there are.
        protocol: "honest" chooses the step on the participants that the next fold
            tests, taken out of training; "fixed" and "paper" train on all others.
        threshold: of the ratings, 1 to 9.
        window: seconds of an example.
        hop: seconds from one window of a trial to the next.

    Raises:
        ConfigError: an argument cannot work.
        DataError: a file is missing or damaged.

    Reference:
        Koelstra et al. 2012; OF-CMAER-CAT, Sec. 4.
    Deviation:
        The paper says neither how ratings become classes nor how long windows are: the
        middle of the scale, and seconds. The three seconds before each film are left
        out. No participant is in two splits: windows of one trial are nearly the same.
        The videos of faces, which 22 participants have, are not in these files.
    """
    _check(threshold, window, hop)
    files = sorted(Path(data_dir).expanduser().rglob(FILES)) if data_dir else []
    if not files:
        raise DataError(
            "D40",
            f"config.data.dir={data_dir!r}: {FILES} are not there. The folder looks "
            f"like\n{EXPECTED_LAYOUT}",
            FALLBACK_HINT,
        )
    names = tuple(file.stem for file in files)
    people = cross_validation_split(names, fold, folds, protocol)
    read = track(map(open_or_prepare, files), len(files), "reading DEAP")
    stores = dict(zip(names, read, strict=True))
    sources = {
        split: _source([stores[name] for name in chosen], threshold, window, hop)
        for split, chosen in people.items()
    }
    classes: dict[str, tuple[str, ...]] = dict.fromkeys(RATINGS, CLASSES)
    licence = "signed agreement of DEAP, research only"
    return subject_dataset("deap", "DEAP", sources, people, classes, licence)


def _check(threshold: float, window: int, hop: int) -> None:
    """Raises ConfigError for arguments that cannot work."""
    if not LOW <= threshold < HIGH:
        raise ConfigError(
            "C10",
            f"config.data.threshold={threshold} is out of range.",
            f"{LOW:g} to below {HIGH:g}",
        )
    for name, seconds in {"window": window, "hop": hop}.items():
        if seconds < 1:
            raise ConfigError(
                "C10", f"config.data.{name}={seconds} is out of range.", "1 or more"
            )


def _check_window(window: int, seconds: int) -> None:
    """Raises ConfigError for a window that is longer than a trial."""
    if window > seconds:
        raise ConfigError(
            "C10",
            f"config.data.window={window} is longer than a trial.",
            f"1 to {seconds}",
        )


def _source(
    stores: Sequence[Store], threshold: float, window: int, hop: int
) -> DeapSource:
    """All windows of some participants."""
    places, ratings = [], []
    for person, store in enumerate(stores):
        seconds = store.manifest["seconds"]
        _check_window(window, seconds)
        starts = range(0, seconds - window + 1, hop)
        for trial, rating in enumerate(store.manifest["ratings"]):
            places += [(person, trial * seconds + start) for start in starts]
            ratings += [rating] * len(starts)
    high = (np.array(ratings) > threshold).astype(np.int32)
    labels = {name: high[:, i] for i, name in enumerate(RATINGS)}
    records = [store.source(SPLIT) for store in stores]
    return DeapSource(records, np.array(places), window, labels)
