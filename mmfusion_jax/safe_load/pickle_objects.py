"""What the reader of pickles builds in place of the things a file asks for.

A pickle names functions and classes and says what to call them with. None of these
names is ever looked up in Python: the few that data needs stand in `ADMITTED` and
stand for the small classes of this file, which do nothing but hold what they are given.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


class RejectedPickle(Exception):
    """Why a file is not read, before the file is known.

    Attributes:
        code: of the error, see `docs/errors.md`.
        reason: in a few words.
        fix: what would work.
        name: the function or class the file asked for; "" if it was something else.
    """

    def __init__(self, code: str, reason: str, fix: str = "", name: str = ""):
        super().__init__(reason)
        self.code, self.reason, self.fix, self.name = code, reason, fix, name


def contradiction(reason: str) -> RejectedPickle:
    """The refusal of an array that is not what it says."""
    return RejectedPickle("D63", reason, "download it again, or ask for it as npz")


@dataclasses.dataclass(slots=True, eq=False)
class PickledText:
    """Text of the file, not yet decoded.

    Attributes:
        raw: its bytes in UTF-8.
    """

    raw: bytes

    def decode(self) -> str:
        return self.raw.decode("utf-8", "surrogatepass")


@dataclasses.dataclass(slots=True, eq=False)
class PickledBytes:
    """Bytes of the file.

    Attributes:
        raw: the bytes; a bytearray belongs to nobody else, so that an array may lie
            over it.
        old: a `str` of Python 2, which its use makes text or bytes.
        hidden: `raw` is text in UTF-8, each character of which is one byte, as
            protocols 0 to 2 write bytes.
    """

    raw: bytearray | bytes
    old: bool = False
    hidden: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class PickledName:
    """A function or class by name.

    Attributes:
        module: where the file says it is.
        name: what it is called there.
    """

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclasses.dataclass(slots=True, eq=False)
class PickledPairs:
    """A dict whose keys nobody has hashed yet.

    Attributes:
        first: list of pairs that a constructor was given; it may still grow.
        keys: added later, as `values`.
        values: in the order of `keys`.
    """

    first: list[Any] = dataclasses.field(default_factory=list)
    keys: list[Any] = dataclasses.field(default_factory=list)
    values: list[Any] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(slots=True, eq=False)
class PickledItems:
    """A set whose items nobody has hashed yet.

    Attributes:
        items: a list that may still grow, or a tuple.
        frozen: whether it becomes a frozenset.
    """

    items: list[Any] | tuple[Any, ...]
    frozen: bool = False


@dataclasses.dataclass(slots=True, eq=False)
class PickledDtype:
    """The type of an array: a code such as "f8", and a byte order.

    The sizes and flags that follow in the file are not even kept: a file that lies
    about them makes NumPy take numbers for addresses.
    """

    code: str
    order: str = "="
    done: bool = False

    def build(self, state: Any) -> None:
        if self.done or type(state) is not tuple or len(state) not in (8, 9):
            raise contradiction("the type of an array has no valid state")
        order, *structure = state[1:5]
        self.order, self.done = word(order), True
        if self.order not in ("<", ">", "|", "="):
            raise contradiction(f"the byte order {self.order[:20]!r} is unknown")
        if structure != [None, None, None]:
            raise contradiction("an array of records is not read")


@dataclasses.dataclass(slots=True, eq=False)
class PickledArray:
    """An array: what to lay over which bytes.

    Attributes:
        state: shape, type, order "C" or "F", content; None while the file has not
            said.
        axes: how to turn the axes afterwards; None leaves them.
        scalar: a single number or string rather than an array.
        position: of the byte in the file where it begins.
    """

    state: tuple[Any, PickledDtype, str, Any] | None = None
    axes: Any = None
    scalar: bool = False
    position: int = 0

    def build(self, state: Any) -> None:
        if self.state is not None or type(state) is not tuple or len(state) != 5:
            raise contradiction("an array has no valid state")
        _, shape, dtype, fortran, content = state
        self.state = (shape, _dtype(dtype), "F" if fortran is True else "C", content)


def word(value: Any) -> str:
    """A short name that the file holds as text or as a string of Python 2."""
    if isinstance(value, PickledText | PickledBytes) and len(value.raw) > _LONGEST:
        raise contradiction("a name is too long")
    if isinstance(value, PickledText):
        return value.decode()
    if isinstance(value, PickledBytes):
        return value.raw.decode("latin1")
    raise contradiction("a name is not text")


def _dtype(value: Any) -> PickledDtype:
    if not isinstance(value, PickledDtype):
        raise contradiction("an array has no type")
    return value


def _new_dtype(code: Any, align: Any = False, copy: Any = True) -> PickledDtype:
    del align, copy
    return PickledDtype(word(code))


def _new_array(kind: Any, shape: Any, code: Any) -> PickledArray:
    del shape, code
    if not isinstance(kind, PickledName) or str(kind) != "numpy.ndarray":
        raise contradiction(f"{kind} is a kind of array of its own")
    return PickledArray()


def _scalar(dtype: Any, content: Any) -> PickledArray:
    return PickledArray(((), _dtype(dtype), "C", content), scalar=True)


def _from_buffer(
    content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None
) -> PickledArray:
    turned = word(order) == "K" and axes is not None
    order = "F" if word(order) == "F" else "C"
    return PickledArray(
        (shape, _dtype(dtype), order, content), axes if turned else None
    )


def _encode(text: Any, encoding: Any) -> PickledBytes:
    """How protocols 0 to 2 hide bytes in text; they are brought out when used."""
    if not isinstance(text, PickledText) or word(encoding) not in ("latin1", "latin-1"):
        raise contradiction("bytes are hidden in text in an unknown way")
    return PickledBytes(text.raw, hidden=True)


def _bytes(*content: Any) -> PickledBytes:
    """`bytes()`, `bytearray()`, `bytearray(b"...")` or `bytearray("...", "latin1")`."""
    if not content:
        return PickledBytes(bytearray())
    if len(content) == 1 and isinstance(content[0], PickledBytes):
        return content[0]
    return _encode(*content)


def _pairs(first: Any = None) -> PickledPairs:
    if first is not None and type(first) is not list:
        raise contradiction("a dict is not made of pairs")
    return PickledPairs(first or [])


def _default_pairs(factory: Any = None) -> PickledPairs:
    if factory is not None and getattr(factory, "name", "") not in _FACTORIES:
        raise contradiction("a defaultdict makes its values in an unknown way")
    return PickledPairs()


def _items(items: Any = ()) -> PickledItems:
    if type(items) not in (list, tuple):
        raise contradiction("a set is not made of items")
    return PickledItems(items)


def _frozen_items(items: Any = ()) -> PickledItems:
    return dataclasses.replace(_items(items), frozen=True)


def _nothing(*_: Any) -> Any:
    raise contradiction("a type stands where a value should")


_LONGEST = 1000  # of a word; it may be used many times
_FACTORIES = ("list", "dict", "int", "float", "set")
_NUMPY = ("numpy.core", "numpy._core")
_BUILTINS = ("builtins", "__builtin__")

ADMITTED: Mapping[str, Callable[..., Any]] = {
    "numpy.ndarray": _nothing,
    "numpy.dtype": _new_dtype,
    **{f"{core}.multiarray._reconstruct": _new_array for core in _NUMPY},
    **{f"{core}.multiarray.scalar": _scalar for core in _NUMPY},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in _NUMPY},
    "_codecs.encode": _encode,
    "collections.OrderedDict": _pairs,
    "collections.defaultdict": _default_pairs,
    **{f"{top}.{name}": _nothing for top in _BUILTINS for name in _FACTORIES},
    **{f"{top}.set": _items for top in _BUILTINS},
    **{f"{top}.frozenset": _frozen_items for top in _BUILTINS},
    **{f"{top}.bytes": _bytes for top in _BUILTINS},
    **{f"{top}.bytearray": _bytes for top in _BUILTINS},
}
"""The names that data needs -> what makes the stub."""

_HINTS = (
    ("torch", "it holds torch tensors: load it once where torch is installed with "
     "torch.load(weights_only=True) and save the arrays as npz"),
    ("pandas", "it holds a pandas table: save it as csv or parquet"),
)  # fmt: skip


def admitted(module: str, name: str) -> PickledName:
    """The name, if data needs it.

    Raises:
        Refusal: it belongs to a program, with what to do about it.
    """
    found = PickledName(module, name)
    if str(found) in ADMITTED and "." not in name:
        return found
    known = (hint for start, hint in _HINTS if module.split(".")[0] == start)
    fix = next(known, "save the arrays in it as npz where the file was made")
    shown = str(found)[:120]
    reason = f"{shown!r} is a program object, not data"
    raise RejectedPickle("D61", reason, fix, shown)
