"""Reads files of `torch.save`, without PyTorch and without running their code.

Such a file is a zip archive: `data.pkl` is a pickle that describes tensors as views of
numbered storages, and `data/<number>` contains the elements of a storage. The pickle is
read by `safe_load/torch_objects.py`.
"""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.safe_load.torch_objects import (
    DTYPES,
    MAX_PICKLE,
    InvalidTensorFile,
    load_tensors,
)

LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""First bytes of a file of PyTorch before 1.6, which is not an archive."""


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """Returns the named tensors of a file of `torch.save`.

    The file contains a dict of tensors, or a dict with such a dict as an entry, such as
    "state_dict".

    Raises:
        InvalidTensorFile: The file is not such an archive, or contains something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _named_tensors(_Archive(archive).load())
    except InvalidTensorFile:
        raise
    except Exception as e:  # a corrupted file can raise any exception
        raise InvalidTensorFile(_legacy_hint(path) or f"{type(e).__name__}: {e}") from e


def _legacy_hint(path: Path) -> str:
    """Returns how to convert a file of PyTorch before 1.6; "" for other files."""
    with path.open("rb") as stream:
        if stream.read(len(LEGACY_MAGIC)) != LEGACY_MAGIC:
            return ""
    return (
        "the file is from PyTorch before 1.6; convert it with "
        "torch.save(torch.load(FILE, weights_only=True), NEW_FILE)"
    )


@dataclasses.dataclass(frozen=True)
class _Archive:
    """Reads the entries of the archive."""

    archive: zipfile.ZipFile

    def load(self) -> Any:
        """Returns the saved object, with tensors as arrays."""
        (name,) = (n for n in self.archive.namelist() if n.endswith("/data.pkl"))
        folder = name.removesuffix("data.pkl")
        order = ">" if self._text(f"{folder}byteorder") == "big" else "<"
        stream = self._bytes(name, MAX_PICKLE)

        def storage(kind: str, number: str, count: int) -> np.ndarray:
            dtype = np.dtype(DTYPES[kind]).newbyteorder(order)
            size = count * dtype.itemsize
            values = np.frombuffer(self._bytes(f"{folder}data/{number}", size), dtype)
            if len(values) != count:
                raise InvalidTensorFile(
                    f"storage {number} has {len(values)} of {count} elements"
                )
            return _bfloat16_to_float32(values) if kind == "BFloat16Storage" else values

        return load_tensors(stream, storage)

    def _text(self, name: str) -> str:
        """Returns a short entry; "" if it does not exist."""
        if name not in self.archive.namelist():
            return ""
        return self._bytes(name, 64).decode("ascii")

    def _bytes(self, name: str, maximum: int) -> bytes:
        """Returns an entry; none is compressed, so its size is that in the file."""
        entry = self.archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > maximum:
            raise InvalidTensorFile(
                f"entry {name} is compressed or too large ({entry.file_size} bytes)"
            )
        return self.archive.read(entry)


def _bfloat16_to_float32(values: np.ndarray) -> np.ndarray:
    """Returns bfloat16 values, given as their 16 bits, as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _named_tensors(saved: Any) -> dict[str, np.ndarray]:
    """Returns the first dict of tensors in the saved object."""
    for candidate in (saved, *(saved.values() if isinstance(saved, Mapping) else ())):
        if isinstance(candidate, Mapping):
            found = {
                str(k): v for k, v in candidate.items() if isinstance(v, np.ndarray)
            }
            if found:
                return found
    raise InvalidTensorFile(f"a {type(saved).__name__} without named tensors")
