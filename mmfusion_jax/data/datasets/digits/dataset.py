"""Embedded digits dataset: image, audio, video and text of ten digits.

It replaces AV-MNIST where nothing can be downloaded: every config, notebook and test
runs on it. It is not a benchmark of any paper, and its title states it.

    image   handwriting of scikit-learn's `load_digits`, a few principal components
    audio   the English word, spoken by eSpeak NG, in noise
    video   the same handwriting, moving and rotating behind an occluder
    text    a sentence that contains the digit, with words dropped

`generate.py` generates each of them, and `experiments/digits` measures their
difficulty. No handwriting and no speaker is in two splits.

The store has the audio (int16, 16 kHz) and its MFCC, so that only the first run, which
builds it, needs librosa and eSpeak NG (the extra `demo`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example, RegressionTarget, dataset_loader
from mmfusion_jax.data.datasets.digits import generate as make
from mmfusion_jax.data.datasets.digits.build_store import (
    FEATURES,
    WAVEFORM,
    build_or_open,
)
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.option_checks import check_choice, out_of_range
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.storage.array_record_store import Store
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.option_types import ProperFraction, Seed
from mmfusion_jax.results.predictor_file import Preprocessing, Tokenizer

MODALITIES = ("image", "audio", "video", "text")
FLAGS = ("even", "prime", "large")
"""Names of the label "flags"; large is 5 and above."""

PRIMES = (2, 3, 5, 7)
TITLE = "digits (embedded)"
CLASSES = {"digit": make.WORDS, "parity": ("even", "odd")}
VALUES = {"value": RegressionTarget(-3, 3, family="sentiment")}


def outline(
    *, modalities: Sequence[str] | None = None, missing_rate: float = 0.0, **_: Any
) -> Dataset:
    """Returns the outline of `load_digits`; reads nothing."""
    used = tuple(MODALITIES if modalities is None else modalities)
    _check(used, missing_rate)
    shapes = {
        "image": ((1, *FEATURES["image"].shape), "float32"),
        "audio": (FEATURES["mfcc"].shape, "float32"),
        "video": (FEATURES["video"].shape, "uint8"),
        "text": (FEATURES["text"].shape, "int32"),
    }
    return outline_dataset(
        "digits",
        TITLE,
        make.SIZES,
        {name: shapes[name] for name in used},
        classes=CLASSES,
        values=VALUES,
        flags={"flags": FLAGS},
    )


@dataset_loader(outline=outline)
def load_digits(
    *,
    modalities: Sequence[str] | None = None,
    missing_rate: ProperFraction = 0.0,
    missing_seed: Seed = 0,
    augment: bool = True,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Loads the embedded dataset, which the first call builds.

    Inputs of an example, and the meaning of a step:

        image (1 28 28 1) float32 in [0, 1]         the image
        audio (63 13) float32                       13 MFCC, standardized
        video (16 32 32 1) uint8                    a frame
        text  (16) int32, from `VOCABULARY`         a word

    Labels: "digit" (0..9) and "parity" (0 even, 1 odd), int32; "value", float32,
    equally spaced from -3 for zero to 3 for nine, as in sentiment data; "flags", (3)
    int32 0 or 1, see `FLAGS`. All examples are held in memory.

    Example:
        >>> import mmfusion_jax as mmf
        >>> data = mmf.datasets.digits(modalities=("audio", "image"))
        >>> example = data.source("train")[0]
        >>> {name: x.shape for name, x in example["inputs"].items()}
        {'audio': (63, 13), 'image': (1, 28, 28, 1)}

    Args:
        modalities: Modalities to use, of `MODALITIES`; None uses all.
        missing_rate: Probability of each modality of each example to be masked, in all
            splits; one modality always remains.
        missing_seed: Seed of that draw.
        augment: Augment the audio of training examples, see `Jitter`.
        cache_dir: Folder of prepared data; None for the cache of the user.

    Raises:
        ConfigError: An unknown modality, or a probability outside [0, 1).
        MissingDependencyError: The dataset is not built yet, and the extra `demo` is
            not installed.
        DataError: The store is corrupted or not writable.
    """
    used = tuple(MODALITIES if modalities is None else modalities)
    _check(used, missing_rate)
    store = build_or_open(cache_dir)
    tables = {split: _table(store, split) for split in make.SIZES}
    standardizer = Standardizer.fit(
        [RunningMoments.of(np.concatenate(tables["train"]["mfcc"]))]
    )
    sources = {}
    for i, (split, table) in enumerate(tables.items()):
        rng = np.random.default_rng([missing_seed, i])
        present = _present(len(table["digit"]), missing_rate, rng, used)
        sources[split] = _source(table, standardizer, present)
    return Dataset(
        "digits",
        TITLE,
        sources,
        CLASSES,
        Jitter() if augment and "audio" in used else None,
        labels={split: source.labels for split, source in sources.items()},
        groups={split: sorted(set(table["voice"])) for split, table in tables.items()},
        values=VALUES,
        flags={"flags": FLAGS},
        ids={"text": (0, len(make.VOCABULARY) - 1)},
        facts={
            "version": make.VERSION,
            "fingerprint": store.manifest["fingerprint"],
            "counts": store.manifest["counts"],
            "missing_rate": missing_rate,
            "warnings": ["embedded data, not comparable with any paper"],
        },
        preprocessing=Preprocessing(
            {"audio": standardizer.scaling} if "audio" in used else {},
            tokenizer=Tokenizer([*make.VOCABULARY], make.MAX_WORDS, lowercase=True)
            if "text" in used
            else None,
        ),
    )


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Augments the audio of an example, so that its noise cannot be memorized.

    Without it the audio encoder memorizes 1,200 noises within a few epochs, the loss is
    near 0, and a multimodal model has no gradient left to learn from video.

    Attributes:
        shift: Maximum shift in frames.
        offset: Standard deviation of a constant offset of each coefficient.
        noise: Standard deviation of the noise of each value.
    """

    shift: int = 3
    offset: float = 0.3
    noise: float = 0.5

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes "audio", (t f); everything else passes through."""
        if not example["masks"]["audio"].any():
            return example
        audio = example["inputs"]["audio"]
        steps, width = audio.shape
        index = np.arange(steps) + rng.integers(-self.shift, self.shift + 1)
        audio = audio[np.clip(index, 0, steps - 1)]
        audio = audio + self.offset * rng.standard_normal(width, np.float32)
        audio = audio + self.noise * rng.standard_normal(audio.shape, np.float32)
        return {**example, "inputs": {**example["inputs"], "audio": audio}}


