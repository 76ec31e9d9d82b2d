"""Reads arrays from npz files without running code in them.

NumPy's reader allocates what the header of an array claims, unpacks as much as the
archive holds, and raises exceptions of five modules for a corrupted file. So the sizes
in the archive and in the headers are compared before memory is allocated.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from mmfusion_jax.errors import (
    DataError,
    describe_exception,
    shorten,
    shown,
    shown_name,
    shown_path,
)
from mmfusion_jax.paths import local_path
from mmfusion_jax.safe_load.regular_file import open_regular

RATIO = 200
"""A large file that unpacks to more than this many times its size is rejected."""

LARGE = 64 << 20
"""Bytes up to which `RATIO` is not checked."""

MAX_MEMBERS = 10_000
"""Number of arrays in a file."""

_SUFFIX = ".npy"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_DAMAGED = "copy or download it again"
_PLAIN = (
    "save it with plain arrays: numbers with dtype float32, texts with "
    "np.array(texts, dtype=str)"
)


class _InvalidNpz(Exception):
    """The file is not read; `args` are the reason and how to fix it."""


def read_npz(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Returns the arrays of a file.

    Args:
        path: File, which must exist.
        names: Arrays to read, all of which must be in the file; None reads all.

    Raises:
        DataError: The file is not a regular file, is corrupted, lacks an array,
            requires pickle, or would unpack to much more than its size. The content of
            a file raises no other exception.
    """
    with open_regular(path) as stream:
        try:
            return _read(stream, names)
        except MemoryError as error:
            raise DataError(
                "D65", f"{path}: out of memory.", "raise the memory limit"
            ) from error
        except Exception as error:  # a corrupted file can raise any exception
            reason, fix = describe_exception(error), _DAMAGED
            if isinstance(error, _InvalidNpz):
                reason, fix = error.args
            message = f"{path} cannot be read: {shorten(reason)}."
            raise DataError("D52", message, fix) from error


def read_from(
    data_dir: str, file: str, names: Sequence[str], layout: str, fallback: str
) -> dict[str, np.ndarray]:
    """Returns arrays of a file in the folder `config.data.data_dir`.

    Args:
        data_dir: Folder as in the config; "" if it is not set.
        file: Name of the file in it.
        names: Arrays to read, all of which must be in the file.
        layout: Expected layout of the folder, as indented lines.
        fallback: Command that runs without this data.

    Raises:
        DataError: The file does not exist or cannot be read, see `read_npz`.
    """
    path = local_path("data_dir", data_dir) / file
    if not data_dir or not path.is_file():
        raise DataError(
            "D40",
            f"config.data.data_dir={shown_path(data_dir)}: {file} does not exist. "
            f"Expected layout:\n{layout}",
            fallback,
        )
    return read_npz(path, names)


def check_finite(where: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Raises DataError for the first array that contains NaN or infinite values."""
    for name, values in arrays.items():
        if not np.isfinite(values).all():
            raise DataError(
                "D52", f"{where}: {shown_name(name)} contains NaN or infinite values."
            )


def _read(stream: BinaryIO, names: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Returns the arrays of an open file."""
    with ZipFile(stream) as archive:
        entries = archive.infolist()
        _check_size(entries, os.fstat(stream.fileno()).st_size)
        arrays = {e.filename: e for e in entries if e.filename.endswith(_SUFFIX)}
        if len({entry.filename for entry in entries}) < len(entries):
            raise _InvalidNpz("two arrays have the same name", _DAMAGED)
        wanted = arrays if names is None else [name + _SUFFIX for name in names]
        for name in wanted:
            if name not in arrays:
                raise _InvalidNpz(f"it has no array {shown(name)}", _DAMAGED)
        return {
            name.removesuffix(_SUFFIX): _read_array(archive, arrays[name])
            for name in wanted
        }


def _check_size(entries: Sequence[ZipInfo], packed: int) -> None:
    """Rejects an archive that unpacks to much more than its size."""
    if len(entries) > MAX_MEMBERS:
        raise _InvalidNpz(f"it has {len(entries)} arrays", "save fewer, larger arrays")
    # The sizes are claims of the archive; zipfile reads no more than they state.
    size = sum(entry.file_size for entry in entries)
    if size > max(LARGE, RATIO * packed):
        raise _InvalidNpz(f"it would unpack to {size / 1e9:.1f} GB", _DAMAGED)


def _read_header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Returns the shape and dtype in the header of an array."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise _InvalidNpz(f"{shown(name)} has npy version {shown(version)}", _PLAIN)
    try:
        shape, _, dtype = _HEADERS[version](stream)
    # The header is a Python literal, which NumPy parses with ast.literal_eval.
    except MemoryError as error:  # what Python's parser raises for deep nesting
        raise _InvalidNpz(
            f"the header of {shown(name)} is corrupted", _DAMAGED
        ) from error
    return shape, dtype


def _read_array(archive: ZipFile, entry: ZipInfo) -> np.ndarray:
    """Returns one array, after comparing its header with the size of the entry."""
    if entry.flag_bits & 1:
        raise _InvalidNpz(f"{shown(entry.filename)} is encrypted", "decrypt it")
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise _InvalidNpz(
            f"{shown(entry.filename)} has compression method {entry.compress_type:d}",
            "save it with np.savez or np.savez_compressed",
        )
    with archive.open(entry) as stream:
        shape, dtype = _read_header(stream, entry.filename)
        if dtype.hasobject:
            raise _InvalidNpz(f"{shown(entry.filename)} requires pickle", _PLAIN)
        size = entry.file_size - stream.tell()
        count = math.prod(shape)
        # Python's integers do not overflow, unlike NumPy's product of a hostile shape.
        if min(shape, default=0) < 0 or count * dtype.itemsize != size:
            raise _InvalidNpz(
                f"{shown(entry.filename)} has {size} bytes, which "
                "do not match its shape",
                _DAMAGED,
            )
        if not dtype.itemsize and count > 1:  # elements without end in a small file
            raise _InvalidNpz(
                f"{shown(entry.filename)} has elements of 0 bytes", _PLAIN
            )
    # Opened again, since read_array reads the header itself. It now allocates what has
    # been compared with the size of the entry.
    with archive.open(entry) as stream:
        return npy.read_array(stream, allow_pickle=False)
