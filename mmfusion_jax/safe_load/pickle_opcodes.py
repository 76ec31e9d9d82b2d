"""The opcodes of a pickle: what each of them does on the stack."""

import codecs
import re
from collections.abc import Callable
from typing import Any

from mmfusion_jax.errors import shown, shown_name
from mmfusion_jax.safe_load.pickle_objects import (
    PickledArray,
    PickledBytes,
    PickledDtype,
    PickledItems,
    PickledName,
    PickledPairs,
    PickledText,
    allowed_name,
    invalid_object,
    short_string,
)
from mmfusion_jax.safe_load.pickle_vm import NAMES, PickleVM, corrupted

_MAX_DIGITS = 4300  # the limit of Python, which can be turned off
_MAX_INDEX_DIGITS = 20
# Escapes about which Python's decoder warns: unknown ones, and octal numbers beyond one
# byte.
_ODD_ESCAPE = re.compile(rb"""\\(?!['"abfnrtvx\n0-7])|\\[4-7][0-7][0-7]""")


def _mark(vm: PickleVM) -> None:
    # A stack of stacks: everything above a mark is a list, without a search for the
    # mark.
    vm.below.append(vm.stack)
    vm.stack = []


def _pop(vm: PickleVM) -> None:
    # As Python does: POP removes the mark if there is nothing above it.
    if vm.stack:
        vm.stack.pop()
    else:
        vm.marked()


def _dup(vm: PickleVM) -> None:
    top = vm.pop()
    vm.stack += [top, top]


def _proto(vm: PickleVM) -> None:
    version = vm.number("B")
    if version > 5:
        raise corrupted(f"unknown pickle protocol {shown(version)}")


def _int_line(vm: PickleVM) -> None:
    line = vm.line()
    booleans = {b"00": False, b"01": True}
    vm.push(booleans[line] if line in booleans else _integer(line))


def _integer(line: bytes, digits: int = _MAX_DIGITS) -> int:
    if len(line) > digits:  # conversion takes quadratic time
        raise corrupted(f"number of more than {digits:d} digits")
    try:
        return int(line.removesuffix(b"L"))
    except ValueError:
        raise corrupted(f"{shown(line)} is not an integer") from None


def _float_line(vm: PickleVM) -> None:
    line = vm.line()
    try:
        vm.push(float(line))
    except ValueError:
        raise corrupted(f"{shown(line)} is not a number") from None


def _string_line(vm: PickleVM) -> None:
    """Handles a Python 2 string, which is in quotes as in source code."""
    line = vm.line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise corrupted("string without quotes")
    if _ODD_ESCAPE.search(line[1:-1].replace(rb"\\", b"")):
        raise corrupted("invalid escape sequence in a Python 2 string")
    # Not `ast.literal_eval`, which would parse the line as source code.
    plain = codecs.escape_decode(line[1:-1])[0]  # pyright: ignore[reportAttributeAccessIssue]
    vm.push(PickledBytes(bytearray(plain), old=True))


def _unicode_line(vm: PickleVM) -> None:
    text = vm.line().decode("raw-unicode-escape")
    vm.push(PickledText(text.encode("utf-8", "surrogatepass")))


def _long(form: str) -> Callable[[PickleVM], None]:
    def handler(vm: PickleVM) -> None:
        # Linear in the size, unlike the conversion of decimal digits. A negative size
        # is rejected by `advance`.
        raw = vm.take(vm.number(form))
        vm.push(int.from_bytes(raw, "little", signed=True))

    return handler


def _text(form: str) -> Callable[[PickleVM], None]:
    return lambda vm: vm.push(PickledText(vm.take(vm.number(form))))


def _raw(form: str, old: bool = False) -> Callable[[PickleVM], None]:
    def handler(vm: PickleVM) -> None:
        vm.push(PickledBytes(vm.take_writable(vm.number(form)), old))

    return handler


def _number(form: str) -> Callable[[PickleVM], None]:
    return lambda vm: vm.push(vm.number(form))


def _fixed(value: Any) -> Callable[[PickleVM], None]:
    return lambda vm: vm.push(value)


def _new(make: Callable[[], Any]) -> Callable[[PickleVM], None]:
    return lambda vm: vm.push(make())


def _tuple(count: int) -> Callable[[PickleVM], None]:
    def handler(vm: PickleVM) -> None:
        items = [vm.pop() for _ in range(count)]
        vm.push(tuple(reversed(items)))

    return handler


def _dict(vm: PickleVM) -> None:
    marked = vm.marked()
    vm.push(PickledPairs())
    _add_pairs(vm, marked)


def _add_pairs(vm: PickleVM, flat: list[Any]) -> None:
    pairs = vm.top(PickledPairs)
    if len(flat) % 2:
        raise corrupted("dict key without a value")
    # A flat list instead of a dict, since keys are not hashed while the file runs.
    pairs.added = pairs.added or []
    pairs.added += flat


def _set_item(vm: PickleVM) -> None:
    value, key = vm.pop(), vm.pop()
    _add_pairs(vm, [key, value])


