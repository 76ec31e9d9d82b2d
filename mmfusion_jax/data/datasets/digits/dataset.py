"""The embedded data set: a digit that is written, spoken, filmed and mentioned.

It stands in for AV-MNIST where nothing may be downloaded: every config, notebook and
test runs on it. It is no benchmark of any paper, and its title says so.

    image   handwriting of scikit-learn's `load_digits`, a few principal components
    audio   the English word, spoken by eSpeak NG, in noise
    video   the same handwriting, drifting and turning behind an occluder
    text    a sentence that mentions the digit, with words dropped

`digits_recipe.py` says how each is made and `experiments/digits` how hard each is. No
handwriting and no speaker is in two splits.

The store holds the sound (int16, 16 kHz) and its MFCC, so that only the first start,
which builds it, needs librosa and eSpeak NG (the extra `demo`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example, RegressionTarget, dataset_loader
from mmfusion_jax.data.datasets.digits import generate as make
from mmfusion_jax.data.datasets.digits.build_store import FEATURES, build_or_open
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.storage.array_record_store import Store
from mmfusion_jax.errors import ConfigError, suggest

MODALITIES = ("image", "audio", "video", "text")
FLAGS = ("even", "prime", "large")
"""What the three entries of the label "flags" say; large is 5 and above."""

PRIMES = (2, 3, 5, 7)
TITLE = "digits (embedded)"
CLASSES = {"digit": make.WORDS, "parity": ("even", "odd")}
VALUES = {"value": RegressionTarget(-3, 3, family="sentiment")}


def outline(
    *, modalities: Sequence[str] | None = None, missing_rate: float = 0.0, **_: Any
) -> Dataset:
    """What `load_digits` returns, with zeros for examples; reads nothing."""
    kept = tuple(MODALITIES if modalities is None else modalities)
    _check(kept, missing_rate)
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
        {name: shapes[name] for name in kept},
        classes=CLASSES,
        values=VALUES,
        flags={"flags": FLAGS},
    )


@dataset_loader(outline=outline)
def load_digits(
    *,
    modalities: Sequence[str] | None = None,
    missing_rate: float = 0.0,
    missing_seed: int = 0,
    augment: bool = True,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """The embedded data set, built at the first call and read from then on.

    Inputs of an example, and what a step of their masks is:

        image (1 28 28 1) float32 in [0, 1]         the image
        audio (63 13) float32                       13 MFCC, standardised
        video (16 32 32 1) uint8                    a frame
        text  (16) int32, from `VOCABULARY`         a word

    Labels: "digit" (0..9) and "parity" (0 even, 1 odd), int32; "value", float32 from
    -3 to 3, evenly spaced from zero to nine, as the scores of sentiment data are;
    "flags", (3) int32 0 or 1, see `FLAGS`. All examples are held in memory.

    Args:
        modalities: which to keep, of `MODALITIES`; None keeps all.
        missing_rate: chance of each kept modality of each example to be masked, in all
            splits; one modality always stays.
        missing_seed: of that draw.
        augment: change the sound of training examples, see `Jitter`.
        cache_dir: folder that holds prepared data; None for the cache of the user.

    Raises:
        ConfigError: an unknown modality, or a chance outside [0, 1).
        MissingDependencyError: the set is not built yet, and the extra `demo` is not installed.
        DataError: the prepared data is damaged or cannot be written.
    """
    kept = tuple(MODALITIES if modalities is None else modalities)
    _check(kept, missing_rate)
    store = build_or_open(cache_dir)
    tables = {split: _table(store, split) for split in make.SIZES}
    standard = Standardizer.fit(
        [RunningMoments.of(np.concatenate(tables["train"]["mfcc"]))]
    )
    sources = {}
    for number, (split, table) in enumerate(tables.items()):
        rng = np.random.default_rng([missing_seed, number])
        present = _present(len(table["digit"]), missing_rate, rng, kept)
        sources[split] = _source(table, standard, present)
    return Dataset(
        "digits",
        TITLE,
        sources,
        CLASSES,
        Jitter() if augment and "audio" in kept else None,
        labels={split: source.labels for split, source in sources.items()},
        groups={split: sorted(set(table["voice"])) for split, table in tables.items()},
        values=VALUES,
        flags={"flags": FLAGS},
        ids={"text": (0, len(make.VOCABULARY) - 1)},
        facts={
            "version": make.VERSION,
            "fingerprint": store.manifest["fingerprint"],
            "counts": store.manifest["counts"],
            "missing": missing_rate,
            "warnings": ["an embedded stand-in, not comparable with any paper"],
        },
    )


@dataclasses.dataclass(frozen=True)
class Jitter:
    """Changes the sound of an example, so that its noise cannot be learnt by heart.

    Without it the audio encoder knows 1,200 noises after a few epochs, its loss is
    near 0, and nothing is left from which a model of both modalities could learn to
    use video.

    Attributes:
        shift: frames that the sound may start sooner or later.
        offset: deviation of what is added to each coefficient throughout.
        noise: deviation of what is added to each value.
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
        place = np.arange(steps) + rng.integers(-self.shift, self.shift + 1)
        audio = audio[np.clip(place, 0, steps - 1)]
        audio = audio + self.offset * rng.standard_normal(width, np.float32)
        audio = audio + self.noise * rng.standard_normal(audio.shape, np.float32)
        return {**example, "inputs": {**example["inputs"], "audio": audio}}


