"""What each instruction of a pickle does to the machine."""

import codecs
import re
from collections.abc import Callable
from typing import Any

from mmfusion_jax.safe_load.pickle_objects import (
    ADMITTED,
    PickledArray,
    PickledBytes,
    PickledDtype,
    PickledItems,
    PickledName,
    PickledPairs,
    PickledText,
    admitted,
    contradiction,
    word,
)
from mmfusion_jax.safe_load.pickle_vm import NAMES, PickleVM, damaged

_ODD_ESCAPE = re.compile(rb"""\\(?!['"abfnrtvx\n0-7])|\\[4-7][0-7][0-7]""")


def _mark(machine: PickleVM) -> None:
    machine.below.append(machine.stack)
    machine.stack = []


def _pop(machine: PickleVM) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


def _dup(machine: PickleVM) -> None:
    top = machine.pop()
    machine.stack += [top, top]


def _proto(machine: PickleVM) -> None:
    version = machine.number("B")
    if version > 5:
        raise damaged(f"pickles of protocol {version} are unknown")


def _int_line(machine: PickleVM) -> None:
    line = machine.line()
    booleans = {b"00": False, b"01": True}
    machine.push(booleans[line] if line in booleans else _whole(line))


def _whole(line: bytes) -> int:
    try:
        return int(line.removesuffix(b"L"))
    except ValueError:
        raise damaged(f"{line[:40]!r} is no whole number") from None


def _float_line(machine: PickleVM) -> None:
    line = machine.line()
    try:
        machine.push(float(line))
    except ValueError:
        raise damaged(f"{line[:40]!r} is no number") from None


def _string_line(machine: PickleVM) -> None:
    """A string of Python 2 as it stands in source code, in quotes."""
    line = machine.line()
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
        raise damaged("a string has no quotes")
    if _ODD_ESCAPE.search(line[1:-1].replace(rb"\\", b"")):
        raise damaged("a string is not written as Python 2 writes it")
    plain = codecs.escape_decode(line[1:-1])[0]  # pyright: ignore[reportAttributeAccessIssue]
    machine.push(PickledBytes(bytearray(plain), old=True))


def _unicode_line(machine: PickleVM) -> None:
    text = machine.line().decode("raw-unicode-escape")
    machine.push(PickledText(text.encode("utf-8", "surrogatepass")))


def _long(form: str) -> Callable[[PickleVM], None]:
    def step(machine: PickleVM) -> None:
        raw = machine.take(machine.number(form))
        machine.push(int.from_bytes(raw, "little", signed=True))

    return step


def _text(form: str) -> Callable[[PickleVM], None]:
    return lambda machine: machine.push(PickledText(machine.take(machine.number(form))))


def _raw(form: str, old: bool = False) -> Callable[[PickleVM], None]:
    def step(machine: PickleVM) -> None:
        machine.push(PickledBytes(machine.take_own(machine.number(form)), old))

    return step


def _number(form: str) -> Callable[[PickleVM], None]:
    return lambda machine: machine.push(machine.number(form))


def _fixed(value: Any) -> Callable[[PickleVM], None]:
    return lambda machine: machine.push(value)


def _new(make: Callable[[], Any]) -> Callable[[PickleVM], None]:
    return lambda machine: machine.push(make())


def _tuple(count: int) -> Callable[[PickleVM], None]:
    def step(machine: PickleVM) -> None:
        items = [machine.pop() for _ in range(count)]
        machine.push(tuple(reversed(items)))

    return step


def _dict(machine: PickleVM) -> None:
    marked = machine.marked()
    machine.push(PickledPairs())
    _add_pairs(machine, marked)


def _add_pairs(machine: PickleVM, flat: list[Any]) -> None:
    pairs = machine.top(PickledPairs)
    if len(flat) % 2:
        raise damaged("a key has no value")
    pairs.keys += flat[::2]
    pairs.values += flat[1::2]


