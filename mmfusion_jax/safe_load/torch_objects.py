"""The objects of a PyTorch file, read without PyTorch and without running anything.

The description in such a file is a pickle, which could name any function. The few names
that tensors need are mapped to inert replacements; every other name is rejected.
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

LONGEST = 1 << 26
"""Bytes of the description that are read at most; BERT's has about 30,000."""


class InvalidTensorFile(Exception):
    """The file is damaged, or holds something other than named tensors."""


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
            raise InvalidTensorFile(f"{module}.{name} is no tensor")
        return STAND_INS[module, name]

    def persistent_load(self, pid: Any) -> np.ndarray:
        """The storage that ("storage", kind, number, device, count) names."""
        word, kind, number, _, count = pid
        if word != "storage" or not isinstance(kind, _StorageKind):
            raise InvalidTensorFile(f"{word!r} is no storage")
        return self.storage(kind.name, str(number), int(count))


def _tensor(
    storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Stands for torch._utils._rebuild_tensor_v2: a view of a storage."""
    if not isinstance(storage, np.ndarray) or min((offset, *size, *stride)) < 0:
        raise InvalidTensorFile(f"a tensor of size {size}, stride {stride}")
    steps = [(n - 1) * s for n, s in zip(size, stride, strict=True)]
    if 0 in size:
        return np.empty(size, storage.dtype)
    if offset + sum(steps) >= len(storage):
        raise InvalidTensorFile(f"a tensor of size {size} reaches beyond its storage")
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
        if opcode.name in REJECTED_OPCODES or beyond:
            raise InvalidTensorFile(f"{opcode.name} at byte {place} of the description")
    if end + 1 != len(stream):
        raise InvalidTensorFile("the description goes on after its end")


def load_description(
    stream: bytes, storage: Callable[[str, str, int], np.ndarray]
) -> Any:
    """The objects that a description holds, tensors as arrays.

    Args:
        stream: The pickle.
        storage: Maps the kind, the number and the element count of a storage to its
            elements, (count).

    Raises:
        NotTensors: The description is damaged or holds something else.
    """
    _scan(stream)
    return _Description(io.BytesIO(stream), storage).load()
