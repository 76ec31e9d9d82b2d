"""Turns the inert objects of a pickle into Python values and NumPy arrays."""

import codecs
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import numpy as np

from mmfusion_jax.errors import shown
from mmfusion_jax.safe_load.pickle_objects import (
    PickledArray,
    PickledBytes,
    PickledDtype,
    PickledItems,
    PickledPairs,
    PickledText,
    RejectedPickle,
    invalid_object,
)

MAX_DEPTH = 64
_PIECE = 1 << 20
_CODE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248]|c8|c16|[SU]\d{1,6})")
_PLAIN = (int, float, bool, type(None))
_KEYS = (str, bytes, int, float, bool, type(None))
_MAX_EQUAL_HASHES = 32
_MAX_NUMBER_KEYS = 1 << 17


class PickleMaterializer:
    """Turns inert objects into values; objects that the file shares stay shared.

    The interpreter is linear in the size of the file, but what it leaves can be larger
    than memory once it is made: a few bytes of a file refer to an object again, and a
    list of 100,000 elements that becomes a set 50,000 times costs as much as 50,000
    lists. So everything that is created or copied is paid from a budget. In a plain
    file, a value takes at least one opcode, and an array its bytes, so the values and
    bytes to create are a small multiple of the size of the file. A file that exceeds
    it creates one object many times, and is rejected.

    Attributes:
        encoding: Encoding of Python 2 strings: a codec, or "bytes".
        left: Number of values and bytes that can still be created.
        position: Position in the file of the current array.
    """

    def __init__(self, encoding: str, size: int):
        self.encoding = encoding
        self.left = 1024 + 8 * size
        self.position: int | None = None
        self._made: dict[int, Any] = {}
        self._kept: list[Any] = []  # keeps their ids unique
        self._open: set[int] = set()

    def value(self, obj: Any, depth: int = 0) -> Any:
        """Returns the value of an inert object.

        Raises:
            RejectedPickle: It is inconsistent, contains itself or is nested too deeply.
        """
        if type(obj) in _PLAIN:
            return obj
        # Objects are compared by identity: comparing their values could take forever.
        key = id(obj)
        if key in self._made:
            return self._made[key]
        if key in self._open or depth > MAX_DEPTH:
            what = "contains itself"
            if key not in self._open:
                what = f"is nested more than {MAX_DEPTH} levels deep"
            raise RejectedPickle("D64", f"a list or dict {what}", "save it as npz")
        self._open.add(key)
        made = self._make(obj, depth + 1)
        self._open.remove(key)
        # Only a complete object is remembered, so one that contains itself is found
        # open.
        self._made[key] = made
        self._kept.append(obj)
        return made

    def _make(self, obj: Any, depth: int) -> Any:
        match obj:
            case PickledText():
                return obj.decode()
            case PickledBytes():
                return self._string(obj)
            case PickledArray():
                return self._array(obj, depth)
            case PickledPairs():
                return self._dict(obj, depth)
            case PickledItems():
                return self._set(obj, depth)
            case list() | tuple():
                return type(obj)(self._all(obj, depth))
        raise invalid_object(f"{type(obj).__name__} is not a value")

    def _spend(self, cost: int) -> None:
        self.left -= cost
        if self.left < 0:
            raise RejectedPickle(
                "D64", "objects are reused too often", "save it as npz"
            )

    def _all(self, objects: Iterable[Any], depth: int) -> Iterator[Any]:
        for obj in objects:
            self._spend(1)
            yield self.value(obj, depth)

    def _string(self, obj: PickledBytes) -> str | bytes:
        if not obj.old or self.encoding == "bytes":
            return bytes(self._bare(obj))
        return obj.raw.decode(self.encoding)

    def _bare(self, obj: PickledBytes) -> bytearray | bytes:
        """Returns the bytes, which an array can share."""
        self._spend(len(obj.raw))
        return _decode_hidden(obj.raw) if obj.hidden else obj.raw

    def _dict(self, obj: PickledPairs, depth: int) -> dict[Any, Any]:
        made = {}
        keys = _KeyChecker(made, self._spend)
        # Keys are hashed here and not while the pickle runs, after they are checked.
        for pair in obj.first or ():
            if type(pair) not in (list, tuple) or len(pair) != 2:
                raise invalid_object("dict items are not pairs")
            key, value = self._all(pair, depth)
            made[keys.checked(self._name(key))] = value
        added = self._all(obj.added or (), depth)
        for key, value in zip(added, added, strict=True):  # key, value, key, value
            made[keys.checked(self._name(key))] = value
        return made

    def _name(self, key: Any) -> Any:
        """Returns a key; Python 2 keys are strings even if others are read as bytes."""
        if type(key) is bytes and self.encoding == "bytes":
            return key.decode("latin1")
        return key

    def _set(self, obj: PickledItems, depth: int) -> set[Any] | frozenset[Any]:
        made = set()
        keys = _KeyChecker(made, self._spend)
        for item in self._all(obj.items, depth):
            made.add(keys.checked(item))
        return frozenset(made) if obj.frozen else made

    def _array(self, obj: PickledArray, depth: int) -> Any:
        outer, self.position = self.position, obj.position
        if obj.state is None:
            raise invalid_object("array without content")
        shape, dtype, order, content = obj.state
        if type(shape) is not tuple or len(shape) > 8:
            raise invalid_object("array shape must be a tuple of at most 8 sizes")
        if not all(type(size) is int and 0 <= size < 1 << 63 for size in shape):
            raise invalid_object("array shape must be non-negative 64-bit integers")
        if dtype.code in ("O", "O8", "|O"):
            flat = self._objects(content, math.prod(shape), depth)
        else:
            flat = self._numbers(content, math.prod(shape), _numpy_type(dtype))
        self.position = outer
        if obj.scalar:
            return flat.reshape(()).item()
        made = flat.reshape(shape, order="F" if order == "F" else "C")
        return made if obj.axes is None else made.transpose(_axes(obj.axes, shape))

    def _objects(self, content: Any, count: int, depth: int) -> np.ndarray:
        if type(content) is not list or len(content) != count:
            raise invalid_object("object array requires a list with all its elements")
        flat = np.empty(count, object)
        for index, value in enumerate(self._all(content, depth)):
            flat[index] = value
        return flat

    def _numbers(self, content: Any, count: int, dtype: np.dtype) -> np.ndarray:
        if not isinstance(content, PickledBytes):
            raise invalid_object(f"array of {dtype.name} requires bytes")
        raw = self._bare(content)
        if len(raw) != count * dtype.itemsize:
            raise invalid_object(
                f"array of {count} {dtype.name} requires {count * dtype.itemsize:d} "
                f"bytes, but has {len(raw)}"
            )
        native = dtype.newbyteorder("=")
        # Elements of 0 bytes, such as "S0": their number costs no bytes of the file, so
        # it could be any.
        if not raw:
            if count > 1:
                raise invalid_object("array elements must have at least 1 byte")
            return np.zeros(count, native)
        # Shares the buffer of the file's bytes. Their number and the dtype are checked
        # above, so NumPy never reads beyond it.
        flat = np.frombuffer(raw, dtype)
        _check_values(flat)
        return flat.astype(native, copy=False)


