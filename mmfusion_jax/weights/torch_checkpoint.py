"""Reading what `torch.save` wrote, without PyTorch and without running anything.

Such a file is a zip archive: `data.pkl` describes tensors by the numbers of their
storages, and `data/<number>` holds the plain bytes of each. The description is a
pickle, which could name any function; here the few names that tensors need lead to
inert stand-ins of our own, and every other name is refused.
"""

import dataclasses
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.safe_load.torch_objects import (
    DTYPES,
    LONGEST,
    InvalidTensorFile,
    load_description,
)

OLD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How files of PyTorch before 1.6 begin: no archive, and a number of their own."""


def read_torch(path: Path) -> dict[str, np.ndarray]:
    """The named tensors of a file that `torch.save` wrote.

    What the file holds may be the tensors themselves, or a dictionary in which one
    entry, such as "state_dict", holds them.

    Raises:
        NotTensors: the file is no such archive, or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _named(_Archive(archive).describe())
    except InvalidTensorFile:
        raise
    except Exception as e:  # whatever a damaged file makes the readers stumble over
        raise InvalidTensorFile(_how_old(path) or f"{type(e).__name__}: {e}") from e


def _how_old(path: Path) -> str:
    """What to say of a file of PyTorch before 1.6; "" for other files."""
    with path.open("rb") as stream:
        if stream.read(len(OLD)) != OLD:
            return ""
    return (
        "PyTorch before 1.6 wrote it; torch.save(torch.load(FILE, weights_only=True), "
        "NEW_FILE) writes one that can be read"
    )


@dataclasses.dataclass(frozen=True)
class _Archive:
    """The two kinds of entries of the archive."""

    archive: zipfile.ZipFile

    def describe(self) -> Any:
        """What the description describes, tensors as arrays."""
        (name,) = (n for n in self.archive.namelist() if n.endswith("/data.pkl"))
        folder = name.removesuffix("data.pkl")
        order = ">" if self._text(f"{folder}byteorder") == "big" else "<"
        stream = self._bytes(name, LONGEST)

        def storage(kind: str, number: str, count: int) -> np.ndarray:
            dtype = np.dtype(DTYPES[kind]).newbyteorder(order)
            size = count * dtype.itemsize
            values = np.frombuffer(self._bytes(f"{folder}data/{number}", size), dtype)
            if len(values) != count:
                raise InvalidTensorFile(
                    f"storage {number} has {len(values)} of {count} numbers"
                )
            return _widened(values) if kind == "BFloat16Storage" else values

        return load_description(stream, storage)

    def _text(self, name: str) -> str:
        """A short entry; "" where there is none."""
        if name not in self.archive.namelist():
            return ""
        return self._bytes(name, 64).decode("ascii")

    def _bytes(self, name: str, longest: int) -> bytes:
        """An entry as it is; entries are never compressed, so none can swell."""
        entry = self.archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > longest:
            raise InvalidTensorFile(f"the entry {name} has {entry.file_size} bytes")
        return self.archive.read(entry)


def _widened(values: np.ndarray) -> np.ndarray:
    """bfloat16, given as its 16 bits, as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _named(held: Any) -> dict[str, np.ndarray]:
    """The dictionary of tensors in what the file holds."""
    for candidate in (held, *(held.values() if isinstance(held, Mapping) else ())):
        if isinstance(candidate, Mapping):
            found = {
                str(k): v for k, v in candidate.items() if isinstance(v, np.ndarray)
            }
            if found:
                return found
    raise InvalidTensorFile(f"a {type(held).__name__} without named tensors")
