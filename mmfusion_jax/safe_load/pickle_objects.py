"""Inert objects that replace the objects of a pickle.

A pickle contains names of functions and classes, and their arguments. None of these
names is ever looked up in Python: the few that plain data needs are keys of
`CONSTRUCTORS`, and create objects of this module, which only store their arguments.

A file of 90 bytes can hold a tuple that is printed as gigabytes, because every level
contains the level below twice. So messages show the type of a value, or a name whose
length is limited, and never a value.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mmfusion_jax.errors import shorten, shown


class RejectedPickle(Exception):
    """A pickle that is not read; `RejectedPickleFile` adds the path.

    Attributes:
        code: Error code, a key of `error_codes.ERROR_CODES`.
        reason: Cause, in a few words.
        fix: Remedy.
        name: Function or class that the pickle requires; "" for other reasons.
    """

    def __init__(self, code: str, reason: str, fix: str = "", name: str = ""):
        super().__init__(shorten(reason))
        self.code, self.reason, self.fix, self.name = code, shorten(reason), fix, name


def invalid_object(reason: str) -> RejectedPickle:
    """Returns the rejection of an array or another object that is inconsistent."""
    return RejectedPickle("D63", reason, "download it again, or get it as npz")


@dataclasses.dataclass(slots=True, eq=False)
class PickledText:
    """A string that is not yet decoded.

    Attributes:
        raw: Its bytes in UTF-8.
    """

    raw: bytes

    def decode(self) -> str:
        return self.raw.decode("utf-8", "surrogatepass")


@dataclasses.dataclass(slots=True, eq=False)
class PickledBytes:
    """Bytes of the file.

    Attributes:
        raw: The bytes; a bytearray has no other owner, so an array can share it.
        old: A `str` of Python 2, which is a string or bytes, depending on its use.
        hidden: `raw` is a UTF-8 string with one character for each byte, which is how
            protocols 0 to 2 write bytes.
    """

    raw: bytearray | bytes
    old: bool = False
    hidden: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class PickledName:
    """The name of a function or class.

    Attributes:
        module: Its module.
        name: Its name in the module.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(slots=True, eq=False)
class PickledPairs:
    """A dict whose keys are not yet hashed.

    Attributes:
        first: Pairs that were passed to the constructor; the list may still grow.
        added: Key, value, key, value, ...: those that were added later. None is an
            empty list, because one byte of a file creates a dict.
    """

    first: list[Any] | None = None
    added: list[Any] | None = None


@dataclasses.dataclass(slots=True, eq=False)
class PickledItems:
    """A set whose items are not yet hashed.

    Attributes:
        items: A list that may still grow, or a tuple.
        frozen: True if it becomes a frozenset.
    """

    items: list[Any] | tuple[Any, ...]
    frozen: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class PickledDtype:
    """The dtype of an array: a code such as "f8", and a byte order.

    The sizes and flags in the file are discarded: wrong ones make NumPy use numbers as
    addresses.
    """

    code: str
    order: str = "="
    done: bool = False

    def build(self, state: Any) -> None:
        if self.done or type(state) is not tuple or len(state) not in (8, 9):
            raise invalid_object("invalid dtype state")
        # Of eight or nine values only the byte order and the absence of fields are
        # used.
        order, *structure = state[1:5]
        self.order, self.done = short_string(order), True
        if self.order not in ("<", ">", "|", "="):
            raise invalid_object(f"unknown byte order {shown(self.order)}")
        if structure != [None, None, None]:
            raise invalid_object("structured arrays are not supported")


@dataclasses.dataclass(slots=True, eq=False)
class PickledArray:
    """An array: its bytes and how to interpret them.

    Attributes:
        state: Shape, dtype, order "C" or "F", and content; None until the file sets it.
        axes: Permutation of the axes that is applied last; None for none.
        scalar: True for a NumPy scalar, False for an array.
        position: Position in the file, for messages.
    """

    state: tuple[Any, PickledDtype, str, Any] | None = None
    axes: Any = None
    scalar: bool = False
    position: int = 0

    def build(self, state: Any) -> None:
        if self.state is not None or type(state) is not tuple or len(state) != 5:
            raise invalid_object("invalid array state")
        _, shape, dtype, fortran, content = state
        self.state = (shape, _dtype(dtype), "F" if fortran is True else "C", content)


def short_string(value: Any) -> str:
    """Returns a name, which is a string of Python 3 or Python 2 in the file."""
    if isinstance(value, PickledText | PickledBytes) and len(value.raw) > _MAX_LENGTH:
        raise invalid_object("name is too long")
    if isinstance(value, PickledText):
        return value.decode()
    if isinstance(value, PickledBytes):
        return value.raw.decode("latin1")
    raise invalid_object("name is not a string")


def _dtype(value: Any) -> PickledDtype:
    if not isinstance(value, PickledDtype):
        raise invalid_object("array without a dtype")
    return value


