"""Stress-Predict: wearable sensor signals at rest and under stress."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmfusion_jax.data.dataset import Dataset, dataset_loader, subject_dataset
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.option_checks import check_at_least, check_choice, find_files
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.errors import ConfigError, DataError, join_names, shown
from mmfusion_jax.option_types import PositiveInt
from mmfusion_jax.results.predictor_file import Preprocessing
from mmfusion_jax.safe_load.npz import read_npz

LABEL = "stress"
CLASSES = ("rest", "stress")
SIGNALS = {"eda": 4, "temp": 4, "hr": 1, "bvp": 16, "resp": 1}
"""Modality -> samples per second: electrodermal activity, skin temperature, heart rate,
blood volume pulse, and respiration rate."""

SUBJECTS, SECONDS = 29, 2900
"""Subjects with labels, and the approximate seconds of rest or stress of each."""

STANDARDIZE_BY = ("subject", "train")
FILES = "S*.npz"
LABELS = ("label", "label_time_s", "label_resp")
ENDINGS = ("rate_hz", "offset_s")
EXPECTED_LAYOUT = """\
  folder/S01.npz .. S30.npz    one per subject: eda, temp, hr and bvp (n), each with
      *_rate_hz and *_offset_s; label (0 or 1), label_time_s and label_resp, one per
      second; subjects without label are skipped"""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/of_cmaer_cat.py:digits "
    "runs on embedded data, without these files"
)

Windows = tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]
"""Inputs (n t 1) and masks (n t) by modality, and the label (n), of one subject."""


def outline(
    *,
    fold: int = 0,
    folds: int = 5,
    protocol: str = "validation",
    window: PositiveInt = 60,
    hop: PositiveInt = 30,
    standardize_by: Literal["subject", "train"] = "subject",
    **_: Any,
) -> Dataset:
    """Returns the outline of `load_stress_predict`; reads nothing.

    The number of windows with a single label depends on the files: the sizes are
    estimates.
    """
    _check(window, hop, standardize_by)
    subjects = cross_validation_split(range(SUBJECTS), fold, folds, protocol)
    windows = max(1, SECONDS // hop)
    return outline_dataset(
        "stress_predict",
        "Stress-Predict",
        {split: windows * len(chosen) for split, chosen in subjects.items()},
        {name: ((window * rate, 1), "float32") for name, rate in SIGNALS.items()},
        classes={LABEL: CLASSES},
    )


@dataset_loader(takes=("fold", "folds", "protocol"), outline=outline)
def load_stress_predict(
    data_dir: str,
    *,
    fold: int = 0,
    folds: int = 5,
    protocol: str = "validation",
    window: PositiveInt = 60,
    hop: PositiveInt = 30,
    standardize_by: Literal["subject", "train"] = "subject",
) -> Dataset:
    """Loads windows of wearable sensor signals with a single label.

    The inputs of an example are the modalities of `SIGNALS`, (t 1) float32, with t the
    window times the sample rate. Missing samples are masked.

    Label: "stress", with the classes `CLASSES`.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.stress_predict("no_such_folder")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: Folder with the files of the subjects.
        fold: Index of the fold, which tests every folds-th subject from the f-th on.
        folds: Number of folds.
        protocol: "validation" selects the checkpoint on the test subjects of the next
            fold, which are held out from training; "fixed_epochs" and "as_published"
            train on all others.
        window: Length of an example in seconds.
        hop: Hop between windows in seconds.
        standardize_by: "subject" standardizes every signal of every subject over their
            own recording, which needs all of it but no labels; "train" uses the
            statistics of the training subjects.

    Raises:
        ConfigError: An argument is invalid.
        DataError: A file is missing or damaged.

    Reference:
        Iqbal et al. 2022, Sensors 22:8135.
    """
    _check(window, hop, standardize_by)
    subjects = _subjects(data_dir)
    split_subjects = cross_validation_split(tuple(subjects), fold, folds, protocol)
    windows_of = {
        name: _windows(signals, window, hop, standardize_by == "subject")
        for name, signals in subjects.items()
    }
    for split, names in split_subjects.items():
        if not any(len(windows_of[name][2]) for name in names):
            raise ConfigError(
                "C10",
                f"config.data.window={window:g}: split {shown(split)} has no window "
                "with a single label.",
                "a shorter window",
            )
    standardizers: dict[str, Standardizer] = {}
    if standardize_by == "train":
        standardizers = _fit(windows_of, split_subjects["train"])
        windows_of = _standardized(windows_of, standardizers)
    sources = {
        split: _concatenate([windows_of[name] for name in names])
        for split, names in split_subjects.items()
    }
    ids = {
        split: [
            f"{name}/{i}" for name in names for i in range(len(windows_of[name][2]))
        ]
        for split, names in split_subjects.items()
    }
    data = subject_dataset(
        "stress_predict",
        "Stress-Predict",
        sources,
        split_subjects,
        {LABEL: CLASSES},
        "MIT",
        ids,
    )
    scaling = {name: one.scaling for name, one in standardizers.items()}
    return dataclasses.replace(data, preprocessing=Preprocessing(scaling))


def _check(window: int, hop: int, standardize_by: str) -> None:
    """Raises ConfigError for invalid arguments."""
    check_at_least(1, window=window, hop=hop)
    check_choice("standardize_by", standardize_by, STANDARDIZE_BY)


def _subjects(data_dir: str) -> dict[str, dict[str, np.ndarray]]:
    """Returns signals and labels of every subject that has labels, in order."""
    files = find_files(data_dir, FILES, EXPECTED_LAYOUT, FALLBACK_HINT)
    read = {path: read_npz(path) for path in files}
    return {
        path.stem: _aligned(path, arrays)
        for path, arrays in read.items()
        if "label" in arrays
    }


def _aligned(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the signals of the labeled seconds; NaN where a signal is missing.

    Returns:
        Modality -> (seconds rate) float32, and "label" (seconds) int32.
    """
    # The respiration rate has no array of its own: it is a column of the labels, with
    # one value per second.
    needed = [n for n in SIGNALS if n != "resp"]
    names = [*LABELS, *needed, *(f"{n}_{k}" for n in needed for k in ENDINGS)]
    if missing := [name for name in names if name not in arrays]:
        raise DataError("D52", f"{path} has no {join_names(missing)}.")
    time, label = arrays["label_time_s"], arrays["label"]
    rates = {n: float(arrays[f"{n}_rate_hz"]) for n in needed}
    wrong = [n for n, rate in rates.items() if rate != SIGNALS[n]]
    if label.ndim != 1 or not len(label) or not np.isin(label, (0, 1)).all():
        wrong.append("label")
    elif time.shape != label.shape or (np.diff(time) != 1).any():
        wrong.append("label_time_s")
    elif arrays["label_resp"].shape != label.shape:
        wrong.append("label_resp")
    wrong += [name for name in needed if arrays[name].ndim != 1]
    if wrong:
        raise DataError(
            "D52",
            f"{path}: invalid {join_names(wrong)}. Expected layout:\n{EXPECTED_LAYOUT}",
        )
    found: dict[str, np.ndarray] = {"label": label.astype(np.int32)}
    for name in needed:
        # All times are on one clock, but every signal begins and ends at another one.
        # `first` is the sample of the first labeled second: negative if the signal
        # begins later, such as the heart rate, which begins 10 s late.
        offset = float(arrays[f"{name}_offset_s"])
        first = round((float(time[0]) - offset) * SIGNALS[name])
        count = len(label) * SIGNALS[name]
        signal = np.full(count, np.nan, np.float32)
        start = max(first, 0)
        samples = arrays[name][start : max(first + count, start)]
        signal[start - first : start - first + len(samples)] = samples
        found[name] = signal.reshape(len(label), SIGNALS[name])
    found["resp"] = arrays["label_resp"].astype(np.float32)[:, None]
    return found


