"""The machine that a pickle is a program for, without anything it could harm.

It reads one instruction after the other and keeps a stack of plain values and of the
stubs of `pickle_stubs.py`. Python's own unpickler has no part in it. Each instruction
takes at least one byte and a time bounded by the bytes it takes, so a file of n bytes
needs a time and a memory of the order of n.
"""

import io
import os
import pickletools
import struct
from collections.abc import Callable, Mapping
from typing import Any

from mmfusion_jax.safe_load.pickle_objects import RejectedPickle

NAMES = {ord(op.code): op.name for op in pickletools.opcodes}
"""The byte of an instruction -> what Python calls it."""

_STOP = ord(".")
_BEYOND = {
    "PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "INST", "OBJ", "NEWOBJ",
    "NEWOBJ_EX", "NEXT_BUFFER", "READONLY_BUFFER",
}  # fmt: skip


def damaged(reason: str) -> RejectedPickle:
    """The refusal of a file that breaks off or is no pickle at all."""
    return RejectedPickle("D60", reason, "copy or download it again")


class PickleVM:
    """Runs one pickle.

    Attributes:
        size: of the file, in bytes.
        position: of the next byte.
        start: of the instruction at work, for messages.
    """

    def __init__(self, file: io.BufferedReader):
        self.file = file
        self.size = os.fstat(file.fileno()).st_size
        self.position = 0
        self.start = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under the marks
        self.memo: dict[int, Any] = {}

    def run(self, steps: Mapping[int, Callable[["PickleVM"], Any]]) -> Any:
        """Runs to the end and returns what then lies on the stack.

        Args:
            steps: the byte of an instruction -> what it does.

        Raises:
            Refusal: there is an instruction that data does not need, or the file is
                damaged.
        """
        while True:
            self.start = self.position
            code = self.take(1)[0]
            if code == _STOP:
                break
            step = steps.get(code)
            if step is None:
                raise self._unknown(code)
            step(self)
        if self.position != self.size:
            raise damaged("more follows after the end of the pickle")
        return self.pop()

    def _unknown(self, code: int) -> RejectedPickle:
        name = NAMES.get(code)
        if name not in _BEYOND:
            return damaged(f"byte {code:#04x} is no instruction of a pickle")
        return RejectedPickle(
            "D62",
            f"the instruction {name} makes objects of a program",
            "save the arrays in it as npz where the file was made",
        )

    def claim(self, count: int) -> int:
        """Checks that so many bytes are left, before anything is made for them."""
        if not 0 <= count <= self.size - self.position:
            raise damaged(
                f"{count} bytes should follow, but there are "
                f"{self.size - self.position}"
            )
        self.position += count
        return count

    def take(self, count: int) -> bytes:
        """The next bytes."""
        taken = self.file.read(self.claim(count))
        if len(taken) != count:
            raise damaged("it became shorter while it was read")
        return taken

    def take_own(self, count: int) -> bytearray:
        """The next bytes in memory of their own, on which an array may lie."""
        own = bytearray(self.claim(count))
        if self.file.readinto(own) != count:
            raise damaged("it became shorter while it was read")
        return own

    def line(self) -> bytes:
        """The bytes up to the end of the line."""
        line = self.file.readline()
        self.claim(len(line))
        if not line.endswith(b"\n"):
            raise damaged("it ends in the middle of a line")
        return line[:-1]

    def number(self, form: str) -> int:
        """The next number, in a format of `struct`."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self) -> Any:
        if not self.stack:
            raise damaged("an instruction finds nothing to work on")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise damaged(f"an instruction wants a {kind.__name__} to add to")
        return self.stack[-1]

    def marked(self) -> list[Any]:
        """Everything above the last mark."""
        if not self.below:
            raise damaged("a mark is missing")
        above, self.stack = self.stack, self.below.pop()
        return above
