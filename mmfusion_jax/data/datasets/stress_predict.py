"""Stress-Predict: what a watch and a belt measure at rest and under stress."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, dataset_loader, subject_dataset
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.errors import ConfigError, DataError, suggest
from mmfusion_jax.safe_load.npz import read_npz

LABEL = "stress"
CLASSES = ("rest", "stress")
SIGNALS = {"eda": 4, "temp": 4, "hr": 1, "bvp": 16, "resp": 1}
"""Modality -> samples a second: skin conductance, skin temperature, heart rate, the
volume of blood in the skin, and breathing rate."""

SUBJECTS, SECONDS = 29, 2900
"""Subjects with labels, and about how many seconds of each are rest or stress alone."""

STANDARDIZE_BY = ("subject", "train")
FILES = "S*.npz"
LABELS = ("label", "label_time_s", "label_resp")
ENDINGS = ("rate_hz", "offset_s")
EXPECTED_LAYOUT = """\
  folder/S01.npz .. S30.npz    one for each subject: eda, temp, hr and bvp (n), each
      with *_rate_hz and *_offset_s; label (0 or 1), label_time_s and label_resp, one
      a second; a subject without label is left out"""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/of_cmaer_cat.py:digits "
    "runs on embedded data, without these files"
)

Windows = tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray]
"""Of one subject: modality -> (n t 1) and (n t), and the label (n)."""


def outline(
    *,
    fold: int = 0,
    folds: int = 5,
    protocol: str = "validation",
    window: int = 60,
    hop: int = 30,
    standardize_by: str = "subject",
    **_: Any,
) -> Dataset:
    """What `load_stress_predict` returns, with zeros for examples; reads nothing.

    How many windows hold one label only depends on the files: the sizes are estimates.
    """
    _check(window, hop, standardize_by)
    people = cross_validation_split(range(SUBJECTS), fold, folds, protocol)
    each = max(1, SECONDS // hop)
    return outline_dataset(
        "stress_predict",
        "Stress-Predict",
        {split: each * len(chosen) for split, chosen in people.items()},
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
    window: int = 60,
    hop: int = 30,
    standardize_by: str = "subject",
) -> Dataset:
    """Windows of wearable signals, in which all is rest or all is stress.

    An example holds the modalities of `SIGNALS`, (t 1) float32, with t the window times
    the rate. Steps that were not recorded are masked.

    Label: "stress", of `CLASSES`.

    Args:
        data_dir: folder with the files of the subjects.
        fold: fold f tests every folds-th subject from the f-th on.
        folds: how many there are.
        protocol: "honest" chooses the step on the subjects that the next fold tests,
            taken out of training; "fixed" and "paper" train on all others.
        window: seconds of an example.
        hop: seconds from one window to the next.
        standardize_by: "subject" gives every signal of every subject mean 0 and
            deviation 1 over their own recording, which needs no label but all of it;
            "train" takes both from the training subjects.

    Raises:
        ConfigError: an argument cannot work.
        DataError: a file is missing or damaged.

    Reference:
        Iqbal et al. 2022, Sensors 22:8135.
    """
    _check(window, hop, standardize_by)
    subjects = _subjects(data_dir)
    people = cross_validation_split(tuple(subjects), fold, folds, protocol)
    cut = {
        name: _windows(signals, window, hop, standardize_by == "subject")
        for name, signals in subjects.items()
    }
    for split, names in people.items():
        if not any(len(cut[name][2]) for name in names):
            raise ConfigError(
                "C10",
                f"config.data.window={window}: {split} has no window of one label.",
                "a shorter window",
            )
    if standardize_by == "train":
        cut = _by_training(cut, people["train"])
    sources = {
        split: _joined([cut[name] for name in names]) for split, names in people.items()
    }
    classes = {LABEL: CLASSES}
    return subject_dataset(
        "stress_predict", "Stress-Predict", sources, people, classes, "MIT"
    )


def _check(window: int, hop: int, standard: str) -> None:
    """Raises ConfigError for arguments that cannot work."""
    for name, seconds in {"window": window, "hop": hop}.items():
        if seconds < 1:
            raise ConfigError(
                "C10", f"config.data.{name}={seconds} is out of range.", "1 or more"
            )
    if standard not in STANDARDIZE_BY:
        raise ConfigError(
            "C03",
            f"config.data.standard={standard!r} is unknown.",
            suggest(standard, STANDARDIZE_BY),
        )


def _subjects(dir: str) -> dict[str, dict[str, np.ndarray]]:
    """The signals and labels of every subject that has labels, in order."""
    files = sorted(Path(dir).expanduser().glob(FILES)) if dir else []
    if not files:
        raise DataError(
            "D40",
            f"config.data.dir={dir!r}: {FILES} are not there. The folder looks "
            f"like\n{EXPECTED_LAYOUT}",
            FALLBACK_HINT,
        )
    read = {path: read_npz(path) for path in files}
    return {
        path.stem: _aligned(path, arrays)
        for path, arrays in read.items()
        if "label" in arrays
    }


def _aligned(path: Path, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every signal from the first labelled second on; NaN where nothing was recorded.

    Returns:
        Modality -> (seconds rate) float32, and "label" (seconds) int32.
    """
    needed = [n for n in SIGNALS if n != "resp"]
    names = [*LABELS, *needed, *(f"{n}_{k}" for n in needed for k in ENDINGS)]
    if lacking := [name for name in names if name not in arrays]:
        raise DataError("D52", f"{path} has no {', '.join(lacking)}.")
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
            "D52", f"{path}: {', '.join(wrong)} is not as in\n{EXPECTED_LAYOUT}"
        )
    found: dict[str, np.ndarray] = {"label": label.astype(np.int32)}
    for name in needed:
        offset = float(arrays[f"{name}_offset_s"])
        first = round((float(time[0]) - offset) * SIGNALS[name])
        count = len(label) * SIGNALS[name]
        signal = np.full(count, np.nan, np.float32)
        begin = max(first, 0)
        taken = arrays[name][begin : max(first + count, begin)]
        signal[begin - first : begin - first + len(taken)] = taken
        found[name] = signal.reshape(len(label), SIGNALS[name])
    found["resp"] = arrays["label_resp"].astype(np.float32)[:, None]
    return found


