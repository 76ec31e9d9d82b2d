"""A pickle interpreter restricted to plain data.

It runs one opcode after the other on a stack of plain values and of the inert objects
of `pickle_objects.py`.

Python's own unpickler cannot be restricted enough, even if it may only look up harmless
names. It calls what it looks up, with arguments of the file: `numpy.dtype` and the
state of an array then make NumPy use numbers of the file as addresses. Its BUILD opcode
sets attributes of whatever is on the stack, such as the default arguments of a function
of this process. It hashes keys while it reads, which takes quadratic time if their
hashes are equal, and a memo index of four bytes makes it allocate gigabytes. So this
interpreter calls only functions of `constructors`, which store their arguments; BUILD
is defined only for its own objects; nothing is hashed; and the memo is a list that
grows no faster than the file is read. Each opcode takes at least one byte, and a time
that is bounded by its number of bytes, so time and memory are linear in the size of the
file.
"""

import io
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from mmfusion_jax.errors import shown_name
from mmfusion_jax.safe_load.pickle_objects import CONSTRUCTORS, RejectedPickle

NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
"""Byte of an opcode -> its name in Python."""

_STOP = ord(".")
# Opcodes that refer to objects outside of the file or create instances of classes. They
# are listed for the message only: every opcode without a handler is rejected.
_NOT_DATA = {
    "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ",
    "NEWOBJ_EX", "NEXT_BUFFER", "READONLY_BUFFER",
}  # fmt: skip


_UNSET = object()  # marks a memo key that is not defined


def corrupted(reason: str) -> RejectedPickle:
    """Returns the rejection of a file that is truncated or not a pickle."""
    return RejectedPickle("D60", reason, "copy or download it again")


class PickleVM:
    """Runs one pickle.

    Attributes:
        size: Size of the file in bytes.
        constructors: Names that the file may use -> function that creates an inert
            object; nothing else is called.
        position: Position of the next byte.
        start: Position of the current opcode, for messages.
    """

    def __init__(
        self,
        file: io.BufferedIOBase,
        size: int,
        constructors: Mapping[str, Callable[..., Any]] = CONSTRUCTORS,
    ):
        self.file = file
        self.size = size
        self.constructors = constructors
        self.position = 0
        self.start = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks below the marks
        self.memo: list[Any] = []
        self.memo_count = 0  # without gaps

    def run(self, handlers: Mapping[int, Callable[["PickleVM"], Any]]) -> Any:
        """Runs the program to its end and returns the top of the stack.

        Args:
            handlers: Byte of an opcode -> function that runs it.

        Raises:
            RejectedPickle: The file is corrupted, or has an opcode that plain data
                does not need.
        """
        # A loop and no recursion, so nesting in the file cannot exhaust Python's stack.
        while True:
            self.start = self.position
            code = self.take(1)[0]
            if code == _STOP:
                break
            handler = handlers.get(code)
            if handler is None:
                raise self._unsupported(code)
            handler(self)
        # A second pickle behind the first would be ignored silently.
        if self.position != self.size:
            raise corrupted("trailing data after the pickle")
        return self.pop()

    def _unsupported(self, code: int) -> RejectedPickle:
        name = NAMES.get(code)
        if name not in _NOT_DATA:
            return corrupted(f"byte {code:#04x} is not a pickle opcode")
        return RejectedPickle(
            "D62",
            f"unsupported opcode {shown_name(name)}, which plain data does not need",
            "save its arrays as npz on the machine where the file was made",
        )

    def advance(self, count: int) -> int:
        """Checks that `count` bytes are left, before memory is allocated for them."""
        if not 0 <= count <= self.size - self.position:
            raise corrupted(
                f"{count} bytes expected, {self.size - self.position:d} left"
            )
        self.position += count
        return count

    def take(self, count: int) -> bytes:
        """Returns the next bytes."""
        taken = self.file.read(self.advance(count))
        if len(taken) != count:
            raise corrupted("file was truncated while it was read")
        return taken

    def take_writable(self, count: int) -> bytearray:
        """Returns the next bytes in a separate buffer, which an array can share."""
        # The size has been compared with what is left of the file, so that eight bytes
        # cannot make it allocate exabytes.
        buffer = bytearray(self.advance(count))
        if self.file.readinto(buffer) != count:
            raise corrupted("file was truncated while it was read")
        return buffer

    def line(self) -> bytes:
        """Returns the bytes up to the end of the line."""
        line = self.file.readline()
        self.advance(len(line))
        if not line.endswith(b"\n"):
            raise corrupted("unexpected end of file within a line")
        return line[:-1]

    def number(self, form: str) -> int:
        """Returns the next number, in a format of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise corrupted("stack is empty")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise corrupted(f"opcode requires a {kind.__name__} on the stack")
        return self.stack[-1]

    def remember(self, key: int) -> None:
        """Stores the top of the stack in the memo.

        Every program that writes pickles counts its objects to number them, so no key
        is larger than the number of bytes before it.
        """
        if not 0 <= key <= self.position:
            raise corrupted("memo key is out of range")
        if not self.stack:
            raise corrupted("nothing to store in the memo")
        # Grows by at most `position`, that is linearly in the bytes read.
        self.memo += [_UNSET] * (key + 1 - len(self.memo))
        self.memo_count += self.memo[key] is _UNSET
        self.memo[key] = self.stack[-1]

    def recall(self, key: int) -> None:
        """Pushes an entry of the memo."""
        if not 0 <= key < len(self.memo) or self.memo[key] is _UNSET:
            raise corrupted(f"memo key {key:d} is undefined")
        self.push(self.memo[key])

    def marked(self) -> list[Any]:
        """Returns the values above the last mark, and removes them and the mark."""
        if not self.below:
            raise corrupted("missing mark")
        # The list itself, not a copy.
        above, self.stack = self.stack, self.below.pop()
        return above