def _windows(
    signals: Mapping[str, np.ndarray], window: int, hop: int, standardize: bool
) -> Windows:
    """Returns the windows of one subject with a single label."""
    label = signals["label"]
    starts = np.arange(0, len(label) - window + 1, hop)
    seconds = starts[:, None] + np.arange(window)  # n window
    labels = label[seconds]
    # A window with rest and stress has no true label.
    single = (labels == labels[:, :1]).all(axis=1)
    inputs, masks = {}, {}
    for name in SIGNALS:
        x = signals[name]
        valid = np.isfinite(x)
        # Over the whole recording, not the windows: also over seconds that are in no
        # window or in two.
        if standardize and valid.any():
            x = _standardizer([x[valid]])(x)
        # 0 and not NaN: a NaN times a weight of 0 is NaN.
        x = np.where(valid, x, np.float32(0))
        shape = int(single.sum()), window * SIGNALS[name]
        inputs[name] = x[seconds[single]].reshape(*shape, 1)
        masks[name] = valid[seconds[single]].reshape(shape)
    return inputs, masks, labels[single, 0]


def _fit(
    windows_of: Mapping[str, Windows], train: tuple[str, ...]
) -> dict[str, Standardizer]:
    """Fits every signal of the windows of the training subjects."""

    def valid_steps(subject: str, name: str) -> np.ndarray:
        inputs, masks, _ = windows_of[subject]
        return inputs[name][masks[name]][:, 0]

    # Seconds that are in two windows count twice.
    return {
        name: _standardizer([valid_steps(subject, name) for subject in train])
        for name in SIGNALS
    }


def _standardized(
    windows_of: Mapping[str, Windows], standardizers: Mapping[str, Standardizer]
) -> dict[str, Windows]:
    """Returns the standardized windows of all subjects."""
    return {
        subject: (
            {
                name: np.where(
                    masks[name][..., None], standardizers[name](x), np.float32(0)
                )
                for name, x in inputs.items()
            },
            masks,
            label,
        )
        for subject, (inputs, masks, label) in windows_of.items()
    }


def _standardizer(parts: list[np.ndarray]) -> Standardizer:
    """Returns the standardizer of (n) values."""
    return Standardizer.fit([RunningMoments.of(part[:, None]) for part in parts])


def _concatenate(parts: list[Windows]) -> InMemory:
    """Returns the windows of several subjects."""
    concatenate = lambda i, name: np.concatenate([part[i][name] for part in parts])
    return InMemory(
        {name: concatenate(0, name) for name in SIGNALS},
        {name: concatenate(1, name) for name in SIGNALS},
        {LABEL: np.concatenate([part[2] for part in parts])},
    )
