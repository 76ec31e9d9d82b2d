"""AV-MNIST: a degraded handwritten digit, and the same digit spoken in noise."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from mmfusion_jax.data.array_hashes import hash_arrays
from mmfusion_jax.data.dataset import Dataset, Example, dataset_loader, names_files
from mmfusion_jax.data.datasets.av_mnist import generate as make
from mmfusion_jax.data.datasets.av_mnist.build_store import (
    LICENSE,
    BuiltStores,
    build_or_open,
    list_imports,
    open_imported,
)
from mmfusion_jax.data.datasets.digits.generate import WORDS
from mmfusion_jax.data.option_checks import check_choice, out_of_range
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.storage.array_record_store import Records
from mmfusion_jax.errors import DataError, join_names, shorten, shown
from mmfusion_jax.option_types import Decibel, NonNegativeInt, Seed
from mmfusion_jax.results.json_file import to_json
from mmfusion_jax.results.run_identity import sha256_json

TITLE = "AV-MNIST (of MNIST, FSDD and ESC)"
VALID_PART = 12
"""One in 12 training images, the last ones, is for validation: 5,000 of 60,000."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Facts about the dataset that go into results.

    Attributes:
        version: `generate.VERSION`.
        fingerprint: First digits of the hash of the raw files.
        license: License of the data.
        counts: Split -> number of examples.
        components: Number of principal components of the images.
        energy: Their fraction of the variance, 0..1.
        snr_db, held_out_speaker, pairing_seed: Arguments of `load_av_mnist`.
        warnings: Warnings for the user.
    """

    version: int
    fingerprint: str
    license: str
    counts: dict[str, int]
    components: int
    energy: float
    snr_db: float
    held_out_speaker: str
    pairing_seed: int
    warnings: list[str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Sizes of a split.

    Attributes:
        count: Number of examples.
        digits: Number of examples of each digit.
        recordings: Number of recordings.
        shapes: Modality -> shape of an example.
    """

    count: int
    digits: list[int]
    recordings: int
    shapes: dict[str, list[int]]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Title, split -> sizes, and facts of the dataset."""

    title: str
    splits: dict[str, SplitSummary]
    facts: Facts


@dataclasses.dataclass(frozen=True)
class AudioClips:
    """Recordings and noise clips, held in memory.

    Attributes:
        speech: recordings, (t) int16 each, with "digit", "number" and "speaker".
        noise: noise clips, (t) int16 each, with "number", the fold.
    """

    speech: Sequence[Mapping[str, Any]]
    noise: Sequence[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class PairedExamples:
    """Images paired with a recording and noise, which are mixed on reading.

    Attributes:
        images: records of the images.
        first: index of the first image in the records.
        clips: recordings and noise clips.
        digits: (n) int32.
        speech: (n) index of the recording.
        noise: (n) index of the noise clip.
        noise_offset: (n) in [0, 1), position of the noise segment in its clip.
        snr_db: signal-to-noise ratio in dB.
        digest: hash of the stores.
        cache: index -> spectrogram of the examples read so far; None for no cache.
    """

    images: Records
    first: int
    clips: AudioClips
    digits: np.ndarray
    speech: np.ndarray
    noise: np.ndarray
    noise_offset: np.ndarray
    snr_db: float
    digest: str
    cache: dict[int, np.ndarray] | None = None

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

    def content_digest(self) -> str:
        """Returns a hash of the stores and the pairs; reads no example."""
        pairs = [self.digits, self.speech, self.noise, self.noise_offset]
        return sha256_json([self.digest, self.first, self.snr_db, hash_arrays(pairs)])

    def first_of(self, count: int) -> "PairedExamples":
        """The first `count` examples."""
        names = ("digits", "speech", "noise", "noise_offset")
        return dataclasses.replace(
            self, **{name: getattr(self, name)[:count] for name in names}
        )

    def _audio(self, index: int) -> np.ndarray:
        """The spectrogram of an example, (112 112) uint8."""
        if self.cache and index in self.cache:
            return self.cache[index]
        word = self.clips.speech[self.speech[index]]["samples"]
        clip = self.clips.noise[self.noise[index]]["samples"]
        noise = make.segment(clip, float(self.noise_offset[index]))
        spectrogram = make.spectrogram(make.add_noise(word, noise, self.snr_db))
        if self.cache is not None:
            self.cache[index] = spectrogram
        return spectrogram


def outline(*, snr_db: float = -12.0, max_train_pairs: int = 0, **_: Any) -> Dataset:
    """Outline of `load_av_mnist`; reads nothing."""
    _check(snr_db, max_train_pairs)
    counts = {"train": max_train_pairs or 55_000, "valid": 5_000, "test": 10_000}
    shapes = {"image": ((1, 28, 28, 1), "float32")}
    shapes["audio"] = ((1, make.SIDE, make.SIDE, 1), "float32")
    return outline_dataset("av_mnist", TITLE, counts, shapes, classes={"digit": WORDS})


def _has_files(options: Mapping[str, Any]) -> bool:
    """Returns whether options name the raw files, or there is an import."""
    return names_files(options) or bool(list_imports())


@dataset_loader(outline=outline, has_files=_has_files)
def load_av_mnist(
    data_dir: str = "",
    *,
    snr_db: Decibel = -12.0,
    held_out_speaker: str = "",
    pairing_seed: Seed = 0,
    max_train_pairs: NonNegativeInt = 0,
    cache_in_memory: bool = False,
) -> Dataset:
    """Loads images and spectrograms of the same digits; the first call builds them.

    The inputs of an example are "image", (1 28 28 1) float32 in [0, 1], and "audio", a
    spectrogram (1 112 112 1), frequency by time, in [0, 1]; masks have one step. The
    label is "digit". Of the images of MNIST 55,000 are for training, the last 5,000 of
    its training split for validation, 10,000 for test. `generate.py` generates them.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.av_mnist(data_dir="no_such_folder")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: folder with the raw files; "" for the import.
        snr_db: signal-to-noise ratio in dB: lower is harder.
        held_out_speaker: the only speaker of the test split, and only there; "" splits
            the recordings of every speaker, so that all splits have all speakers.
        pairing_seed: seed of the pairing with recordings and noise; not the seed of a
            run.
        max_train_pairs: maximum size of the training split; 0 for all.
        cache_in_memory: cache spectrograms in memory: 12.5 KB each, 880 MB for all.
            Results are the same.

    Raises:
        ConfigError: the speaker is unknown, or a number is out of range.
        DataError: raw files are missing or damaged, or too few for a split.

    Reference:
        Hetero-Fusion-Net, Sec. 5.1; AV-MNIST (Vielzeuf et al. 2018).
    Deviation:
        The commonly used file cannot be reproduced. Speech is from FSDD (original:
        TIDIGITS), noise from ESC-10 (ESC-50): results are comparable with each other,
        not with published ones. No recording is in two splits, and no noise clip is in
        training and test.
    """
    _check(snr_db, max_train_pairs)
    stores = build_or_open(data_dir) if data_dir else open_imported()
    clips = AudioClips(
        *(_all(stores.audio.source(name)) for name in ("speech", "noise"))
    )
    speakers = sorted({one["speaker"] for one in clips.speech})
    if held_out_speaker:
        check_choice("held_out_speaker", held_out_speaker, speakers)
    split_of = [
        make.speech_split(one["number"], one["speaker"], held_out_speaker)
        for one in clips.speech
    ]
    sources = {
        split: _pairs(stores, clips, np.array(split_of), split, pairing_seed, snr_db)
        for split in make.SPLITS
    }
    if max_train_pairs:
        sources["train"] = sources["train"].first_of(max_train_pairs)
    if cache_in_memory:
        sources = {
            split: dataclasses.replace(source, cache={})
            for split, source in sources.items()
        }
    groups = {
        split: [
            one["name"]
            for one, assigned in zip(clips.speech, split_of, strict=True)
            if assigned == split
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
        facts=to_json(_facts(stores, sources, snr_db, held_out_speaker, pairing_seed)),
    )


def _check(snr_db: float, max_train_pairs: int) -> None:
    """Raises ConfigError for a number that is out of range."""
    if not -100 <= snr_db <= 100:
        raise out_of_range("snr_db", snr_db, "-100 to 100")
    if max_train_pairs < 0:
        raise out_of_range(
            "max_train_pairs", max_train_pairs, "1 or more, or 0 for all"
        )


def summarize(data: Dataset) -> Summary:
    """Returns a summary of the dataset after reading an example of each split."""
    splits = {}
    for split, source in data.sources.items():
        counts = np.bincount(data.label(split, "digit"), minlength=len(WORDS))
        splits[split] = SplitSummary(
            count=len(source),
            digits=counts.tolist(),
            recordings=len(data.groups[split]),
            shapes={m: list(x.shape) for m, x in source[0]["inputs"].items()},
        )
    return Summary(data.title, splits, msgspec.convert(data.facts, Facts))


def format_summary(summary: Summary) -> str:
    """Formats the result of `summarize` as lines of text."""
    facts = summary.facts
    lines = [
        summary.title,
        f"  images: {facts.components:d} principal components, "
        f"{facts.energy:.1%} of the variance; audio: SNR {facts.snr_db:g} dB",
    ]
    for split, part in summary.splits.items():
        counts = " ".join(map(str, part.digits))
        lines.append(
            f"  {split:<5} {part.count:d} examples, {part.recordings:d} "
            f"recordings; examples per digit: {counts}"
        )
    lines += [f"remark: {shorten(warning)}" for warning in facts.warnings]
    return "\n".join(lines)


def _all(records: Records) -> list[dict[str, Any]]:
    """Every record."""
    return [records[i] for i in range(len(records))]


def _pairs(
    stores: BuiltStores,
    clips: AudioClips,
    split_of: np.ndarray,
    split: str,
    seed: int,
    snr_db: float,
) -> PairedExamples:
    """The examples of a split."""
    stored = "test" if split == "test" else "train"
    text = stores.images_manifest.digits[stored]
    digits = np.frombuffer(text.encode(), np.uint8).astype(np.int32) - ord("0")
    first = 0
    if split != "test":
        valid_start = len(digits) - max(1, len(digits) // VALID_PART)
        first = valid_start if split == "valid" else 0
        digits = digits[:valid_start] if split == "train" else digits[valid_start:]
    spoken = np.array([one["digit"] for one in clips.speech])
    spoken = np.where(split_of == split, spoken, -1)
    noise = [
        i
        for i, clip in enumerate(clips.noise)
        if make.noise_fits(clip["number"], split)
    ]
    missing = [WORDS[d] for d in np.unique(digits) if d not in spoken]
    if missing or not noise:
        what = f"recording of {join_names(missing)}" if missing else "noise clip"
        raise DataError(
            "D78",
            f"split {shown(split)} of AV-MNIST has no {what}.",
            "test recordings are 0-4 of a speaker and digit, validation recordings "
            f"45-49; test noise clips are those of fold {make.TEST_FOLD}",
        )
    rng = np.random.default_rng([seed, make.SPLITS.index(split)])
    return PairedExamples(
        stores.images.source(stored),
        first,
        clips,
        digits,
        make.pair_with_speech(digits, spoken, rng),
        np.array(noise)[rng.integers(len(noise), size=len(digits))],
        rng.random(len(digits)),
        snr_db,
        sha256_json([stores.images.digest(), stores.audio.digest()]),
    )


def _facts(
    stores: BuiltStores,
    sources: Mapping[str, PairedExamples],
    snr_db: float,
    held_out_speaker: str,
    seed: int,
) -> Facts:
    """Returns the facts about the dataset."""
    manifest = stores.images_manifest
    return Facts(
        version=manifest.version,
        fingerprint=manifest.parts_sha256[:16],
        # Not from the manifest: earlier stores have it with another name.
        license=LICENSE,
        counts={split: len(source) for split, source in sources.items()},
        components=manifest.components,
        energy=manifest.energy,
        snr_db=snr_db,
        held_out_speaker=held_out_speaker,
        pairing_seed=seed,
        warnings=["not the commonly used AV-MNIST file"],
    )
