"""Builds the stores of AV-MNIST: one of images and one of audio.

Spectrograms are not stored: 70,000 of them are 878 MB, while mixing audio and computing
a spectrogram takes less than a millisecond.
"""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mmfusion_jax.data.datasets.av_mnist import generate as make
from mmfusion_jax.data.datasets.av_mnist.raw_files import (
    AudioFile,
    RawFiles,
    find,
    read_mnist,
    read_noise,
    read_speech,
)
from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    Store,
    cache_folder,
    open_store,
    write_store,
)
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import DataError, shown_path
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.json_file import check, names_match

FOLDER = "av_mnist"
"""Folder of the cache with a folder for each set of raw files."""

IMAGES, AUDIO = "images", "sounds"
"""Names of the two stores. These and the names of their entries are part of the format:
changing them needs a new `generate.VERSION`."""

AUDIO_FEATURES = {
    "name": FeatureSpec((), "str"),
    "samples": FeatureSpec((None,), "int16"),
    "number": FeatureSpec((), "int32"),
    "digit": FeatureSpec((), "int32"),
    "speaker": FeatureSpec((), "str"),
}
LICENSE = (
    "MNIST (LeCun et al. 1998); speech: Free Spoken Digit Dataset, CC BY-SA 4.0; "
    "noise: ESC (Piczak 2015), ESC-10 CC BY 3.0, ESC-50 CC BY-NC 3.0"
)


@dataclasses.dataclass(frozen=True)
class ImagesManifest:
    """Fields of the manifest of the images.

    Attributes:
        version: `generate.VERSION` of the library that wrote it.
        parts_sha256: Hash of the raw files.
        digits: Split, "train" or "test" -> the digits of all its images.
        components: Number of principal components.
        energy: Their fraction of the variance, 0..1.
        counts: Split -> number of images.
    """

    version: int
    parts_sha256: str
    digits: dict[str, str]
    components: int
    energy: float
    counts: dict[str, int]

    def __post_init__(self) -> None:
        names_match(self.digits, ("train", "test"), "digits")
        for split, digits in self.digits.items():
            check(digits.isascii() and digits.isdigit(), f"digits: {split} has others")
            complete = len(digits) == self.counts.get(split)
            check(complete, f"digits: {split} has not one of every image")


@dataclasses.dataclass(frozen=True)
class BuiltStores:
    """Stores of images and of audio of a set of raw files.

    Attributes:
        folder: Folder of the stores.
        images: Splits "train" and "test" of "image" (h w 1) uint8.
        images_manifest: Manifest of the images.
        audio: Splits "speech" and "noise", see `AUDIO_FEATURES`.
        reused: Whether they existed before.
    """

    folder: Path
    images: Store
    images_manifest: ImagesManifest
    audio: Store
    reused: bool = True


def build_or_open(folder: str | Path, processes: int | None = None) -> BuiltStores:
    """Opens the stores of the raw files in a folder; builds them if they are missing.

    Args:
        folder: Folder of the raw files, see `raw_files.EXPECTED_LAYOUT`.
        processes: Number of processes that decode audio, see
            `worker_pool.map_in_processes`.

    Raises:
        DataError: Raw files are missing or damaged, or the cache is not writable.
        MissingDependencyError: Audio must be decoded, and the extra `media` is not
            installed.
    """
    raw = find(local_path("data_dir", folder), str(folder))
    sha256 = raw.sha256
    name = hashlib.sha256(f"{make.VERSION} {sha256}".encode()).hexdigest()[:8]
    target = cache_folder(FOLDER) / name
    reused = (target / IMAGES).exists() and (target / AUDIO).exists()
    if not reused:
        manifest = {"version": make.VERSION, "parts_sha256": sha256, "license": LICENSE}
        # Images last: `list_imports` lists folders with images, so these are complete.
        _write_audio(target / AUDIO, raw, manifest, processes)
        _write_images(target / IMAGES, raw, manifest)
    return dataclasses.replace(open_stores(target), reused=reused)


def open_stores(folder: Path) -> BuiltStores:
    """Opens the stores in a folder of the cache.

    Raises:
        DataError: One of them is missing or corrupted.
    """
    images, audio = open_store(folder / IMAGES), open_store(folder / AUDIO)
    return BuiltStores(folder, images, images.manifest_as(ImagesManifest), audio)


def list_imports() -> list[Path]:
    """Returns the folders of all imports."""
    found = (path.parent for path in cache_folder(FOLDER).glob(f"*/{IMAGES}"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def open_imported() -> BuiltStores:
    """Opens the only import.

    Raises:
        DataError: AV-MNIST was not imported, or was imported several times.
    """
    imports = list_imports()
    command = "python -m mmfusion_jax data import FOLDER --dataset=av_mnist"
    if not imports:
        raise DataError(
            "D75",
            "AV-MNIST has not been imported. It needs MNIST, spoken digits (FSDD) and "
            "noise clips (ESC-10).",
            f"{command}\n       or --config.data.data_dir=FOLDER with these files",
        )
    if len(imports) > 1:
        listed = " and ".join(map(shown_path, imports))
        raise DataError(
            "D76",
            f"AV-MNIST is ambiguous, it was imported from different files: {listed}.",
            "--config.data.data_dir=FOLDER with the raw files, or remove one import",
        )
    return open_stores(imports[0])


def _write_audio(
    folder: Path, raw: RawFiles, manifest: dict[str, Any], processes: int | None
) -> None:
    """Writes the recordings, and the noise clips with trimmed silence."""
    speech, noise = read_speech(raw, processes), read_noise(raw, processes)
    noise = [
        dataclasses.replace(clip, samples=make.trim_silence(clip.samples))
        for clip in noise
    ]
    splits = {"speech": _records(speech), "noise": _records(noise)}
    write_store(folder, AUDIO_FEATURES, splits, manifest)


def _records(files: Sequence[AudioFile]) -> Iterator[dict[str, Any]]:
    """Returns the records of audio files."""
    return ({name: getattr(file, name) for name in AUDIO_FEATURES} for file in files)


def _write_images(folder: Path, raw: RawFiles, manifest: dict[str, Any]) -> None:
    """Writes the images, reconstructed from a few principal components."""
    arrays = read_mnist(raw)
    order = make.stratified_order(arrays["y_train"])
    for name in ("x_train", "y_train"):
        arrays[name] = arrays[name][order]
    with threadpool_limits(1):  # more threads sum in another order
        components = make.components(arrays["x_train"])
        splits = {
            split: _image_records(arrays[f"x_{split}"], components, split)
            for split in ("train", "test")
        }
        # In the manifest, so that images and recordings are paired without reading the
        # images.
        digits = {
            split: "".join(map(str, arrays[f"y_{split}"].tolist())) for split in splits
        }
        manifest = manifest | {
            "digits": digits,
            "components": components.axes.shape[1],
            "energy": round(components.variance_fraction, 4),
        }
        spec = FeatureSpec((*arrays["x_train"].shape[1:], 1), "uint8")
        write_store(folder, {"image": spec}, splits, manifest)


def _image_records(
    images: np.ndarray, components: make.Components, split: str
) -> Iterator[dict[str, Any]]:
    """Returns the records of images."""
    what = f"writing {split} images"
    # Projected in blocks: as float64, 60,000 images are 376 MB.
    blocks = np.array_split(images, max(1, len(images) // 1024))
    projected = (image for block in blocks for image in components(block))
    tracked = track(projected, len(images), what)
    return ({"image": image[..., None]} for image in tracked)
