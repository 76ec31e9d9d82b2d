"""Prepared datasets on disk: written atomically, read with random access.

A store is a folder in the layout of TensorFlow Datasets (array_record shards,
`features.json`, `dataset_info.json`), so `tfds.builder_from_directory` opens it, with a
`MANIFEST.json` that records its inputs. TensorFlow is never imported.

Example:
    >>> from pathlib import Path
    >>> import mmfusion_jax as mmf
    >>> store = mmf.data.array_record_store
    >>> features = {"pitch": store.FeatureSpec((), "int32")}
    >>> folder = Path("tones").absolute()
    >>> store.write_store(folder, features, {"train": [{"pitch": 3}]}, {})
    >>> int(store.open_store(folder).source("train")[0]["pitch"])
    3
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_info import DatasetIdentity

from mmfusion_jax.data.array_hashes import update_hash
from mmfusion_jax.errors import DataError, shorten, shown, shown_name
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.run_identity import sha256_json

MANIFEST = "MANIFEST.json"
_NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)
TEXT = "str"
_PER_SHARD = 1024
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class FeatureSpec:
    """Shape and dtype of one entry of an example.

    Attributes:
        shape: Its shape; the first axis may be None, for a variable length.
        dtype: A NumPy name such as "uint8", or "str" for text of shape ().
    """

    shape: tuple[int | None, ...] = ()
    dtype: str = "float32"

    def __post_init__(self):
        # TFDS would silently store it as float32.
        if self.dtype == "float64":
            raise ValueError("dtype='float64' is not stored exactly; use 'float32'.")
        if None in self.shape[1:] or (self.dtype == TEXT and self.shape):
            raise ValueError(
                f"shape={self.shape} of dtype={shown(self.dtype)}: only the first "
                "axis may be None, and text has the shape ()."
            )

    def feature(self) -> tfds.features.FeatureConnector:
        """Returns the corresponding feature of TensorFlow Datasets."""
        if self.dtype == TEXT:
            return tfds.features.Text()
        if not self.shape:
            return tfds.features.Scalar(dtype=np.dtype(self.dtype))
        # Without an encoding every integer is stored and parsed as an int64. Shards are
        # compressed as a whole.
        return tfds.features.Tensor(
            shape=self.shape,
            dtype=np.dtype(self.dtype),
            encoding=tfds.features.Encoding.BYTES,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """Fields that `write_store` adds to every manifest.

    Attributes:
        mmfusion_jax: Version of the library that wrote the store.
        counts: Split -> number of examples.
        features: Entry of an example -> its shape and dtype.
        files: File -> its size in bytes.
        content: Split -> SHA-256 of its examples; empty in older stores.
    """

    mmfusion_jax: str
    counts: dict[str, int]
    features: dict[str, FeatureSpec]
    files: dict[str, int]
    content: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Records:
    """The examples of one split, in the order in which they were written.

    Attributes:
        folder: Folder of the store, for error messages.
        source: Random access to the stored dicts.
        texts: Names of the text entries.
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
        # A file can be damaged after `open_store` has checked it.
        except Exception as error:  # the readers raise what their C++ code throws
            raise corrupted(self.folder, f"example {index} is not readable") from error
        return example | {name: example[name].decode() for name in self.texts}


@dataclasses.dataclass(frozen=True)
class Store:
    """An open store.

    Attributes:
        folder: Its path.
        manifest: Content of `MANIFEST.json`.
        info: The fields of it that every store has.
    """

    folder: Path
    manifest: Mapping[str, Any]
    info: StoreInfo

    def digest(self) -> str:
        """Returns a hash of all examples, which was computed when they were written.

        Of a store of an older version of the library, the files are hashed.
        """
        if self.info.content:
            return sha256_json(self.info.content)
        files = [name for name in self.info.files if "array_record" in name]
        sums = {name: _sha256(self.folder / name) for name in files}
        return sha256_json(sums)

    def manifest_as(self, kind: type[T]) -> T:
        """Returns the manifest as a dataclass; other fields are ignored.

        Raises:
            DataError: A field is missing or has a wrong value.
        """
        return _convert(self.folder, self.manifest, kind)

    def source(self, split: str) -> Records:
        """Returns the examples of `split`."""
        builder = tfds.builder_from_directory(self.folder)
        features = self.info.features.items()
        texts = tuple(name for name, spec in features if spec.dtype == TEXT)
        source = builder.as_data_source(split)  # pyright: ignore[reportCallIssue]
        return Records(self.folder, source, texts)


def cache_folder(name: str) -> Path:
    """Returns the folder of the prepared data called `name`.

    Its parent is the environment variable MMFUSION_CACHE, `~/.cache/mmfusion_jax` by
    default.
    """
    root = os.environ.get("MMFUSION_CACHE")
    if root:
        return local_path("MMFUSION_CACHE", root) / name
    return Path.home() / ".cache" / "mmfusion_jax" / name


def write_store(
    folder: Path,
    features: Mapping[str, FeatureSpec],
    splits: Mapping[str, Iterable[dict[str, Any]]],
    manifest: Mapping[str, Any],
) -> None:
    """Builds a store in a temporary folder and renames it atomically.

    The same arguments give the same bytes. If two processes build the same store, the
    second one waits and then uses the first one's: the name of a store must identify
    its content. The next build removes what a killed one left behind.

    Args:
        folder: Its final path, which never contains a partial store.
        features: Name -> shape and dtype of that entry.
        splits: Split -> its examples, which are read one by one.
        manifest: JSON values to store with the examples; read after the last example,
            so that the iterators may still add to it.

    Raises:
        DataError: A split is empty, or the disk is full or not writable.
    """
    make_folder(folder.parent)
    # Checked under the lock: a process that waited finds the store of the other one.
    with when_not_writable(folder), lock_store(folder):
        if not folder.exists():
            _build(folder, features, splits, manifest)


