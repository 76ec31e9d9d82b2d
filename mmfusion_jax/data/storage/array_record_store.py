"""Prepared data sets on disk: written once, whole or not at all, and read at random.

A store is a folder in the layout of TensorFlow Datasets (array_record shards,
`features.json`, `dataset_info.json`), so `tfds.builder_from_directory` opens it, and
beside them `MANIFEST.json`, which says what went in. TensorFlow is never imported.
"""

import contextlib
import dataclasses
import errno
import fcntl
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from mmfusion_jax.errors import DataError

MANIFEST = "MANIFEST.json"
TEXT = "str"
_PER_SHARD = 1024


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """What one entry of an example looks like.

    Attributes:
        shape: its axes; the first may be None, which means "differs by example".
        dtype: a NumPy name such as "uint8", or "str" for text of shape ().
        compress: squeeze each array by itself (ZLIB). Shards are squeezed anyway, so
            this pays for pixels with flat areas only, and costs time at each read.
    """

    shape: tuple[int | None, ...] = ()
    dtype: str = "float32"
    compress: bool = False

    def __post_init__(self):
        if self.dtype == "float64":
            raise ValueError("dtype='float64' is not stored exactly; use 'float32'.")
        if None in self.shape[1:] or (self.dtype == TEXT and self.shape):
            raise ValueError(
                f"shape={self.shape} of dtype={self.dtype!r}: only the first axis may "
                "be None, and text has the shape ()."
            )

    def feature(self) -> tfds.features.FeatureConnector:
        """The same in the words of TensorFlow Datasets."""
        if self.dtype == TEXT:
            return tfds.features.Text()
        if not self.shape:
            return tfds.features.Scalar(dtype=np.dtype(self.dtype))
        # Without an encoding every integer is stored and parsed as an int64.
        packing = tfds.features.Encoding.BYTES
        if self.compress:
            packing = tfds.features.Encoding.ZLIB
        return tfds.features.Tensor(
            shape=self.shape, dtype=np.dtype(self.dtype), encoding=packing
        )


@dataclasses.dataclass(frozen=True)
class Records:
    """The examples of one split, in the order in which they were written.

    Attributes:
        folder: where the store is; errors name it.
        source: random access to the stored dicts.
        texts: the entries that are text.
    """

    folder: Path
    source: Sequence[dict[str, Any]]
    texts: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Example `index`, 0 <= index < len; arrays, Python numbers and str."""
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in 0..{len(self) - 1}.")
        try:
            example = self.source[index]
        except Exception as error:  # the readers raise whatever their C++ code throws
            raise corrupted(self.folder, f"example {index} is unreadable") from error
        return example | {name: example[name].decode() for name in self.texts}


@dataclasses.dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        folder: where it is.
        manifest: the content of `MANIFEST.json`.
    """

    folder: Path
    manifest: Mapping[str, Any]

    def source(self, split: str) -> Records:
        """The examples of `split`."""
        builder = tfds.builder_from_directory(self.folder)
        texts = (
            name
            for name, feature in self.manifest["features"].items()
            if feature["dtype"] == TEXT
        )
        source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        return Records(self.folder, source, tuple(texts))


