"""Pickle files as data: read without running anything that lies in them.

A pickle is a program. Python's own reader obeys it, and lists of allowed classes do not
help, because NumPy believes what a file says about an array: 150 bytes suffice to make
it take a number for an address. Here the program runs on a machine of our own
(`pickle_machine.py`, `pickle_steps.py`) that knows no function of Python, only stubs
that hold what they are given (`pickle_stubs.py`); arrays are made at the end, from
bytes whose number and type were checked (`pickle_tree.py`).
"""

from pathlib import Path
from typing import Any

from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.pickle_arrays import PickleMaterializer
from mmfusion_jax.safe_load.pickle_objects import RejectedPickle
from mmfusion_jax.safe_load.pickle_opcodes import STEPS
from mmfusion_jax.safe_load.pickle_vm import PickleVM

ENCODINGS = ("latin1", "utf-8", "bytes")


class RejectedPickleFile(DataError):
    """A pickle that is not read, and why.

    Attributes:
        path: the file.
        offset: of the byte where reading stopped; None if that is nowhere.
        name: the function or class the file asked for; "" if it was something else.
    """

    def __init__(
        self, path: Path, offset: int | None, refusal: RejectedPickle, name: str = ""
    ):
        where = f"{path} byte {offset}" if offset is not None else str(path)
        super().__init__(refusal.code, f"{where}: {refusal.reason}.", refusal.fix)
        self.path, self.offset, self.name = path, offset, name


def read_pickle(path: Path, *, encoding: str = "latin1") -> Any:
    """What a pickle holds.

    Args:
        path: of the file; pickles of every protocol and of Python 2 are read.
        encoding: how strings of Python 2 are read: "latin1", "utf-8", or "bytes",
            which leaves them bytes except for the keys of dicts.

    Returns:
        A tree of dict, list, tuple, set, str, bytes, int, float, complex, bool, None
        and np.ndarray. Arrays may be written to
        and have the byte order of this machine. Single numbers of NumPy become those
        of Python, an OrderedDict or defaultdict becomes a dict, a bytearray bytes.

    Raises:
        RefusedPickle: it holds something that is no data, or it is damaged. No other
            exception comes from the content of a file.
        DataError: it is not there.
        ValueError: `encoding` is unknown.
    """
    if encoding not in ENCODINGS:
        raise ValueError(f"{encoding=} is unknown; known: {', '.join(ENCODINGS)}.")
    if not path.is_file():
        raise DataError("D30", f"{path} is not there, or is not a file.")
    with path.open("rb") as file:
        machine = PickleVM(file)
        tree = PickleMaterializer(encoding, machine.size)
        root, running = None, True
        try:
            root = machine.run(STEPS)
            running = False
            machine.memo.clear()
            return tree.value(root)
        except Exception as error:
            refusal = _refusal(error)
            offset = machine.start if running else tree.position
            raise RejectedPickleFile(path, offset, refusal, refusal.name) from error


def _refusal(error: Exception) -> RejectedPickle:
    """Why, whatever stopped the reading."""
    if isinstance(error, RejectedPickle):
        return error
    if isinstance(error, MemoryError):
        return RejectedPickle(
            "D65",
            "it needs more memory than this process may use",
            "allow more memory",
        )
    if isinstance(error, UnicodeError):
        return RejectedPickle(
            "D60",
            f"a text is not in the encoding it should be in ({error})",
            "read it with another encoding, or download it again",
        )
    return RejectedPickle(
        "D60", f"it cannot be read ({type(error).__name__}: {error})",
        "copy or download it again",
    )  # fmt: skip