@contextlib.contextmanager
def when_not_writable(folder: Path) -> Iterator[None]:
    """Raises DataError for exceptions that mean a full disk, or one without access.

    Args:
        folder: Folder that is written in the block.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_WRITABLE:
            raise
        raise _not_writable(folder, error) from error
    # ArrayRecord raises these, with the text of the system in the message.
    except (RuntimeError, ValueError) as error:
        texts = {code: os.strerror(code) for code in _NOT_WRITABLE}
        for code, text in texts.items():
            if text in str(error):
                raise _not_writable(folder, OSError(code, text)) from error
        raise


def make_folder(folder: Path) -> None:
    """Makes the parent folder of stores; DataError if it is not writable."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _not_writable(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise _not_writable(folder, PermissionError(errno.EACCES, "permission denied"))


def open_store(folder: Path) -> Store:
    """Opens a store after checking that it is complete.

    Raises:
        DataError: It is missing, truncated or not a store.
    """
    if not folder.is_dir():
        raise DataError(
            "D20", f"{folder} does not exist.", "rerun the command that builds it"
        )
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise corrupted(folder, f"{MANIFEST} is missing or not readable") from error
    info = _convert(folder, manifest, StoreInfo)
    for name, size in info.files.items():
        file = folder / name
        if not file.is_file():
            raise corrupted(folder, f"{shown_name(name)} is missing")
        if file.stat().st_size != size:
            raise corrupted(
                folder,
                f"{shown_name(name)} has {file.stat().st_size:d} of {size:d} bytes",
            )
    return Store(folder, manifest, info)


def _convert(folder: Path, manifest: Any, kind: type[T]) -> T:
    """Returns a manifest as a dataclass; DataError if a field is missing or wrong."""
    try:
        return msgspec.convert(manifest, kind)
    except ValueError as error:  # msgspec's ValidationError is one
        raise corrupted(folder, f"{MANIFEST}: {shorten(error)}") from error


def corrupted(folder: Path, what: str) -> DataError:
    """Returns the error for a store that is not readable."""
    return DataError(
        "D21",
        f"the cache {folder} is corrupted: {what}.",
        f"delete {folder} and rerun",
    )


def _not_writable(folder: Path, error: OSError) -> DataError:
    """Returns the error for a folder that is not writable."""
    return DataError(
        "D22",
        f"{folder} is not writable: {error.strerror}.",
        "free disk space, or set MMFUSION_CACHE to a folder on another disk",
    )


def _build(
    folder: Path,
    features: Mapping[str, FeatureSpec],
    splits: Mapping[str, Iterable[dict[str, Any]]],
    manifest: Mapping[str, Any],
) -> None:
    """Builds and renames; the caller holds the lock, so other builds are dead."""
    # The order: lock, remove what killed builds left, write to a folder with a
    # temporary name, list the sizes of its files in the manifest, rename. A kill before
    # the rename leaves a temporary folder, which no reader looks at and the next build
    # removes; the rename is atomic. Nothing is synced to disk here: after a power
    # failure files may be truncated, which `open_store` finds by their sizes, or have
    # wrong content, which ArrayRecord's checksums find when it is read.
    prefix = f".{folder.name}.building-"
    for leftover in folder.parent.iterdir():
        if leftover.name.startswith(prefix):
            shutil.rmtree(leftover)
    partial = folder.parent / f"{prefix}{os.getpid()}"
    partial.mkdir()
    try:
        sums = {split: hashlib.sha256() for split in splits}
        hashed = {split: _hashed(part, sums[split]) for split, part in splits.items()}
        counts = _write_splits(partial, features, hashed)
        files = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
        details = {
            "mmfusion_jax": importlib.metadata.version("mmfusion_jax"),
            "counts": counts,
            "features": {k: dataclasses.asdict(v) for k, v in features.items()},
            "files": files,
            "content": {split: one.hexdigest() for split, one in sums.items()},
        }
        text = json.dumps({**manifest, **details}, indent=1, sort_keys=True)
        (partial / MANIFEST).write_text(text + "\n")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _hashed(
    examples: Iterable[dict[str, Any]], sha256: Any
) -> Iterator[dict[str, Any]]:
    """Yields examples and adds them to a hash."""
    for example in examples:
        for name, value in sorted(example.items()):
            update_hash(sha256, [name.encode(), value])
        yield example


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_splits(
    folder: Path,
    features: Mapping[str, FeatureSpec],
    splits: Mapping[str, Iterable[dict[str, Any]]],
) -> dict[str, int]:
    """Writes the shards and the metadata of TensorFlow Datasets."""
    identity = DatasetIdentity(
        name="examples",
        version=tfds.core.Version("1.0.0"),
        data_dir=str(folder),
        # Stored in dataset_info.json but never imported: a store that names another
        # module, such as the one that this code was in before, opens all the same.
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
            f"split {', '.join(map(shown, empty))} is empty.",
            "add examples to it, or omit the split",
        )
    return counts


@contextlib.contextmanager
def lock_store(folder: Path) -> Iterator[None]:
    """Locks the store `folder` exclusively; a process that dies releases the lock."""
    path = folder.parent / f".{folder.name}.lock"
    # The file of the lock is never deleted: a process that waits for the deleted file
    # and one that creates a new one would both hold a lock. The first attempt does not
    # wait, so that a message can be printed before the second one does.
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.getLogger(__name__).warning(
                "waiting for another process that is building %s", path
            )
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
