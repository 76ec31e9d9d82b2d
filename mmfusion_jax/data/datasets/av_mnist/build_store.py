"""Builds what AV-MNIST is read from: a store of images, and one of sounds.

Spectrograms are not stored: 70,000 of them are 878 MB, while a sound is mixed and
looked at in less than a millisecond.
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
from mmfusion_jax.errors import DataError

FOLDER = "av_mnist"
"""Of the cache, in which there is a folder for each set of parts."""

IMAGES, SOUNDS = "images", "sounds"
SOUND = {
    "name": FeatureSpec((), "str"),
    "samples": FeatureSpec((None,), "int16"),
    "number": FeatureSpec((), "int32"),
    "digit": FeatureSpec((), "int32"),
    "speaker": FeatureSpec((), "str"),
}
TERMS = (
    "MNIST (LeCun et al. 1998); speech: Free Spoken Digit Dataset, CC BY-SA 4.0; "
    "noise: ESC (Piczak 2015), ESC-10 CC BY 3.0, ESC-50 CC BY-NC 3.0"
)


@dataclasses.dataclass(frozen=True)
class BuiltStores:
    """The two stores of a set of parts.

    Attributes:
        folder: that they are in.
        images: splits "train" and "test" of "image" (h w 1) uint8; the manifest holds
            "digits", split -> the digits of all its images as one word.
        sounds: splits "speech" and "noise", see `SOUND`.
        reused: they were there before.
    """

    folder: Path
    images: Store
    sounds: Store
    reused: bool = True


def build_or_open(folder: str | Path, processes: int | None = None) -> BuiltStores:
    """The stores of the parts in a folder, made if they are not there.

    Args:
        folder: with the parts, see `av_mnist_parts.LAYOUT`.
        processes: that decode sounds, see `workers.run`.

    Raises:
        DataError: parts are missing or damaged, or the stores cannot be written.
        MissingDependencyError: sounds must be decoded, and the extra `media` is not installed.
    """
    parts = find(Path(folder).expanduser(), str(folder))
    sha256 = parts.sha256
    mark = hashlib.sha256(f"{make.VERSION} {sha256}".encode()).hexdigest()[:8]
    place = cache_folder(FOLDER) / mark
    there = (place / IMAGES).exists() and (place / SOUNDS).exists()
    if not there:
        own = {"version": make.VERSION, "parts_sha256": sha256, "licence": TERMS}
        _write_sounds(place / SOUNDS, parts, own, processes)
        _write_images(place / IMAGES, parts, own)
    return dataclasses.replace(open_stores(place), there=there)


def open_stores(place: Path) -> BuiltStores:
    """The stores in a folder of the cache.

    Raises:
        DataError: one of them is missing or damaged.
    """
    return BuiltStores(place, open_store(place / IMAGES), open_store(place / SOUNDS))


def list_imports() -> list[Path]:
    """The folders of all imports."""
    return sorted(path.parent for path in cache_folder(FOLDER).glob(f"*/{IMAGES}"))


def open_imported() -> BuiltStores:
    """The only import there is.

    Raises:
        DataError: there is none, or there are several.
    """
    found = list_imports()
    command = "python -m mmfusion_jax data import FOLDER --as=av_mnist"
    if not found:
        raise DataError(
            "D75",
            "the parts of AV-MNIST were not imported: MNIST, spoken digits (FSDD) and "
            "noise clips (ESC-10).",
            f"{command}\n       or --config.data.dir=FOLDER, a folder with the three",
        )
    if len(found) > 1:
        names = " and ".join(str(path) for path in found)
        raise DataError(
            "D76",
            f"AV-MNIST was imported from different parts: {names}.",
            "--config.data.dir=FOLDER with the parts that are meant, or remove one",
        )
    return open_stores(found[0])


def _write_sounds(
    place: Path, parts: RawFiles, own: dict[str, Any], processes: int | None
) -> None:
    """Writes the recordings, and the noise clips without silent ends."""
    speech, noise = read_speech(parts, processes), read_noise(parts, processes)
    noise = [
        dataclasses.replace(clip, samples=make.trim_silence(clip.samples))
        for clip in noise
    ]
    splits = {"speech": _records(speech), "noise": _records(noise)}
    write_store(place, SOUND, splits, own)


def _records(sounds: Sequence[AudioFile]) -> Iterator[dict[str, Any]]:
    """Sounds as they are stored."""
    return ({name: getattr(sound, name) for name in SOUND} for sound in sounds)


def _write_images(place: Path, parts: RawFiles, own: dict[str, Any]) -> None:
    """Writes the images, of which a few components are left."""
    arrays = read_mnist(parts)
    order = make.stratified_order(arrays["y_train"])
    for name in ("x_train", "y_train"):
        arrays[name] = arrays[name][order]
    with threadpool_limits(1):  # more threads add up in another order
        keep = make.components(arrays["x_train"])
        splits = {
            split: _images(arrays[f"x_{split}"], keep, split)
            for split in ("train", "test")
        }
        digits = {
            split: "".join(map(str, arrays[f"y_{split}"].tolist())) for split in splits
        }
        manifest = own | {
            "digits": digits,
            "components": keep.axes.shape[1],
            "energy": round(keep.variance_fraction, 4),
        }
        spec = FeatureSpec((*arrays["x_train"].shape[1:], 1), "uint8")
        write_store(place, {"image": spec}, splits, manifest)


def _images(
    images: np.ndarray, keep: make.Components, split: str
) -> Iterator[dict[str, Any]]:
    """Images as they are stored."""
    what = f"writing {split} images"
    blocks = np.array_split(images, max(1, len(images) // 1024))
    faint = (image for block in blocks for image in keep(block))
    return ({"image": image[..., None]} for image in track(faint, len(images), what))
