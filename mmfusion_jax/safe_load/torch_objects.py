"""Reads the description of tensors in a PyTorch file, without PyTorch.

The tensors in such a file are described by a pickle, `data.pkl`, as views of numbered
storages. It runs in the same interpreter, and with the same budget, as every other
pickle; the names it may use are those that `torch.save` writes for tensors, which
create inert objects. The elements are not in the pickle, and are read later.
"""

import dataclasses
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from mmfusion_jax.safe_load.pickle_arrays import PickleMaterializer
from mmfusion_jax.safe_load.pickle_objects import (
    CONSTRUCTORS,
    PickledName,
    PickledPairs,
    invalid_object,
    not_callable,
    short_string,
)
from mmfusion_jax.safe_load.pickle_opcodes import HANDLERS
from mmfusion_jax.safe_load.pickle_vm import PickleVM
from mmfusion_jax.safe_load.safe_pickle import as_rejection

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

MAX_PICKLE = 1 << 22
"""Maximum size of data.pkl in bytes; that of BERT has about 30,000."""

_MAX_AXES = 64


class InvalidTensorFile(Exception):
    """The file is corrupted, or contains something other than named tensors."""


@dataclasses.dataclass(slots=True, eq=False)
class PickledStorage:
    """Consecutive elements in another entry of the file.

    Attributes:
        kind: Key of `DTYPES`.
        number: Name of the entry.
        count: Number of elements.
    """

    kind: str
    number: str
    count: int


@dataclasses.dataclass(slots=True, eq=False)
class PickledTensor:
    """A tensor: a view of a storage, within its bounds.

    Attributes:
        storage: The storage.
        offset: Index of the first element.
        size: Its shape.
        stride: Number of elements between neighbors, for each axis.
    """

    storage: PickledStorage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def view(self, elements: np.ndarray) -> np.ndarray:
        """Returns the tensor as a view of the elements of its storage, (count)."""
        if 0 in self.size:
            return np.empty(self.size, elements.dtype)
        strides = [step * elements.itemsize for step in self.stride]
        start = elements[self.offset :]
        # as_strided checks nothing: `_tensor` has made sure that every element is
        # within the storage. Not writable, because elements of a view may overlap.
        return np.lib.stride_tricks.as_strided(
            start, self.size, strides, writeable=False
        )


def _storage(pid: Any) -> PickledStorage:
    """Returns the storage with id ("storage", kind, number, device, count)."""
    if type(pid) is not tuple or len(pid) != 5:
        raise invalid_object("invalid storage")
    tag, kind, number, _, count = pid
    is_kind = isinstance(kind, PickledName) and kind.name in DTYPES
    if not is_kind or short_string(tag) != "storage" or not _is_size(count):
        raise invalid_object("invalid storage")
    return PickledStorage(kind.name, short_string(number), count)


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_: Any
) -> PickledTensor:
    """Replaces torch._utils._rebuild_tensor_v2."""
    if not isinstance(storage, PickledStorage) or not _is_size(offset):
        raise invalid_object("tensor without a storage and an offset")
    for axes in (size, stride):
        # At most one more than allowed is examined: the file can refer to one huge
        # tuple many times.
        if type(axes) is not tuple or not all(map(_is_size, axes[: _MAX_AXES + 1])):
            raise invalid_object("tensor size and stride must be integers below 2^60")
    if len(size) != len(stride) or len(size) > _MAX_AXES:
        raise invalid_object("tensor size and stride do not match")
    # NumPy multiplies sizes in 64 bits, and refuses an overflow even if one size is 0.
    if 8 * math.prod(max(n, 1) for n in size) >= 1 << 63:
        raise invalid_object("tensor is too large")
    # Strides are not negative, so the element with the highest indices is the last one.
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.count:
        raise invalid_object("tensor is out of bounds")
    return PickledTensor(storage, offset, size, stride)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 60


def _parameter(tensor: Any, *_: Any) -> PickledTensor:
    """Replaces torch._utils._rebuild_parameter."""
    if not isinstance(tensor, PickledTensor):
        raise invalid_object("parameter is not a tensor")
    return tensor


def _persistent_id(vm: PickleVM) -> None:
    vm.push(_storage(vm.pop()))


def _discard_state(vm: PickleVM) -> None:
    """Discards the attributes of an OrderedDict, the only object that has a state."""
    vm.pop()
    if not vm.stack or not isinstance(vm.stack[-1], PickledPairs):
        raise invalid_object("unsupported object state")


TORCH_CONSTRUCTORS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": CONSTRUCTORS["collections.OrderedDict"],
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    **{f"torch.{kind}": not_callable for kind in DTYPES},
}
"""Names that tensors need -> function that creates the inert object."""

TORCH_HANDLERS = {**HANDLERS, ord("Q"): _persistent_id, ord("b"): _discard_state}
"""Byte of an opcode -> function that runs it: also BINPERSID, and another BUILD."""


class _TensorMaterializer(PickleMaterializer):
    """Leaves tensors as they are."""

    def _make(self, obj: Any, depth: int) -> Any:
        return obj if isinstance(obj, PickledTensor) else super()._make(obj, depth)


def read_description(stream: bytes) -> Any:
    """Returns the objects in data.pkl: plain values, and a `PickledTensor` per tensor.

    Args:
        stream: Content of data.pkl.

    Raises:
        InvalidTensorFile: The pickle is corrupted, or contains something other than
            tensors and plain values.
    """
    vm = PickleVM(io.BytesIO(stream), len(stream), TORCH_CONSTRUCTORS)
    running = True
    try:
        root = vm.run(TORCH_HANDLERS)
        running = False
        vm.memo.clear()
        return _TensorMaterializer("utf-8", len(stream)).value(root)
    except Exception as error:
        reason = as_rejection(error).reason
        where = f"data.pkl byte {vm.start:d}" if running else "data.pkl"
        raise InvalidTensorFile(f"{where}: {reason}") from error
