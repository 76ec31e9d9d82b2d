"""Reads files of `torch.save`, without PyTorch and without running their code.

Such a file is a zip archive: `data.pkl` is a pickle that describes tensors as views of
numbered storages, and `data/<number>` contains the elements of a storage. The pickle is
read by `safe_load/torch_objects.py`; the elements are read here, only of the tensors
that are returned, and each storage once.
"""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmfusion_jax.errors import describe_exception, shown
from mmfusion_jax.safe_load.regular_file import open_regular
from mmfusion_jax.safe_load.torch_objects import (
    DTYPES,
    MAX_PICKLE,
    InvalidTensorFile,
    PickledStorage,
    PickledTensor,
    read_description,
)

LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""First bytes of a file of PyTorch before 1.6, which is not an archive."""

MAX_COPIES = 4
"""Bytes of copied tensors, as a multiple of the size of the file. Only tensors that are
not contiguous are copied; a stride of 0 would make a file of any size out of a byte."""


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Returns the named tensors of a file of `torch.save`.

    The file contains a dict of tensors, or a dict with such a dict as an entry, such as
    "state_dict".

    Raises:
        InvalidTensorFile: The file is not such an archive, or contains something else.
        DataError: The file does not exist or is not a regular file.
    """
    with open_regular(path) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                return _Archive(archive, os.fstat(stream.fileno()).st_size).tensors()
        except InvalidTensorFile:
            raise
        except Exception as e:  # a corrupted file can raise any exception
            reason = _legacy_hint(stream) or describe_exception(e)
            raise InvalidTensorFile(reason) from e


def _legacy_hint(stream: BinaryIO) -> str:
    """Returns how to convert a file of PyTorch before 1.6; "" for other files."""
    stream.seek(0)
    if stream.read(len(LEGACY_MAGIC)) != LEGACY_MAGIC:
        return ""
    return (
        "the file is from PyTorch before 1.6; convert it with "
        "torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
    )


class _Archive:
    """Reads the entries of the archive.

    The entries of an intact archive do not overlap, so everything that is read is at
    most as large as the file; copies of tensors have a separate budget.

    Attributes:
        left_to_read: Number of bytes of entries that can still be read.
        left_to_copy: Number of bytes of tensors that can still be copied.
    """

    def __init__(self, archive: zipfile.ZipFile, size: int):
        self.archive = archive
        self.left_to_read = size
        self.left_to_copy = MAX_COPIES * size
        self._names = set(archive.namelist())
        self._storages: dict[str, tuple[PickledStorage, np.ndarray]] = {}
        found = [name for name in self._names if name.endswith("/data.pkl")]
        if len(found) != 1:
            raise InvalidTensorFile(f"the archive has {len(found)} entries data.pkl")
        self._folder = found[0].removesuffix("data.pkl")
        # Older files have no such entry and are little-endian.
        self._order = ">" if self._text("byteorder") == "big" else "<"

    def tensors(self) -> dict[str, np.ndarray]:
        """Returns the first dict of tensors in the saved object."""
        saved = read_description(self._bytes("data.pkl", MAX_PICKLE))
        named = _named_tensors(saved)
        return {name: self._array(tensor) for name, tensor in named.items()}

    def _array(self, tensor: PickledTensor) -> np.ndarray:
        """Returns the values of a tensor; a contiguous one is not copied."""
        view = tensor.view(self._elements(tensor.storage))
        if not view.flags.c_contiguous:
            self.left_to_copy -= view.nbytes
            if self.left_to_copy < 0:
                raise InvalidTensorFile("tensors are larger than their storages")
        # ascontiguousarray gives an array without axes one axis.
        return np.ascontiguousarray(view).reshape(tensor.size)

    def _elements(self, storage: PickledStorage) -> np.ndarray:
        """Returns the elements of a storage, (count)."""
        known = self._storages.get(storage.number)
        if known is None:
            known = self._storages[storage.number] = storage, self._read(storage)
        first, elements = known
        if (first.kind, first.count) != (storage.kind, storage.count):
            raise InvalidTensorFile(
                f"storage {storage.number} has two dtypes or two sizes"
            )
        return elements

    def _read(self, storage: PickledStorage) -> np.ndarray:
        dtype = np.dtype(self._order + DTYPES[storage.kind])
        size = storage.count * dtype.itemsize
        values = np.frombuffer(self._bytes(f"data/{storage.number}", size), dtype)
        if len(values) != storage.count:
            raise InvalidTensorFile(
                f"storage {storage.number} has {len(values)} of {storage.count} "
                "elements"
            )
        if storage.kind == "BFloat16Storage":
            return _bfloat16_to_float32(values)
        return values

    def _text(self, name: str) -> str:
        """Returns a short entry; "" if it does not exist."""
        if self._folder + name not in self._names:
            return ""
        return self._bytes(name, 64).decode("ascii")

    def _bytes(self, name: str, maximum: int) -> bytes:
        """Returns an entry; none is compressed, so its size is that in the file."""
        entry = self.archive.getinfo(self._folder + name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > maximum:
            raise InvalidTensorFile(
                f"entry {shown(name)} is compressed or too large "
                f"({entry.file_size:d} bytes)"
            )
        self.left_to_read -= entry.file_size
        if self.left_to_read < 0:
            raise InvalidTensorFile("entries of the archive overlap")
        return self.archive.read(entry)


def _bfloat16_to_float32(values: np.ndarray) -> np.ndarray:
    """Returns bfloat16 values, given as their 16 bits, as float32."""
    # A bfloat16 is the upper half of a float32.
    return (values.astype(np.uint32) << 16).view(np.float32)


def _named_tensors(saved: Any) -> dict[str, PickledTensor]:
    """Returns the first dict of tensors in the saved object."""
    for candidate in (saved, *(saved.values() if isinstance(saved, Mapping) else ())):
        if isinstance(candidate, Mapping):
            found = {
                str(k): v for k, v in candidate.items() if isinstance(v, PickledTensor)
            }
            if found:
                return found
    raise InvalidTensorFile(f"a {type(saved).__name__} without named tensors")
