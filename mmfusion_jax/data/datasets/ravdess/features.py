"""RAVDESS features: MFCC and facial action units of 1,200 clips."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.audio_visual_features import RandomFeatures
from mmfusion_jax.data.dataset import Dataset, dataset_loader, unique_ids
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
from mmfusion_jax.data.option_checks import out_of_range
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import cross_validation_split
from mmfusion_jax.errors import ConfigError, DataError, shown_name, suggest
from mmfusion_jax.option_types import PositiveInt
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.predictor_file import Preprocessing
from mmfusion_jax.safe_load.npz import check_finite, read_from

TITLE = "RAVDESS speech as MFCC and action units"
PRESENT, FRAMES = 20, 243
"""Number of actors with features, and of audio frames (10 ms) per clip."""

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
    stride: PositiveInt = 1,
    **_: Any,
) -> Dataset:
    """Returns the outline of `load_ravdess_features`; reads nothing."""
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
    stride: PositiveInt = 1,
    augment: Mapping[str, float] | None = None,
) -> Dataset:
    """Loads MFCC of the audio, and OpenFace action units averaged over the clip.

    The inputs of an example are "audio", (t 13) float32, and "video", one step of the
    35 action units without and with calibration to the person, (1 70) float32. Both are
    standardized over the training split.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.ravdess_features("no_such_folder")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: Folder with `mfcc.npz` and `action_units.npz`.
        fold: Index of the fold; fold f tests actors 4f+1 .. 4f+4.
        folds: Number of folds, at most 5 with actors 1-20.
        protocol: "validation" selects the checkpoint on the test actors of the next
            fold, which are held out from training; "fixed_epochs" and "as_published"
            train on all others.
        stride: Number of audio frames (10 ms) averaged into one step.
        augment: Arguments of `RandomFeatures` for training examples; None for none.

    Raises:
        ConfigError: Fold, protocol or an argument of `augment` is unknown, or the
            stride is longer than a clip.
        DataError: A file is missing, damaged, or does not match the other.

    Deviation:
        The paper trains on 20 actors; these files have no actors 21-24: 16 remain.
    """
    arrays = _load(data_dir)
    actor = arrays["actor"]
    present = tuple(sorted({int(number) for number in actor}))
    actors = cross_validation_split(present, fold, folds, protocol, PER_FOLD)
    rows = {split: np.isin(actor, chosen) for split, chosen in actors.items()}
    # Both: only 14 of the 35 columns agree (r > 0.99), and logistic regression on MFCC
    # and action units has an accuracy of .711 with both and of .657 with the second.
    units = np.concatenate([arrays["au_static"], arrays["au_dynamic"]], axis=1)
    raw = {"audio": _average_frames(arrays["mfcc"], stride), "video": units[:, None]}
    standardizers = {name: _standardizer(x[rows["train"]]) for name, x in raw.items()}
    inputs = {name: standardizers[name](x) for name, x in raw.items()}
    masks = {name: np.ones(x.shape[:2], bool) for name, x in inputs.items()}
    examples = InMemory(inputs, masks, {LABEL: arrays["emotion"]})
    sources = {split: examples.rows(chosen) for split, chosen in rows.items()}
    return Dataset(
        "ravdess_features",
        TITLE,
        sources,
        {LABEL: tuple(str(name) for name in arrays["emotion_names"])},
        augment=_augment(standardizers["audio"], augment) if augment else None,
        labels={split: source.labels for split, source in sources.items()},
        groups={split: actor_groups(chosen) for split, chosen in actors.items()},
        facts={
            "license": "CC BY-NC-SA 4.0",
            "actors": {split: list(chosen) for split, chosen in actors.items()},
            "clips": len(actor),
        },
        example_ids=unique_ids(
            {split: arrays["name"][chosen].tolist() for split, chosen in rows.items()}
        ),
        preprocessing=Preprocessing(
            {name: one.scaling for name, one in standardizers.items()}
        ),
    )


def _standardizer(train: np.ndarray) -> Standardizer:
    """Returns the standardizer of (n t f) training features."""
    return Standardizer.fit([RunningMoments.of(train.reshape(-1, train.shape[-1]))])


def _average_frames(mfcc: np.ndarray, stride: int) -> np.ndarray:
    """Averages every `stride` frames of (n t f); drops the remaining frames."""
    # A last step of fewer frames would be an average with a larger variance.
    n, frames, width = mfcc.shape
    _check_stride(stride, frames)
    steps = frames // stride
    windows = mfcc[:, : steps * stride].reshape(n, steps, stride, width)
    return windows.mean(axis=2, dtype=np.float32)


def _check_stride(stride: int, frames: int) -> None:
    """Raises ConfigError for a stride that is longer than a clip."""
    if not 1 <= stride <= frames:
        raise out_of_range("stride", stride, f"1 to {frames:d}")


def _augment(
    standardizer: Standardizer, options: Mapping[str, float]
) -> RandomFeatures:
    """Returns the augmentation with `options`; raises ConfigError for unknown ones."""
    fields = [field.name for field in dataclasses.fields(RandomFeatures)]
    # The standardizer is that of the training split and not an option.
    known = [name for name in fields if name != "standardizer"]
    for name in options:
        if name not in known:
            raise ConfigError(
                "C02",
                f"config.data.augment.{shown_name(name)} is unknown.",
                suggest(name, known),
            )
    return RandomFeatures(standardizer, **options)


def _load(data_dir: str) -> dict[str, np.ndarray]:
    """Returns the arrays of both files, which must list the same clips."""
    folder = local_path("data_dir", data_dir)
    audio, faces = (_read(data_dir, file) for file in FILES)
    if not np.array_equal(audio["name"], faces["name"]):
        raise DataError(
            "D52",
            f"the files {' and '.join(FILES)} in {folder} list different clips.",
            "use files from the same source",
        )
    arrays = {**faces, **audio}
    values = ("mfcc", "au_static", "au_dynamic")
    check_finite(folder, {name: arrays[name] for name in values})
    return arrays


def _read(data_dir: str, file: str) -> dict[str, np.ndarray]:
    """Returns the required arrays of one file."""
    arrays = read_from(data_dir, file, FILES[file], EXPECTED_LAYOUT, FALLBACK_HINT)
    if len({len(v) for k, v in arrays.items() if k != "emotion_names"}) != 1:
        raise DataError("D52", f"{file}: its arrays have different lengths.")
    return arrays
