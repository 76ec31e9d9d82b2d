"""Reads the objects of a PyTorch file, without PyTorch and without running its code.

The tensors in such a file are described by a pickle, `data.pkl`, which could name any
function. The few names that tensors need are mapped to inert replacements; every other
name is rejected.
"""

import dataclasses
import io
import pickle
import pickletools
from collections.abc import Callable
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

REJECTED_OPCODES = frozenset(
    {"EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"}
    | {"PERSID", "NEXT_BUFFER", "READONLY_BUFFER"}
)

MAX_PICKLE = 1 << 26
"""Maximum size of data.pkl in bytes; that of BERT has about 30,000."""


class InvalidTensorFile(Exception):
    """The file is corrupted, or contains something other than named tensors."""


@dataclasses.dataclass(frozen=True)
class _StorageKind:
    """Replaces a storage class, such as torch.FloatStorage."""

    name: str


class _OrderedDict(dict):
    """Replaces OrderedDict, without the attributes that PyTorch adds to it."""

    def __setstate__(self, state: Any) -> None:
        del state


class _TensorUnpickler(pickle.Unpickler):
    """Reads data.pkl with a replacement for every name that it may use."""

    def __init__(self, stream: io.BytesIO, storage: Callable[..., np.ndarray]):
        super().__init__(stream)
        self.storage = storage

    def find_class(self, module: str, name: str, /) -> Any:
        if module == "torch" and name in DTYPES:
            return _StorageKind(name)
        if (module, name) not in REPLACEMENTS:
            raise InvalidTensorFile(f"unsupported type {module}.{name}")
        return REPLACEMENTS[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """Returns the storage with id ("storage", kind, number, device, count)."""
        tag, kind, number, _, count = pid
        if tag != "storage" or not isinstance(kind, _StorageKind):
            raise InvalidTensorFile(f"unsupported storage {tag!r}")
        return self.storage(kind.name, str(number), int(count))


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Replaces torch._utils._rebuild_tensor_v2; returns a view of a storage."""
    if not isinstance(storage, np.ndarray) or min((offset, *size, *stride)) < 0:
        raise InvalidTensorFile(f"invalid tensor of size {size}, stride {stride}")
    steps = [(n - 1) * s for n, s in zip(size, stride, strict=True)]
    if 0 in size:
        return np.empty(size, storage.dtype)
    if offset + sum(steps) >= len(storage):
        raise InvalidTensorFile(f"tensor of size {size} is out of bounds")
    strides = [s * storage.itemsize for s in stride]
    view = np.lib.stride_tricks.as_strided(storage[offset:], size, strides)
    return np.ascontiguousarray(view).reshape(size)


def _parameter(tensor: Any, *_: Any) -> Any:
    """Replaces torch._utils._rebuild_parameter."""
    return tensor


REPLACEMENTS = {
    ("collections", "OrderedDict"): _OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


def _check_opcodes(stream: bytes) -> None:
    """Rejects opcodes that tensors do not need, before any of them runs."""
    end = -1
    for opcode, argument, position in pickletools.genops(stream):
        end = position or 0
        too_large = opcode.name.endswith("PUT") and int(argument or 0) > len(stream)
        if opcode.name in REJECTED_OPCODES or too_large:
            raise InvalidTensorFile(
                f"unsupported {opcode.name} at byte {position} of data.pkl"
            )
    if end + 1 != len(stream):
        raise InvalidTensorFile("trailing data in data.pkl")


def load_tensors(stream: bytes, storage: Callable[[str, str, int], np.ndarray]) -> Any:
    """Returns the objects in data.pkl, with tensors as arrays.

    Args:
        stream: Content of data.pkl.
        storage: Maps the kind, the number and the element count of a storage to its
            elements, (count).

    Raises:
        InvalidTensorFile: The pickle is corrupted, or contains something other than
            tensors and plain values.
    """
    _check_opcodes(stream)
    return _TensorUnpickler(io.BytesIO(stream), storage).load()
