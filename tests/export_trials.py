"""Functions of the children of the fault tests: a folder is written, with a fault."""

import ctypes
from pathlib import Path

from mmfusion_jax.errors import MissingDependencyError
from mmfusion_jax.inference.exported_folder import write_folder

FILES = {"README.md": b"a card\n", "model.safetensors": b"x" * 5000, "a.json": b"{}"}


def write_with_fault(folder: str, shim: str, at: int, error: int) -> dict[str, object]:
    """Writes `out` in a folder; the library fails at one call, from 1, and after it.

    Returns:
        Number of calls, and the code of the error; "" if there was none.
    """
    library = ctypes.CDLL(shim)
    library.fault_count.restype = ctypes.c_long
    arm = lambda call: library.fault_arm(
        folder.encode(), ctypes.c_long(call), error, bool(error)
    )
    code = ""
    arm(at)
    try:
        write_folder(Path(folder) / "out", FILES)
    except MissingDependencyError as problem:
        code = problem.code
    calls = library.fault_count()
    library.fault_arm(b"", ctypes.c_long(0), 0, 0)
    return {"calls": calls, "code": code}
