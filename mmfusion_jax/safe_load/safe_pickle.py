"""Reads pickle files as plain data, without running code in them.

A pickle is a program. Python's own reader runs it, and an allow-list of classes does
not help, because NumPy trusts the description of an array in the file: 150 bytes
suffice to make it use a number as an address. Here the program runs in an interpreter
(`pickle_vm.py`, `pickle_opcodes.py`) that never calls a function which the file names,
and only creates inert objects (`pickle_objects.py`). At the end, arrays are made from
bytes whose number and dtype have been checked (`pickle_arrays.py`).
"""

import os
from pathlib import Path
from typing import Any

from mmfusion_jax.errors import (
    DataError,
    describe_exception,
    join_names,
    shorten,
    shown,
)
from mmfusion_jax.safe_load.pickle_arrays import PickleMaterializer
from mmfusion_jax.safe_load.pickle_objects import RejectedPickle
from mmfusion_jax.safe_load.pickle_opcodes import HANDLERS
from mmfusion_jax.safe_load.pickle_vm import PickleVM
from mmfusion_jax.safe_load.regular_file import open_regular

ENCODINGS = ("latin1", "utf-8", "bytes")


class RejectedPickleFile(DataError):
    """A pickle file that is not read.

    Attributes:
        path: The file.
        offset: Byte at which reading stopped; None if there is none.
        name: Function or class that the file requires; "" for other reasons.
    """

    def __init__(
        self, path: Path, offset: int | None, rejection: RejectedPickle, name: str = ""
    ):
        where = f"{path} byte {offset:d}" if offset is not None else str(path)
        super().__init__(rejection.code, f"{where}: {rejection.reason}.", rejection.fix)
        self.path, self.offset, self.name = path, offset, name


def read_pickle(path: Path, *, encoding: str = "latin1") -> Any:
    """Returns the content of a pickle file.

    Args:
        path: Pickle of any protocol, also of Python 2.
        encoding: Encoding of Python 2 strings: "latin1", "utf-8", or "bytes", which
            leaves them as bytes except for the keys of dicts.

    Returns:
        A tree of dict, list, tuple, set, str, bytes, int, float, complex, bool, None
        and np.ndarray. Arrays are writable and have the byte order of this machine.
        NumPy scalars become Python numbers, an OrderedDict or defaultdict becomes a
        dict, a bytearray bytes.

    Raises:
        RejectedPickleFile: The file is corrupted or contains something other than
            plain data. The content of a file raises no other exception.
        DataError: The file does not exist or is not a regular file.
        ValueError: `encoding` is unknown.
    """
    if encoding not in ENCODINGS:
        raise ValueError(
            f"encoding={shown(encoding)} is unknown; known: {join_names(ENCODINGS)}."
        )
    with open_regular(path) as file:
        vm = PickleVM(file, os.fstat(file.fileno()).st_size)
        materializer = PickleMaterializer(encoding, vm.size)
        root, running = None, True
        try:
            root = vm.run(HANDLERS)
            running = False
            # The memo would keep every object of the file alive while values are made
            # of them.
            vm.memo.clear()
            return materializer.value(root)
        except Exception as error:
            rejection = as_rejection(error)
            offset = vm.start if running else materializer.position
            raise RejectedPickleFile(path, offset, rejection, rejection.name) from error


def as_rejection(error: Exception) -> RejectedPickle:
    """Returns the rejection for any exception while reading."""
    if isinstance(error, RejectedPickle):
        return error
    if isinstance(error, MemoryError):
        return RejectedPickle("D65", "out of memory", "raise the memory limit")
    if isinstance(error, UnicodeError):
        return RejectedPickle(
            "D60",
            f"a string does not match its encoding ({shorten(error)})",
            "read it with another encoding, or download it again",
        )
    return RejectedPickle(
        "D60", f"cannot be read ({describe_exception(error)})",
        "copy or download it again",
    )  # fmt: skip
