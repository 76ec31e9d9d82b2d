"""From stubs to values: the one place where arrays are made of a file's bytes."""

import codecs
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from mmfusion_jax.safe_load.pickle_objects import (
    PickledArray,
    PickledBytes,
    PickledDtype,
    PickledItems,
    PickledPairs,
    PickledText,
    RejectedPickle,
    contradiction,
)

DEPTH = 64
_PIECE = 1 << 20
_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})")
_PLAIN = (int, float, bool, type(None))
_KEYS = (str, bytes, int, float, bool, type(None))


class PickleMaterializer:
    """Turns stubs into values; what the file shares stays shared.

    A value costs one instruction of the file at least, and an array its own bytes. So
    the work is a small multiple of the file's size, and a file that names one part
    often, to have it made each time, comes to an end.

    Attributes:
        encoding: how a string of Python 2 is read: a codec, or "bytes".
        left: values and bytes that may still be made.
        position: in the file, of the array at work.
    """

    def __init__(self, encoding: str, size: int):
        self.encoding = encoding
        self.left = 1024 + 8 * size
        self.position: int | None = None
        self._made: dict[int, Any] = {}
        self._kept: list[Any] = []  # so that no id is used twice
        self._open: set[int] = set()

    def value(self, stub: Any, depth: int = 0) -> Any:
        """The value that a stub stands for.

        Raises:
            Refusal: it contradicts itself, contains itself or nests too deeply.
        """
        if type(stub) in _PLAIN:
            return stub
        key = id(stub)
        if key in self._made:
            return self._made[key]
        if key in self._open or depth > DEPTH:
            inside = "contains itself" if key in self._open else f"nests over {DEPTH}"
            raise RejectedPickle("D64", f"a list or dict {inside}", "save it as npz")
        self._open.add(key)
        made = self._make(stub, depth + 1)
        self._open.remove(key)
        self._made[key] = made
        self._kept.append(stub)
        return made

    def _make(self, stub: Any, depth: int) -> Any:
        match stub:
            case PickledText():
                return stub.decode()
            case PickledBytes():
                return self._string(stub)
            case PickledArray():
                return self._array(stub, depth)
            case PickledPairs():
                return self._dict(stub, depth)
            case PickledItems():
                kind = frozenset if stub.frozen else set
                return kind(self._key(x) for x in self._all(stub.items, depth))
            case list() | tuple():
                return type(stub)(self._all(stub, depth))
        raise contradiction(f"a {type(stub).__name__} stands where a value should")

    def _spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise RejectedPickle(
                "D64", "the same parts are used over and over", "save it as npz"
            )

    def _all(self, stubs: Iterable[Any], depth: int) -> Iterable[Any]:
        for stub in stubs:
            self._spend(1)
            yield self.value(stub, depth)

    def _string(self, stub: PickledBytes) -> str | bytes:
        if not stub.old or self.encoding == "bytes":
            return bytes(self._bare(stub))
        return stub.raw.decode(self.encoding)

    def _bare(self, stub: PickledBytes) -> bytearray | bytes:
        """The bytes themselves, on which an array may lie."""
        self._spend(len(stub.raw))
        return _unhide(stub.raw) if stub.hidden else stub.raw

    def _dict(self, stub: PickledPairs, depth: int) -> dict[Any, Any]:
        made = {}
        for pair in stub.first:
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise contradiction("a dict is not made of pairs")
            key, value = self._all(pair, depth)
            made[self._name(key)] = value
        values = self._all(stub.values, depth)
        for key, value in zip(self._all(stub.keys, depth), values, strict=True):
            made[self._name(key)] = value
        return made

    def _name(self, key: Any) -> Any:
        """A key; in a file that is read as bytes, its names are text all the same."""
        if type(key) is bytes and self.encoding == "bytes":
            return key.decode("latin1")
        return self._key(key)

    def _key(self, key: Any) -> Any:
        """Refuses keys that are slow to hash, or made to collide."""
        parts = key if type(key) is tuple else (key,)
        self._spend(len(parts) - 1 if parts else 0)
        for part in parts:
            wide = type(part) is int and part.bit_length() > 64
            if type(part) not in _KEYS or wide:
                raise RejectedPickle(
                    "D64",
                    f"a key or an item of a set is a {type(part).__name__}"
                    f"{' of more than 64 bits' if wide else ''}",
                    "save it as npz",
                )
        return key

    def _array(self, stub: PickledArray, depth: int) -> Any:
        outer, self.position = self.position, stub.position
        if stub.state is None:
            raise contradiction("an array has no content")
        shape, dtype, order, content = stub.state
        if type(shape) is not tuple or len(shape) > 8:
            raise contradiction("the shape of an array is no tuple of up to 8 sizes")
        if any(type(size) is not int or size < 0 for size in shape):
            raise contradiction("the shape of an array is no tuple of sizes")
        if dtype.code in ("O", "O8", "|O"):
            flat = self._objects(content, math.prod(shape), depth)
        else:
            flat = self._numbers(content, math.prod(shape), _numpy_type(dtype))
        self.position = outer
        if stub.scalar:
            return flat.reshape(()).item()
        made = flat.reshape(shape, order="F" if order == "F" else "C")
        return made if stub.axes is None else made.transpose(_axes(stub.axes, shape))

    def _objects(self, content: Any, count: int, depth: int) -> np.ndarray:
        if type(content) is not list or len(content) != count:
            raise contradiction("an array of objects wants a list of them")
        flat = np.empty(count, object)
        for index, value in enumerate(self._all(content, depth)):
            flat[index] = value
        return flat

    def _numbers(self, content: Any, count: int, dtype: np.dtype) -> np.ndarray:
        if not isinstance(content, PickledBytes):
            raise contradiction(f"an array of {dtype} wants bytes")
        raw = self._bare(content)
        if len(raw) != count * dtype.itemsize:
            raise contradiction(
                f"an array of {count} {dtype} wants {count * dtype.itemsize} bytes, "
                f"but has {len(raw)}"
            )
        native = dtype.newbyteorder("=")
        if not raw:
            if count > 1:
                raise contradiction("an array has values of no bytes")
            return np.zeros(count, native)
        flat = np.frombuffer(raw, dtype)
        _check_values(flat)
        return flat.astype(native, copy=False)


def _unhide(raw: bytearray | bytes) -> bytearray:
    """The bytes hidden in text; piece by piece, so that memory holds one piece."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    bare = bytearray()
    for start in range(0, len(raw), _PIECE):
        piece = raw[start : start + _PIECE]
        bare += decoder.decode(piece, start + _PIECE >= len(raw)).encode("latin1")
    return bare


def _numpy_type(stub: PickledDtype) -> np.dtype:
    if not _CODE.fullmatch(stub.code):
        raise contradiction(f"arrays of type {stub.code[:40]!r} are not read")
    dtype = np.dtype(stub.code)
    return dtype.newbyteorder(stub.order) if stub.order in ("<", ">") else dtype


def _axes(axes: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    if type(axes) is not tuple or sorted(axes) != list(range(len(shape))):
        raise contradiction("the axes of an array are not those it has")
    return axes


def _check_values(flat: np.ndarray) -> None:
    """Refuses bit patterns that NumPy takes for granted never to meet."""
    if flat.dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise contradiction("a truth value is neither 0 nor 1")
    points = flat.view(flat.dtype.str[0] + "u4") if flat.dtype.kind == "U" else None
    if points is not None and points.max() > 0x10FFFF:
        raise contradiction("a text holds a character that does not exist")