def cache_folder(name: str) -> Path:
    """Where prepared data called `name` belongs.

    The environment variable MMFUSION_CACHE names the folder above; without it that is
    `~/.cache/mmfusion_jax`.
    """
    root = os.environ.get("MMFUSION_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "mmfusion_jax") / name


def write_store(
    folder: Path,
    features: Mapping[str, FeatureSpec],
    splits: Mapping[str, Iterable[dict[str, Any]]],
    manifest: Mapping[str, Any],
) -> None:
    """Builds a store beside its final place and then moves it there in one step.

    The same arguments give the same bytes. Of two processes that build the same store
    the second waits, then finds it there and does nothing: the name of a store must
    say what is in it. What a killed build leaves is removed by the next one.

    Args:
        folder: its final place; nothing half written ever stands there.
        features: name -> what that entry of each example looks like.
        splits: split -> its examples, which are drawn one by one.
        manifest: JSON values to keep beside the examples; it is read after the last
            example, so that drawing may still add to it.

    Raises:
        DataError: a split without examples, or a disk that cannot take it.
    """
    make_folder(folder.parent)
    try:
        with _lock(folder.parent / f".{folder.name}.lock"):
            if not folder.exists():
                _build(folder, features, splits, manifest)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        raise _no_place(folder, error) from error


def make_folder(folder: Path) -> None:
    """Makes the folder in which stores will be; DataError if that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_place(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise _no_place(folder, PermissionError(errno.EACCES, "no right to write"))


def open_store(folder: Path) -> Store:
    """Opens a store after checking that all of it is there.

    Raises:
        DataError: it is missing, cut short or not a store.
    """
    if not folder.is_dir():
        raise DataError(
            "D20", f"{folder} is not there.", "run the command that builds it again"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise corrupted(folder, f"{MANIFEST} is missing or unreadable") from error
    for name, size in files.items():
        file = folder / name
        if not file.is_file():
            raise corrupted(folder, f"{name} is missing")
        if file.stat().st_size != size:
            raise corrupted(folder, f"{name} has {file.stat().st_size} of {size} bytes")
    return Store(folder, manifest)


def corrupted(folder: Path, what: str) -> DataError:
    """The error for a store that cannot be read any more."""
    return DataError(
        "D21",
        f"the prepared data in {folder} is damaged: {what}.",
        f"rm -r {folder}; the same command then builds it again",
    )


def _no_place(folder: Path, error: OSError) -> DataError:
    """The error for a place that cannot be written."""
    return DataError(
        "D22",
        f"{folder} cannot be written: {error.strerror}.",
        "make room there, or let MMFUSION_CACHE name a folder on another disk",
    )


def _build(
    folder: Path,
    features: Mapping[str, FeatureSpec],
    splits: Mapping[str, Iterable[dict[str, Any]]],
    manifest: Mapping[str, Any],
) -> None:
    """Builds and moves; the caller holds the lock, so other builds are dead ones."""
    mark = f".{folder.name}.building-"
    for leftover in folder.parent.iterdir():
        if leftover.name.startswith(mark):
            shutil.rmtree(leftover)
    site = folder.parent / f"{mark}{os.getpid()}"
    site.mkdir()
    try:
        counts = _write_splits(site, features, splits)
        files = {file.name: file.stat().st_size for file in sorted(site.iterdir())}
        own = {
            "mmfusion_jax": importlib.metadata.version("mmfusion_jax"),
            "counts": counts,
            "features": {k: dataclasses.asdict(v) for k, v in features.items()},
            "files": files,
        }
        text = json.dumps({**manifest, **own}, indent=1, sort_keys=True)
        (site / MANIFEST).write_text(text + "\n")
        site.rename(folder)
    finally:
        shutil.rmtree(site, ignore_errors=True)


def _write_splits(
    site: Path,
    features: Mapping[str, FeatureSpec],
    splits: Mapping[str, Iterable[dict[str, Any]]],
) -> dict[str, int]:
    """Writes the shards and what TensorFlow Datasets wants to know about them."""
    identity = DatasetIdentity(
        name="examples",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(site),
        module_name="mmfusion_jax.data.storage.array_record_store",
    )
    entries = {name: spec.feature() for name, spec in features.items()}
    info = tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict(entries),
        disable_shuffling=True,
    )
    writer = tfds.core.SequentialWriter(info, _PER_SHARD, file_format="array_record")
    writer.initialize_splits(list(splits))
    for split, examples in splits.items():
        writer.add_examples({split: examples})  # pyright: ignore[reportArgumentType]
    writer.close_all()
    counts = {name: info.splits[name].num_examples for name in splits}
    if empty := sorted(name for name, count in counts.items() if not count):
        raise DataError(
            "D23",
            f"no example is left in split {', '.join(map(repr, empty))}.",
            "give it some examples, or leave the split out",
        )
    return counts


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds `path` for this process alone; the system lets go when the process dies."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.getLogger(__name__).warning(
                "waiting for another process that builds %s", path
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