def _new_dtype(code: Any, align: Any = False, copy: Any = True) -> PickledDtype:
    del align, copy
    return PickledDtype(short_string(code))


def _new_array(kind: Any, shape: Any, code: Any) -> PickledArray:
    del shape, code
    if not isinstance(kind, PickledName) or str(kind) != "numpy.ndarray":
        raise invalid_object("unsupported array class")
    return PickledArray()


def _scalar(dtype: Any, content: Any) -> PickledArray:
    return PickledArray(((), _dtype(dtype), "C", content), scalar=True)


def _from_buffer(
    content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> PickledArray:
    permuted = short_string(order) == "K" and axes is not None
    order = "F" if short_string(order) == "F" else "C"
    return PickledArray(
        (shape, _dtype(dtype), order, content), axes if permuted else None
    )


def _encode(text: Any, encoding: Any) -> PickledBytes:
    """Returns bytes that protocols 0 to 2 write as a string; see `PickledBytes`."""
    if not isinstance(text, PickledText) or short_string(encoding) not in _LATIN:
        raise invalid_object("unsupported encoding of bytes as a string")
    return PickledBytes(text.raw, hidden=True)


def _bytes(*content: Any) -> PickledBytes:
    """Handles `bytes()`, `bytearray(b"...")` and `bytearray("...", "latin1")`."""
    if not content:
        return PickledBytes(bytearray())
    if len(content) == 1 and isinstance(content[0], PickledBytes):
        return content[0]
    return _encode(*content)


def _pairs(first: Any = None) -> PickledPairs:
    if first is not None and type(first) is not list:
        raise invalid_object("dict items are not pairs")
    return PickledPairs(first)


def _default_pairs(factory: Any = None) -> PickledPairs:
    if factory is not None and getattr(factory, "name", "") not in _FACTORIES:
        raise invalid_object("unsupported default factory of a defaultdict")
    return PickledPairs()


def _items(items: Any = ()) -> PickledItems:
    if type(items) not in (list, tuple):
        raise invalid_object("set items are not a list or tuple")
    return PickledItems(items)


def _frozen_items(items: Any = ()) -> PickledItems:
    return dataclasses.replace(_items(items), frozen=True)


def not_callable(*_: Any) -> Any:
    """Rejects a call of a type that a file may only pass as an argument."""
    raise invalid_object("a type is used as a value")


_MAX_LENGTH = 1000  # of a name, which the file can use many times
# Other encodings would give other bytes, and pickle never writes them here.
_LATIN = ("latin1", "latin-1")
_FACTORIES = ("list", "dict", "int", "float", "set")
_NUMPY = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")

CONSTRUCTORS: Mapping[str, Callable[..., Any]] = {
    "numpy.ndarray": not_callable,
    "numpy.dtype": _new_dtype,
    **{f"{core}.multiarray._reconstruct": _new_array for core in _NUMPY},
    **{f"{core}.multiarray.scalar": _scalar for core in _NUMPY},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in _NUMPY},
    "_codecs.encode": _encode,
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": _default_pairs,
    **{f"{top}.{name}": not_callable for top in _BUILTINS for name in _FACTORIES},
    **{f"{top}.set": _items for top in _BUILTINS},
    **{f"{top}.frozenset": _frozen_items for top in _BUILTINS},
    **{f"{top}.bytes": _bytes for top in _BUILTINS},
    **{f"{top}.bytearray": _bytes for top in _BUILTINS},
}
"""Names that plain data needs -> function that creates the inert object."""

_HINTS = (
    ("torch", "the file contains PyTorch tensors: load it with "
     "torch.load(weights_only=True) and save the arrays as npz, see docs/formats.md"),
    ("pandas", "the file contains a pandas table: load it with pandas.read_pickle and "
     "save its columns as npz, see docs/formats.md, section 'Tables'"),
    ("joblib", "the file was written by joblib: load it with joblib.load and save its "
     "arrays as npz, see docs/formats.md, section 'torch and joblib'"),
    ("scipy", "the file contains sparse arrays of SciPy: save x.toarray() as npz"),
)  # fmt: skip


def allowed_name(
    constructors: Mapping[str, Callable[..., Any]], module: str, name: str
) -> PickledName:
    """Returns the name of a function or class, if it is one of `constructors`.

    Raises:
        RejectedPickle: It is not, so the file contains something other than data.
    """
    found = PickledName(module, name)
    # In Python a dotted name is a path of attributes, not a function of the module.
    if str(found) in constructors and "." not in name:
        return found
    known = (hint for start, hint in _HINTS if module.split(".")[0] == start)
    fix = next(known, "save its arrays as npz on the machine where the file was made")
    reason = f"{shown(str(found))} is a program object, not data"
    raise RejectedPickle("D61", reason, fix, str(found)[:120])
