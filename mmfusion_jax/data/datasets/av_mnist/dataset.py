"""AV-MNIST: a faint handwritten digit, and the same digit spoken in noise."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example, dataset_loader, names_files
from mmfusion_jax.data.datasets.av_mnist import generate as make
from mmfusion_jax.data.datasets.av_mnist.build_store import (
    BuiltStores,
    build_or_open,
    list_imports,
    open_imported,
)
from mmfusion_jax.data.datasets.digits.generate import WORDS
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.storage.array_record_store import Records
from mmfusion_jax.errors import ConfigError, DataError, suggest

TITLE = "AV-MNIST (of MNIST, FSDD and ESC)"
PART = 12
"""One of so many training images is for validation: 5,000 of 60,000, the last ones."""


@dataclasses.dataclass(frozen=True)
class AudioClips:
    """What is spoken and heard around it, held in memory.

    Attributes:
        speech: recordings, (t) int16 each, with "digit", "number" and "speaker".
        noise: clips, (t) int16 each, with "number", the fold.
    """

    speech: Sequence[Mapping[str, Any]]
    noise: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class PairedExamples:
    """Images with a recording and noise for each; mixed when an example is read.

    Attributes:
        images: of a store.
        first: place of the first of them in the store.
        sounds: what `spoken` and `noises` point at.
        digits: (n) int32.
        spoken: (n) which recording.
        noises: (n) which noise clip.
        indices: (n) in [0, 1), which second of it.
        snr_db: of the word over the noise.
        heard: place -> spectrogram of the examples read so far; None keeps none.
    """

    images: Records
    first: int
    sounds: AudioClips
    digits: np.ndarray
    spoken: np.ndarray
    noises: np.ndarray
    indices: np.ndarray
    snr_db: float
    heard: dict[int, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}.")
        image = self.images[self.first + index]["image"]
        pixels = {"image": image[None], "audio": self._audio(index)[None, ..., None]}
        return {
            "inputs": {m: x.astype(np.float32) / 255 for m, x in pixels.items()},
            "masks": {modality: np.ones(1, bool) for modality in pixels},
            "labels": {"digit": self.digits[index]},
            "weight": np.float32(1),
        }

    def first_of(self, count: int) -> "PairedExamples":
        """The first examples."""
        cut = ("digits", "spoken", "noises", "places")
        return dataclasses.replace(
            self, **{name: getattr(self, name)[:count] for name in cut}
        )

    def _audio(self, index: int) -> np.ndarray:
        """The spectrogram of an example, (112 112) uint8."""
        if self.heard and index in self.heard:
            return self.heard[index]
        word = self.sounds.speech[self.spoken[index]]["samples"]
        clip = self.sounds.noise[self.noises[index]]["samples"]
        noise = make.segment(clip, float(self.indices[index]))
        audio = make.spectrogram(make.add_noise(word, noise, self.snr_db))
        if self.heard is not None:
            self.heard[index] = audio
        return audio


def outline(*, snr_db: float = -12.0, max_train_pairs: int = 0, **_: Any) -> Dataset:
    """What `load_av_mnist` returns, with zeros for examples; reads nothing."""
    _check(snr_db, max_train_pairs)
    counts = {"train": max_train_pairs or 55_000, "valid": 5_000, "test": 10_000}
    shapes = {"image": ((1, 28, 28, 1), "float32")}
    shapes["audio"] = ((1, make.SIDE, make.SIDE, 1), "float32")
    return outline_dataset("av_mnist", TITLE, counts, shapes, classes={"digit": WORDS})


def _has_files(options: Mapping[str, Any]) -> bool:
    """Whether options name the raw files, or some were imported."""
    return names_files(options) or bool(list_imports())


@dataset_loader(outline=outline, has_files=_has_files)
def load_av_mnist(
    data_dir: str = "",
    *,
    snr_db: float = -12.0,
    held_out_speaker: str = "",
    pairing_seed: int = 0,
    max_train_pairs: int = 0,
    cache_in_memory: bool = False,
) -> Dataset:
    """Images and spectrograms of the same digits, ready after a first start.

    An example holds "image", (1 28 28 1) float32 in [0, 1], and "audio", a spectrogram
    (1 112 112 1), frequency by time, in [0, 1]; a mask has one step. The label is
    "digit". Of the images of MNIST 55,000 are for training, the last 5,000 of its
    training split for validation, 10,000 for the test. `av_mnist_recipe.py` says how
    they are made.

    Args:
        data_dir: folder with the parts; "" for those that were imported.
        snr_db: power of the word over that of the noise, in dB: lower is harder.
        held_out_speaker: is heard in the test split, and only there; "" divides the
            recordings of every speaker, so that all are heard in all splits.
        pairing_seed: of the draw of recordings and noise; not the seed of a run.
        max_train_pairs: of the training split, the first so many; 0 for all.
        cache_in_memory: hold a spectrogram in memory once it was made: 12.5 KB each,
            880 MB if all are read. Results are the same.

    Raises:
        ConfigError: the speaker is not known, or a number is out of range.
        DataError: parts are missing or damaged, or do not suffice for a split.

    Reference:
        Hetero-Fusion-Net, Sec. 5.1; AV-MNIST (Vielzeuf et al. 2018).
    Deviation:
        The file that is passed around cannot be made again. Speech is of FSDD (the
        original: TIDIGITS), noise of ESC-10 (ESC-50): results are comparable with each
        other, not with published ones. No recording is in two splits and no noise clip
        in training and test.
    """
    _check(snr_db, max_train_pairs)
    made = build_or_open(data_dir) if data_dir else open_imported()
    sounds = AudioClips(
        *(_all(made.sounds.source(name)) for name in ("speech", "noise"))
    )
    speakers = sorted({one["speaker"] for one in sounds.speech})
    if held_out_speaker and held_out_speaker not in speakers:
        raise ConfigError(
            "C03",
            f"config.data.held_out_speaker={held_out_speaker!r} is unknown; "
            f"{suggest(held_out_speaker, speakers)}",
        )
    split_of = [
        make.speech_split(one["number"], one["speaker"], held_out_speaker)
        for one in sounds.speech
    ]
    sources = {
        split: _pairs(made, sounds, np.array(split_of), split, pairing_seed, snr_db)
        for split in make.SPLITS
    }
    if max_train_pairs:
        sources["train"] = sources["train"].first_of(max_train_pairs)
    if cache_in_memory:
        sources = {
            split: dataclasses.replace(source, heard={})
            for split, source in sources.items()
        }
    groups = {
        split: [
            one["name"]
            for one, own in zip(sounds.speech, split_of, strict=True)
            if own == split
        ]
        for split in make.SPLITS
    }
    return Dataset(
        "av_mnist",
        TITLE,
        sources,
        {"digit": WORDS},
        labels={split: {"digit": source.digits} for split, source in sources.items()},
        groups=groups,
        facts=_facts(made, sources, snr_db, held_out_speaker, pairing_seed),
    )


def _check(snr_db: float, pairs: int) -> None:
    """Raises ConfigError for a number that is out of range."""
    if not -100 <= snr_db <= 100:
        raise ConfigError(
            "C10", f"config.data.snr_db={snr_db} is not from -100 to 100."
        )
    if pairs < 0:
        raise ConfigError("C10", f"config.data.pairs={pairs} is below 0.", "0: all")


def summarize(data: Dataset) -> dict[str, Any]:
    """What is in the data set, after an example of each split was read."""
    splits = {}
    for split, source in data.sources.items():
        shapes = {m: list(x.shape) for m, x in source[0]["inputs"].items()}
        counts = np.bincount(data.label(split, "digit"), minlength=len(WORDS))
        splits[split] = {
            "count": len(source),
            "digits": counts.tolist(),
            "recordings": len(data.groups[split]),
            "shapes": shapes,
        }
    return {"title": data.title, "splits": splits, "facts": dict(data.facts)}


def format_summary(found: Mapping[str, Any]) -> str:
    """What `summarize` found, as lines."""
    facts = found["facts"]
    lines = [
        found["title"],
        f"  images of {facts['components']} components, {facts['energy']:.1%} of the "
        f"energy; words {facts['snr_db']:g} dB over the noise",
    ]
    for split, told in found["splits"].items():
        counts = " ".join(map(str, told["digits"]))
        lines.append(
            f"  {split:<5} {told['count']} examples of {told['recordings']} recordings;"
            f" of each digit {counts}"
        )
    lines += [f"remark: {warning}" for warning in facts["warnings"]]
    return "\n".join(lines)


def _all(records: Records) -> list[dict[str, Any]]:
    """Every record."""
    return [records[i] for i in range(len(records))]


def _pairs(
    made: BuiltStores,
    sounds: AudioClips,
    split_of: np.ndarray,
    split: str,
    seed: int,
    snr_db: float,
) -> PairedExamples:
    """The examples of a split."""
    stored = "test" if split == "test" else "train"
    told = made.images.manifest["digits"][stored]
    digits = np.frombuffer(told.encode(), np.uint8).astype(np.int32) - ord("0")
    first = 0
    if split != "test":
        middle = len(digits) - max(1, len(digits) // PART)
        first = middle if split == "valid" else 0
        digits = digits[:middle] if split == "train" else digits[middle:]
    spoken = np.array([one["digit"] for one in sounds.speech])
    spoken = np.where(split_of == split, spoken, -1)
    clips = [
        i for i, c in enumerate(sounds.noise) if make.noise_fits(c["number"], split)
    ]
    lacks = [WORDS[d] for d in np.unique(digits) if d not in spoken]
    if lacks or not clips:
        what = f"no recording of {', '.join(lacks)}" if lacks else "no noise clip"
        raise DataError(
            "D78",
            f"{what} is left for split {split!r} of AV-MNIST.",
            "recordings 0-4 of a speaker and digit are for test, 45-49 for validation; "
            f"noise clips of fold {make.TEST_FOLD} for test, of others for training",
        )
    rng = np.random.default_rng([seed, make.SPLITS.index(split)])
    return PairedExamples(
        made.images.source(stored),
        first,
        sounds,
        digits,
        make.pair_with_speech(digits, spoken, rng),
        np.array(clips)[rng.integers(len(clips), size=len(digits))],
        rng.random(len(digits)),
        snr_db,
    )


def _facts(
    made: BuiltStores,
    sources: Mapping[str, PairedExamples],
    snr_db: float,
    speaker: str,
    seed: int,
) -> dict[str, Any]:
    """What results say of the data."""
    manifest = made.images.manifest
    return {
        "version": manifest["version"],
        "fingerprint": manifest["parts_sha256"][:16],
        "licence": manifest["licence"],
        "counts": {split: len(source) for split, source in sources.items()},
        "components": manifest["components"],
        "energy": manifest["energy"],
        "snr_db": snr_db,
        "speaker": speaker,
        "pairing_seed": seed,
        "warnings": ["not the file of AV-MNIST that is passed around"],
    }
