"""RAVDESS as features: the MFCC of 1,200 clips and the action units of their faces."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.audio_visual_features import RandomFeatures
from mmfusion_jax.data.dataset import Dataset, dataset_loader
from mmfusion_jax.data.datasets.ravdess.filenames import (
    ACTORS,
    EMOTIONS,
    FALLBACK_HINT,
    LABEL,
    PER_FOLD,
    actor_groups,
)
from mmfusion_jax.data.datasets.ravdess.videos import CLIPS
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.errors import ConfigError, DataError, suggest
from mmfusion_jax.safe_load.npz import check_finite, read_from

TITLE = "RAVDESS speech as MFCC and action units"
PRESENT, FRAMES = 20, 243
"""Actors whose features are there, and frames of sound of a clip."""

FILES = {
    "mfcc.npz": ("mfcc", "name", "emotion", "emotion_names", "actor"),
    "action_units.npz": ("au_static", "au_dynamic", "name"),
}
EXPECTED_LAYOUT = """\
  folder/mfcc.npz           mfcc (n t 13), name, emotion, emotion_names, actor
  folder/action_units.npz   au_static (n 35), au_dynamic (n 35), name"""


def outline(
    *,
    fold: int = 0,
    folds: int = 5,
    protocol: str = "validation",
    stride: int = 1,
    **_: Any,
) -> Dataset:
    """What `load_ravdess_features` returns, with zeros for examples; reads nothing."""
    actors = cross_validation_split(ACTORS[:PRESENT], fold, folds, protocol, PER_FOLD)
    _check_stride(stride, FRAMES)
    return outline_dataset(
        "ravdess_features",
        TITLE,
        {split: CLIPS * len(chosen) for split, chosen in actors.items()},
        {"audio": ((FRAMES // stride, 13), "float32"), "video": ((1, 70), "float32")},
        classes={LABEL: EMOTIONS},
    )


@dataset_loader(takes=("fold", "folds", "protocol"), outline=outline)
def load_ravdess_features(
    data_dir: str,
    *,
    fold: int = 0,
    folds: int = 5,
    protocol: str = "validation",
    stride: int = 1,
    augment: Mapping[str, float] | None = None,
) -> Dataset:
    """Sound as MFCC, and faces as OpenFace's action units averaged over the clip.

    An example holds "audio", (t 13) float32, and "video", one step of the 35 units
    without and the 35 units with calibration to the person, (1 70) float32. Both have
    mean 0 and deviation 1 over the training split.

    Args:
        data_dir: folder with `mfcc.npz` and `action_units.npz`.
        fold: fold f tests actors 4f+1 .. 4f+4.
        folds: how many there are; actors 1-20 are here, so at most 5.
        protocol: "honest" chooses the step on the actors that the next fold tests,
            taken out of training; "fixed" and "paper" train on all others.
        stride: frames of sound of 10 ms that are averaged into one step.
        augment: arguments of VaryFeatures for training examples; None for none.

    Raises:
        ConfigError: fold, protocol or an argument of `augment` is unknown, or the
            stride is not within a clip.
        DataError: a file is missing, damaged, or does not belong to the other.

    Deviation:
        The paper trains on 20 actors; here actors 21-24 are absent and 16 remain.
    """
    arrays = _load(data_dir)
    actor = arrays["actor"]
    present = tuple(sorted({int(number) for number in actor}))
    actors = cross_validation_split(present, fold, folds, protocol, PER_FOLD)
    rows = {split: np.isin(actor, chosen) for split, chosen in actors.items()}
    units = np.concatenate([arrays["au_static"], arrays["au_dynamic"]], axis=1)
    raw = {"audio": _strided(arrays["mfcc"], stride), "video": units[:, None]}
    standards = {name: _standard(x[rows["train"]]) for name, x in raw.items()}
    inputs = {name: standards[name](x) for name, x in raw.items()}
    labels = {
        split: {LABEL: arrays["emotion"][chosen]} for split, chosen in rows.items()
    }
    real = {name: np.ones(x.shape[:2], bool) for name, x in inputs.items()}
    taken = lambda arrays, chosen: {name: x[chosen] for name, x in arrays.items()}
    sources = {
        split: InMemory(taken(inputs, chosen), taken(real, chosen), labels[split])
        for split, chosen in rows.items()
    }
    return Dataset(
        "ravdess_features",
        TITLE,
        sources,
        {LABEL: tuple(str(name) for name in arrays["emotion_names"])},
        augment=_augment(standards["audio"], augment) if augment else None,
        labels=labels,
        groups={split: actor_groups(chosen) for split, chosen in actors.items()},
        facts={
            "licence": "CC BY-NC-SA 4.0",
            "actors": {split: list(chosen) for split, chosen in actors.items()},
            "clips": len(actor),
        },
    )


def _standard(train: np.ndarray) -> Standardizer:
    """What brings every feature of (n t f) training values to mean 0, deviation 1."""
    return Standardizer.fit([RunningMoments.of(train.reshape(-1, train.shape[-1]))])


def _strided(mfcc: np.ndarray, stride: int) -> np.ndarray:
    """(n t f) with every `stride` frames averaged; frames that remain are left out."""
    n, frames, width = mfcc.shape
    _check_stride(stride, frames)
    steps = frames // stride
    windows = mfcc[:, : steps * stride].reshape(n, steps, stride, width)
    return windows.mean(axis=2, dtype=np.float32)


def _check_stride(stride: int, frames: int) -> None:
    """Raises ConfigError for a stride that is not within a clip."""
    if not 1 <= stride <= frames:
        raise ConfigError(
            "C10", f"config.data.stride={stride} is out of range.", f"1 to {frames}"
        )


def _augment(standard: Standardizer, options: Mapping[str, float]) -> RandomFeatures:
    known = [f.name for f in dataclasses.fields(RandomFeatures) if f.name != "standard"]
    for name in options:
        if name not in known:
            raise ConfigError(
                "C02",
                f"config.data.augment.{name} is unknown.",
                suggest(name, known),
            )
    return RandomFeatures(standard, **options)


def _load(dir: str) -> dict[str, np.ndarray]:
    """The arrays of both files, checked against each other."""
    folder = Path(dir).expanduser()
    loaded = {file: _read(dir, file) for file in FILES}
    sound, faces = loaded.values()
    if not np.array_equal(sound["name"], faces["name"]):
        raise DataError(
            "D52",
            f"the files {' and '.join(FILES)} in {folder} list different clips.",
            "take both from the same source",
        )
    arrays = {**faces, **sound}
    values = ("mfcc", "au_static", "au_dynamic")
    check_finite(folder, {name: arrays[name] for name in values})
    return arrays


def _read(dir: str, file: str) -> dict[str, np.ndarray]:
    """The arrays of one file that are needed here."""
    arrays = read_from(dir, file, FILES[file], EXPECTED_LAYOUT, FALLBACK_HINT)
    if len({len(v) for k, v in arrays.items() if k != "emotion_names"}) != 1:
        raise DataError("D52", f"{file}: its arrays have different lengths.")
    return arrays