class _KeyChecker:
    """Checks the keys of a dict, or the items of a set, before they are inserted.

    Python chooses the hashes of strings and bytes at random, but those of numbers
    follow from their values, so a file can choose numbers, and tuples of them, that all
    have the same hash; then each insertion compares a key with all others. A plain file
    has a few such keys at most. The number of keys other than strings is limited, too,
    because numbers of different hashes can be chosen to collide in one table.
    """

    def __init__(self, made: Collection[Any], spend: Callable[[int], None]):
        self.made = made
        self.spend = spend
        self.hashes: dict[int, int] = {}
        self.count = 0

    def checked(self, key: Any) -> Any:
        """Returns the key.

        Raises:
            RejectedPickle: It is slow to hash, or one of many with the same hash.
        """
        if type(key) in (str, bytes):
            return key
        parts = key if type(key) is tuple else (key,)
        self.spend(len(parts) - 1 if parts else 0)
        for part in parts:
            wide = type(part) is int and part.bit_length() > 64
            if type(part) not in _KEYS or wide:
                raise _unsupported_key(
                    f"unsupported dict key or set item: {type(part).__name__}"
                    f"{' of more than 64 bits' if wide else ''}",
                )
        # Equal keys replace each other and cause no collision.
        if key not in self.made:
            self._count(hash(key))
        return key

    def _count(self, found: int) -> None:
        equal = self.hashes.get(found, 0) + 1
        if equal > _MAX_EQUAL_HASHES:
            raise _unsupported_key("too many dict keys or set items have one hash")
        self.hashes[found] = equal
        self.count += 1
        if self.count > _MAX_NUMBER_KEYS:
            raise _unsupported_key(
                f"dict or set of more than {_MAX_NUMBER_KEYS} keys that are not strings"
            )


def _unsupported_key(reason: str) -> RejectedPickle:
    return RejectedPickle("D64", reason, "save it as npz")


def _decode_hidden(raw: bytearray | bytes) -> bytearray:
    """Returns bytes written as a string; in pieces, which bounds the memory."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    bare = bytearray()
    for start in range(0, len(raw), _PIECE):
        piece = raw[start : start + _PIECE]
        bare += decoder.decode(piece, start + _PIECE >= len(raw)).encode("latin1")
    return bare


def _numpy_type(obj: PickledDtype) -> np.dtype:
    if not _CODE.fullmatch(obj.code):
        raise invalid_object(f"unsupported dtype {shown(obj.code)}")
    dtype = np.dtype(obj.code)
    return dtype.newbyteorder(obj.order) if obj.order in ("<", ">") else dtype


def _axes(axes: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    # Other objects are not compared: comparing nested tuples can take forever.
    plain = type(axes) is tuple and all(type(axis) is int for axis in axes)
    if not plain or sorted(axes) != list(range(len(shape))):
        raise invalid_object("array axes do not match its shape")
    return axes


def _check_values(flat: np.ndarray) -> None:
    """Rejects bit patterns that NumPy assumes to be impossible."""
    if flat.dtype.kind == "b" and flat.view(np.uint8).max() > 1:
        raise invalid_object("boolean must be 0 or 1")
    points = flat.view(flat.dtype.str[0] + "u4") if flat.dtype.kind == "U" else None
    if points is not None and points.max() > 0x10FFFF:
        raise invalid_object("string contains an invalid code point")