def _windows(
    signals: Mapping[str, np.ndarray], window: int, hop: int, standardise: bool
) -> Windows:
    """The windows of one subject whose seconds all have one label."""
    label = signals["label"]
    starts = np.arange(0, len(label) - window + 1, hop)
    seconds = starts[:, None] + np.arange(window)  # n window
    asked = label[seconds]
    pure = (asked == asked[:, :1]).all(axis=1)
    inputs, masks = {}, {}
    for name in SIGNALS:
        x = signals[name]
        real = np.isfinite(x)
        if standardise and real.any():
            x = _standard([x[real]])(x)
        x = np.where(real, x, np.float32(0))
        shape = int(pure.sum()), window * SIGNALS[name]
        inputs[name] = x[seconds[pure]].reshape(*shape, 1)
        masks[name] = real[seconds[pure]].reshape(shape)
    return inputs, masks, asked[pure, 0]


def _by_training(
    cut: Mapping[str, Windows], train: tuple[str, ...]
) -> dict[str, Windows]:
    """The windows with mean 0 and deviation 1 over those of the training subjects."""
    standards = {
        name: _standard([cut[s][0][name][cut[s][1][name]][:, 0] for s in train])
        for name in SIGNALS
    }
    return {
        subject: (
            {
                name: np.where(
                    masks[name][..., None], standards[name](x), np.float32(0)
                )
                for name, x in inputs.items()
            },
            masks,
            label,
        )
        for subject, (inputs, masks, label) in cut.items()
    }


def _standard(parts: list[np.ndarray]) -> Standardizer:
    """What brings (n) values to mean 0 and deviation 1."""
    return Standardizer.fit([RunningMoments.of(part[:, None]) for part in parts])


def _joined(parts: list[Windows]) -> InMemory:
    """The windows of several subjects."""
    joined = lambda place, name: np.concatenate([p[place][name] for p in parts])
    return InMemory(
        {name: joined(0, name) for name in SIGNALS},
        {name: joined(1, name) for name in SIGNALS},
        {LABEL: np.concatenate([part[2] for part in parts])},
    )