def _append(vm: PickleVM) -> None:
    value = vm.pop()
    vm.top(list).append(value)


def _append_all(vm: PickleVM) -> None:
    marked = vm.marked()
    vm.top(list).extend(marked)


def _add_items(vm: PickleVM) -> None:
    marked = vm.marked()
    items = vm.top(PickledItems).items
    if type(items) is not list:
        raise corrupted("set cannot be extended")
    items.extend(marked)


def _global(vm: PickleVM) -> None:
    module, name = vm.line(), vm.line()
    vm.push(_allowed(vm, module.decode("latin1"), name.decode("latin1")))


def _stack_global(vm: PickleVM) -> None:
    name, module = vm.pop(), vm.pop()
    vm.push(_allowed(vm, short_string(module), short_string(name)))


def _allowed(vm: PickleVM, module: str, name: str) -> PickledName:
    return allowed_name(vm.constructors, module, name)


def _reduce(vm: PickleVM) -> None:
    """Creates an inert object; only here does the file choose what is called."""
    given, name = vm.pop(), vm.pop()
    if not isinstance(name, PickledName) or type(given) is not tuple:
        raise invalid_object("unsupported call")
    try:
        # The constructors store their arguments, or reject them; a wrong number of
        # arguments is a TypeError. Nothing that the file names is looked up in Python.
        made = vm.constructors[str(name)](*given)
    except (TypeError, UnicodeError) as error:
        raise invalid_object(f"invalid arguments of {shown_name(name)}") from error
    if isinstance(made, PickledArray):
        made.position = vm.start
    vm.push(made)


def _build(vm: PickleVM) -> None:
    state = vm.pop()
    if not vm.stack or not isinstance(vm.stack[-1], PickledArray | PickledDtype):
        raise invalid_object("unsupported object state")
    # Only arrays and dtypes have a state. Python's BUILD would set attributes of any
    # object, or update its `__dict__`.
    vm.stack[-1].build(state)


def _put(index: Callable[[PickleVM], int]) -> Callable[[PickleVM], None]:
    return lambda vm: vm.remember(index(vm))


def _get(index: Callable[[PickleVM], int]) -> Callable[[PickleVM], None]:
    return lambda vm: vm.recall(index(vm))


def _index(form: str) -> Callable[[PickleVM], int]:
    return lambda vm: vm.number(form)


def _index_line(vm: PickleVM) -> int:
    return _integer(vm.line(), _MAX_INDEX_DIGITS)


_BY_NAME: dict[str, Callable[[PickleVM], Any]] = {
    "PROTO": _proto,
    # The size of a frame is read and ignored: it only helps readers that buffer.
    "FRAME": _index("<Q"),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": PickleVM.marked,
    "DUP": _dup,
    "NONE": _fixed(None),
    "NEWTRUE": _fixed(True),
    "NEWFALSE": _fixed(False),
    "INT": _int_line,
    "BININT": _number("<i"),
    "BININT1": _number("B"),
    "BININT2": _number("<H"),
    "LONG": lambda vm: vm.push(_integer(vm.line())),
    "LONG1": _long("B"),
    "LONG4": _long("<i"),
    "FLOAT": _float_line,
    "BINFLOAT": _number(">d"),
    "STRING": _string_line,
    "BINSTRING": _raw("<i", old=True),
    "SHORT_BINSTRING": _raw("B", old=True),
    "UNICODE": _unicode_line,
    "SHORT_BINUNICODE": _text("B"),
    "BINUNICODE": _text("<I"),
    "BINUNICODE8": _text("<Q"),
    "SHORT_BINBYTES": _raw("B"),
    "BINBYTES": _raw("<I"),
    "BINBYTES8": _raw("<Q"),
    "BYTEARRAY8": _raw("<Q"),
    # Immutable, so one object for all; lists and dicts need a new one each time.
    "EMPTY_TUPLE": _fixed(()),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda vm: vm.push(tuple(vm.marked())),
    "EMPTY_LIST": _new(list),
    "LIST": lambda vm: vm.push(vm.marked()),
    "APPEND": _append,
    "APPENDS": _append_all,
    "EMPTY_DICT": _new(PickledPairs),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": lambda vm: _add_pairs(vm, vm.marked()),
    "EMPTY_SET": _new(lambda: PickledItems([])),
    "ADDITEMS": _add_items,
    "FROZENSET": lambda vm: vm.push(PickledItems(vm.marked(), frozen=True)),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
    "PUT": _put(_index_line),
    "BINPUT": _put(_index("B")),
    "LONG_BINPUT": _put(_index("<I")),
    # Protocol 4 counts the entries itself; a file may mix this opcode with PUT.
    "MEMOIZE": _put(lambda vm: vm.memo_count),
    "GET": _get(_index_line),
    "BINGET": _get(_index("B")),
    "LONG_BINGET": _get(_index("<I")),
}
HANDLERS = {code: _BY_NAME[name] for code, name in NAMES.items() if name in _BY_NAME}
"""Byte of an opcode -> function that runs it; all other opcodes are rejected."""