def _check(modalities: Sequence[str], missing_rate: float) -> None:
    """Raises ConfigError for invalid arguments."""
    for name in modalities:
        check_choice("modalities", name, MODALITIES)
    if not modalities:
        raise ConfigError(
            "C10", "config.data.modalities=() must name at least one modality."
        )
    if not 0 <= missing_rate < 1:
        raise out_of_range("missing_rate", missing_rate, "0 to below 1")


def _table(store: Store, split: str) -> dict[str, np.ndarray]:
    """Returns every entry but the waveform, stacked over the examples of a split."""
    records = store.source(split)
    rows = [records[i] for i in range(len(records))]
    return {
        name: np.stack([row[name] for row in rows])
        for name in rows[0].keys() - {WAVEFORM}
    }


def _present(
    count: int, missing_rate: float, rng: np.random.Generator, used: Sequence[str]
) -> dict[str, np.ndarray]:
    """Returns modality -> which examples have it, (n) bool; each has one or more."""
    draw = rng.random((count, len(MODALITIES)))  # the same for all choices of `used`
    draw = draw[:, [MODALITIES.index(name) for name in used]]
    # The modality with the highest draw always remains.
    present = (draw >= missing_rate) | (draw == draw.max(axis=1, keepdims=True))
    return dict(zip(used, present.T, strict=True))


def _source(
    table: Mapping[str, np.ndarray],
    standardizer: Standardizer,
    present: Mapping[str, np.ndarray],
) -> InMemory:
    """Returns the examples of a split."""
    values = {
        "image": table["image"][:, None].astype(np.float32) / 255,
        "audio": standardizer(table["mfcc"]),
        "video": table["video"],  # uint8 saves memory; encoders scale pixels
        "text": table["text"],
    }
    inputs, masks = {}, {}
    for name, has_modality in present.items():
        mask = np.ones(values[name].shape[:2], bool)
        if name == "text":
            mask = np.arange(make.MAX_WORDS) < table["words"][:, None]
        masks[name] = mask & has_modality[:, None]
        # The values are removed too, so that a model that ignores the mask cannot read
        # a missing modality.
        missing = ~has_modality.reshape(-1, *[1] * (values[name].ndim - 1))
        inputs[name] = np.where(missing, 0, values[name]).astype(values[name].dtype)
    return InMemory(inputs, masks, _labels(table["digit"]))


def _labels(digit: np.ndarray) -> dict[str, np.ndarray]:
    """Returns all labels of the digits."""
    digit = digit.astype(np.int32)
    flags = [digit % 2 == 0, np.isin(digit, PRIMES), digit >= 5]
    return {
        "digit": digit,
        "parity": digit % 2,
        "value": ((digit - 4.5) / 1.5).astype(np.float32),
        "flags": np.stack(flags, axis=-1).astype(np.int32),
    }