def _check(modalities: Sequence[str], missing: float) -> None:
    """Raises ConfigError for arguments that cannot work."""
    for name in modalities:
        if name not in MODALITIES:
            raise ConfigError(
                "C03", f"modalities={name!r} is unknown; {suggest(name, MODALITIES)}"
            )
    if not modalities:
        raise ConfigError("C10", "modalities=() leaves nothing to learn from.")
    if not 0 <= missing < 1:
        raise ConfigError("C10", f"missing={missing} is not from 0 to below 1.")


def _table(store: Store, split: str) -> dict[str, np.ndarray]:
    """Every entry but the sound, stacked over the examples of a split."""
    records = store.source(split)
    rows = [records[i] for i in range(len(records))]
    return {
        name: np.stack([row[name] for row in rows])
        for name in rows[0].keys() - {"sound"}
    }


def _present(
    count: int, missing: float, rng: np.random.Generator, kept: Sequence[str]
) -> dict[str, np.ndarray]:
    """Which examples have which modality, (n) bool; each has one at least."""
    draw = rng.random((count, len(MODALITIES)))  # the same whatever is kept
    draw = draw[:, [MODALITIES.index(name) for name in kept]]
    present = (draw >= missing) | (draw == draw.max(axis=1, keepdims=True))
    return dict(zip(kept, present.T, strict=True))


def _source(
    table: Mapping[str, np.ndarray],
    standard: Standardizer,
    present: Mapping[str, np.ndarray],
) -> InMemory:
    """Examples from stored entries."""
    values = {
        "image": table["image"][:, None].astype(np.float32) / 255,
        "audio": standard(table["mfcc"]),
        "video": table["video"],
        "text": table["text"],
    }
    inputs, masks = {}, {}
    for name, here in present.items():
        mask = np.ones(values[name].shape[:2], bool)
        if name == "text":
            mask = np.arange(make.LONGEST) < table["words"][:, None]
        masks[name] = mask & here[:, None]
        away = ~here.reshape(-1, *[1] * (values[name].ndim - 1))
        inputs[name] = np.where(away, 0, values[name]).astype(values[name].dtype)
    return InMemory(inputs, masks, _labels(table["digit"]))


def _labels(digit: np.ndarray) -> dict[str, np.ndarray]:
    """Every label that a digit has."""
    digit = digit.astype(np.int32)
    flags = [digit % 2 == 0, np.isin(digit, PRIMES), digit >= 5]
    return {
        "digit": digit,
        "parity": digit % 2,
        "value": ((digit - 4.5) / 1.5).astype(np.float32),
        "flags": np.stack(flags, axis=-1).astype(np.int32),
    }
