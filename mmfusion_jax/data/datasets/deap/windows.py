"""DEAP: EEG and peripheral signals of participants who watch music videos."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import numpy as np

from mmfusion_jax.data.array_hashes import hash_arrays
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
from mmfusion_jax.data.option_checks import check_at_least, find_files, out_of_range
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.data.storage.array_record_store import Records, Store
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.option_types import PositiveInt, Range
from mmfusion_jax.results.run_identity import sha256_json

Threshold: TypeAlias = Annotated[float, Range(LOW, HIGH, below=True)]
CLASSES = ("low", "high")
PARTICIPANTS, TRIALS, SECONDS = 32, 40, 60
"""Participants, trials of each, and seconds of a trial, as published."""

FILES = "**/s[0-9][0-9].dat"
EXPECTED_LAYOUT = """\
  folder/s01.dat .. s32.dat    one per participant, at any depth, as in
      data_preprocessed_python.zip; request it with the signed license at
      https://www.eecs.qmul.ac.uk/mmv/datasets/deap/"""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/of_cmaer_cat.py:digits "
    "runs on embedded data, without DEAP"
)


@dataclasses.dataclass(frozen=True)
class DeapSource:
    """Windows of some participants as examples.

    Attributes:
        records: Records of each participant of the split, one per second.
        indices: Index in `records`, and first second, of every window, (n 2).
        window: Length of a window in seconds.
        labels: Label name -> (n).
        digests: Hash of the store of each participant.
    """

    records: Sequence[Records]
    indices: np.ndarray
    window: int
    labels: Mapping[str, np.ndarray]
    digests: Sequence[str]

    def __len__(self) -> int:
        return len(self.indices)

    def content_digest(self) -> str:
        """Returns a hash of the stores and the windows; reads no signal."""
        windows = hash_arrays([self.indices])
        return sha256_json([list(self.digests), windows, self.window])

    def __getitem__(self, index: int) -> Example:
        participant, first = self.indices[index].tolist()
        records = self.records[participant]
        # Windows are put together here, so that one store serves every window and hop,
        # and seconds that are in several windows are stored once.
        seconds = range(first, first + self.window)
        x = np.concatenate([records[i][SIGNALS] for i in seconds])
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
    threshold: Threshold = 5.0,
    window: PositiveInt = 1,
    hop: PositiveInt = 1,
    **_: Any,
) -> Dataset:
    """Returns the outline of `load_deap`; reads nothing."""
    _check(threshold, window, hop)
    _check_window(window, SECONDS)
    participants = cross_validation_split(range(PARTICIPANTS), fold, folds, protocol)
    windows = TRIALS * len(range(0, SECONDS - window + 1, hop))
    return outline_dataset(
        "deap",
        "DEAP",
        {split: windows * len(chosen) for split, chosen in participants.items()},
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
    threshold: Threshold = 5.0,
    window: PositiveInt = 1,
    hop: PositiveInt = 1,
) -> Dataset:
    """Loads windows of the preprocessed signals, with the ratings of the participants.

    Prepared once for all folds. The inputs of an example are "eeg", (t 32) float32, and
    "peripheral", (t 8): EOG, EMG, GSR, respiration, plethysmograph and temperature; t
    is 128 per second. Every channel is standardized over the recording of the
    participant.

    Labels: "valence", "arousal", "dominance" and "liking", with the classes `CLASSES`:
    a rating above the threshold is high.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.deap("no_such_folder")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: Folder with the files of the participants.
        fold: Index of the fold, which tests every folds-th participant from the f-th
            on.
        folds: Number of folds.
        protocol: "validation" selects the checkpoint on the test participants of the
            next fold, which are held out from training; "fixed_epochs" and
            "as_published" train on all others.
        threshold: Threshold of the ratings, 1 to 9.
        window: Length of an example in seconds.
        hop: Hop between windows of a trial in seconds.

    Raises:
        ConfigError: An argument is invalid.
        DataError: A file is missing or damaged.

    Reference:
        Koelstra et al. 2012; OF-CMAER-CAT, Sec. 4.
    Deviation:
        The paper gives neither the threshold of the ratings nor the length of windows:
        here the middle of the scale, and one second. The three seconds before each
        video are skipped. No participant is in two splits, as windows of one trial are
        nearly identical. The face videos of 22 participants are not in these files.
    """
    _check(threshold, window, hop)
    files = find_files(data_dir, FILES, EXPECTED_LAYOUT, FALLBACK_HINT)
    names = tuple(file.stem for file in files)
    participants = cross_validation_split(names, fold, folds, protocol)
    opened = track(map(open_or_prepare, files), len(files), "reading DEAP")
    stores = dict(zip(names, opened, strict=True))
    sources = {
        split: _source([stores[name] for name in chosen], threshold, window, hop)
        for split, chosen in participants.items()
    }
    classes: dict[str, tuple[str, ...]] = dict.fromkeys(RATINGS, CLASSES)
    license = "signed agreement of DEAP, research only"
    ids = {
        split: [f"{participants[split][i]}/{second}" for i, second in source.indices]
        for split, source in sources.items()
    }
    return subject_dataset("deap", "DEAP", sources, participants, classes, license, ids)


def _check(threshold: float, window: int, hop: int) -> None:
    """Raises ConfigError for invalid arguments."""
    if not LOW <= threshold < HIGH:
        raise out_of_range("threshold", threshold, f"{LOW:g} to below {HIGH:g}")
    check_at_least(1, window=window, hop=hop)


def _check_window(window: int, seconds: int) -> None:
    """Raises ConfigError for a window that is longer than a trial."""
    if window > seconds:
        raise ConfigError(
            "C10",
            f"config.data.window={window:d} is longer than a trial.",
            f"1 to {seconds:d}",
        )


def _source(
    stores: Sequence[Store], threshold: float, window: int, hop: int
) -> DeapSource:
    """Returns all windows of the given participants."""
    indices, ratings = [], []
    for participant, store in enumerate(stores):
        seconds = store.manifest["seconds"]
        _check_window(window, seconds)
        starts = range(0, seconds - window + 1, hop)
        for trial, rating in enumerate(store.manifest["ratings"]):
            # The records of a store are those of all trials, concatenated. `starts` is
            # within a trial, so that no window contains the end of one.
            first = trial * seconds
            indices += [(participant, first + start) for start in starts]
            ratings += [rating] * len(starts)
    high = (np.array(ratings) > threshold).astype(np.int32)
    labels = {name: high[:, i] for i, name in enumerate(RATINGS)}
    records = [store.source(SPLIT) for store in stores]
    digests = [store.digest() for store in stores]
    return DeapSource(records, np.array(indices), window, labels, digests)
