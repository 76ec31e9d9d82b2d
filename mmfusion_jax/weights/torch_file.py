"""Reading what `torch.save` wrote, without PyTorch and without running anything.

Such a file is a zip archive: `data.pkl` describes tensors by the numbers of their
storages, and `data/<number>` holds the plain bytes of each. The description is a
pickle, which could name any function; here the few names that tensors need lead to
inert stand-ins of our own, and every other name is refused.
"""

import dataclasses
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DTYPES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
}
REFUSED = frozenset(
    {"EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
    | {"PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}
)
OLD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""How files of PyTorch before 1.6 begin: no archive, and a number of their own."""

LONGEST = 1 << 26
"""Bytes of the description that are read at most; BERT's has about 30,000."""


class NotTensors(Exception):
    """The file is damaged, or holds something other than named tensors."""


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
    except NotTensors:
        raise
    except Exception as e:  # whatever a damaged file makes the readers stumble over
        raise NotTensors(_how_old(path) or f"{type(e).__name__}: {e}") from e


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
        _scan(stream)

        def storage(kind: str, number: str, count: int) -> np.ndarray:
            dtype = np.dtype(DTYPES[kind]).newbyteorder(order)
            size = count * dtype.itemsize
            values = np.frombuffer(self._bytes(f"{folder}data/{number}", size), dtype)
            if len(values) != count:
                raise NotTensors(
                    f"storage {number} has {len(values)} of {count} numbers"
                )
            return _widened(values) if kind == "BFloat16Storage" else values

        return _Description(io.BytesIO(stream), storage).load()

    def _text(self, name: str) -> str:
        """A short entry; "" where there is none."""
        if name not in self.archive.namelist():
            return ""
        return self._bytes(name, 64).decode("ascii")

    def _bytes(self, name: str, longest: int) -> bytes:
        """An entry as it is; entries are never compressed, so none can swell."""
        entry = self.archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > longest:
            raise NotTensors(f"the entry {name} has {entry.file_size} bytes")
        return self.archive.read(entry)


@dataclasses.dataclass(frozen=True)
class _StorageKind:
    """Stands for a class of storages, such as torch.FloatStorage."""

    name: str


class _Names(dict):
    """Stands for OrderedDict; what PyTorch attaches to it beside its items is lost."""

    def __setstate__(self, state: Any) -> None:
        del state


class _Description(pickle.Unpickler):
    """Reads the description, with stand-ins for every name it may use."""

    def __init__(self, stream: io.BytesIO, storage: Callable[..., np.ndarray]):
        super().__init__(stream)
        self.storage = storage

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch" and name in DTYPES:
            return _StorageKind(name)
        if (module, name) not in STAND_INS:
            raise NotTensors(f"{module}.{name} is no tensor")
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage that ("storage", kind, number, device, count) names."""
        word, kind, number, _, count = pid
        if word != "storage" or not isinstance(kind, _StorageKind):
            raise NotTensors(f"{word!r} is no storage")
        return self.storage(kind.name, str(number), int(count))


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Stands for torch._utils._rebuild_tensor_v2: a view of a storage."""
    if not isinstance(storage, np.ndarray) or min((offset, *size, *stride)) < 0:
        raise NotTensors(f"a tensor of size {size}, stride {stride}")
    steps = [(n - 1) * s for n, s in zip(size, stride, strict=True)]
    if 0 in size:
        return np.empty(size, storage.dtype)
    if offset + sum(steps) >= len(storage):
        raise NotTensors(f"a tensor of size {size} reaches beyond its storage")
    strides = [s * storage.itemsize for s in stride]
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, strides)
    return np.ascontiguousarray(view).reshape(size)


def _parameter(tensor: Any, *_: Any) -> Any:
    """Stands for torch._utils._rebuild_parameter."""
    return tensor


STAND_INS = {
    ("collections", "OrderedDict"): _Names,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


def _scan(stream: bytes) -> None:
    """Refuses, before anything is built, what no description of tensors contains."""
    end = -1
    for opcode, argument, place in pickletools.genops(stream):
        end = place or 0
        beyond = opcode.name.endswith("PUT") and int(argument or 0) > len(stream)
        if opcode.name in REFUSED or beyond:
            raise NotTensors(f"{opcode.name} at byte {place} of the description")
    if end + 1 != len(stream):
        raise NotTensors("the description goes on after its end")


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
    raise NotTensors(f"a {type(held).__name__} without named tensors")