def _set_item(machine: PickleVM) -> None:
    value, key = machine.pop(), machine.pop()
    _add_pairs(machine, [key, value])


def _append(machine: PickleVM) -> None:
    value = machine.pop()
    machine.top(list).append(value)


def _append_all(machine: PickleVM) -> None:
    marked = machine.marked()
    machine.top(list).extend(marked)


def _add_items(machine: PickleVM) -> None:
    marked = machine.marked()
    items = machine.top(PickledItems).items
    if type(items) is not list:
        raise damaged("a set cannot be added to")
    items.extend(marked)


def _global(machine: PickleVM) -> None:
    module, name = machine.line(), machine.line()
    machine.push(admitted(module.decode("latin1"), name.decode("latin1")))


def _stack_global(machine: PickleVM) -> None:
    name, module = machine.pop(), machine.pop()
    machine.push(admitted(word(module), word(name)))


def _reduce(machine: PickleVM) -> None:
    """Makes a stub: the only place where the file decides what is called."""
    given, name = machine.pop(), machine.pop()
    if not isinstance(name, PickledName) or type(given) is not tuple:
        raise contradiction("something is called that is no function")
    try:
        made = ADMITTED[str(name)](*given)
    except (TypeError, UnicodeError) as error:
        raise contradiction(f"{name} is called with the wrong things") from error
    if isinstance(made, PickledArray):
        made.position = machine.start
    machine.push(made)


def _build(machine: PickleVM) -> None:
    state = machine.pop()
    if not machine.stack or not isinstance(
        machine.stack[-1], PickledArray | PickledDtype
    ):
        raise contradiction("something gets a state that has none")
    machine.stack[-1].build(state)


def _put(index: Callable[[PickleVM], int]) -> Callable[[PickleVM], None]:
    def step(machine: PickleVM) -> None:
        at = index(machine)
        if not machine.stack:
            raise damaged("there is nothing to remember")
        machine.memo[at] = machine.stack[-1]

    return step


def _get(index: Callable[[PickleVM], int]) -> Callable[[PickleVM], None]:
    def step(machine: PickleVM) -> None:
        at = index(machine)
        if at not in machine.memo:
            raise damaged(f"it recalls number {at}, which was never remembered")
        machine.push(machine.memo[at])

    return step


def _index(form: str) -> Callable[[PickleVM], int]:
    return lambda machine: machine.number(form)


def _index_line(machine: PickleVM) -> int:
    return _whole(machine.line())


_BY_NAME: dict[str, Callable[[PickleVM], Any]] = {
    "PROTO": _proto,
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
    "LONG": lambda machine: machine.push(_whole(machine.line())),
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
    "EMPTY_TUPLE": _fixed(()),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "TUPLE": lambda machine: machine.push(tuple(machine.marked())),
    "EMPTY_LIST": _new(list),
    "LIST": lambda machine: machine.push(machine.marked()),
    "APPEND": _append,
    "APPENDS": _append_all,
    "EMPTY_DICT": _new(PickledPairs),
    "DICT": _dict,
    "SETITEM": _set_item,
    "SETITEMS": lambda machine: _add_pairs(machine, machine.marked()),
    "EMPTY_SET": _new(lambda: PickledItems([])),
    "ADDITEMS": _add_items,
    "FROZENSET": lambda machine: machine.push(
        PickledItems(machine.marked(), frozen=True)
    ),
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "BUILD": _build,
    "PUT": _put(_index_line),
    "BINPUT": _put(_index("B")),
    "LONG_BINPUT": _put(_index("<I")),
    "MEMOIZE": _put(lambda machine: len(machine.memo)),
    "GET": _get(_index_line),
    "BINGET": _get(_index("B")),
    "LONG_BINGET": _get(_index("<I")),
}
STEPS = {code: _BY_NAME[name] for code, name in NAMES.items() if name in _BY_NAME}
"""The byte of an instruction -> what it does; all others are refused."""
