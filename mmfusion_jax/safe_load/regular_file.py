"""Opens untrusted files, and refuses everything that is not a regular file.

Opening a FIFO waits until another process writes to it, and reading a device may never
end. So the kind of a file is checked before it is opened, and again on the open file,
in case it was replaced in between.
"""

import io
import os
import stat
from pathlib import Path

from mmfusion_jax.errors import DataError, shorten

_KINDS = (
    (stat.S_ISDIR, "is a folder"),
    (stat.S_ISFIFO, "is a FIFO, not a regular file"),
    (stat.S_ISSOCK, "is a socket, not a regular file"),
    (stat.S_ISCHR, "is a device, not a regular file"),
    (stat.S_ISBLK, "is a device, not a regular file"),
)
# O_NONBLOCK: a FIFO that replaced the file after the check does not make open wait.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def why_not_regular(path: Path) -> str:
    """Returns why a file cannot be read, such as "is a folder"; "" if it is regular."""
    try:
        return _why_not(os.stat(path))
    except FileNotFoundError:
        return "does not exist"
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        return f"cannot be read ({shorten(getattr(error, 'strerror', '') or error)})"


def _why_not(status: os.stat_result) -> str:
    if stat.S_ISREG(status.st_mode):
        return ""
    kinds = (reason for is_kind, reason in _KINDS if is_kind(status.st_mode))
    return next(kinds, "is not a regular file")


def check_regular(path: Path, fix: str = "") -> None:
    """Raises DataError if `path` does not exist or is not a regular file."""
    if reason := why_not_regular(path):
        raise DataError("D30", f"{path} {reason}.", fix)


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a regular file for reading; never waits.

    Raises:
        DataError: The file does not exist, cannot be opened, or is not a regular file.
    """
    check_regular(path)
    try:
        file = open(os.open(path, _FLAGS), "rb")  # noqa: SIM115  the caller closes it
    except OSError as error:
        reason = shorten(error.strerror or error)
        raise DataError("D30", f"{path} cannot be read ({reason}).") from error
    if reason := _why_not(os.fstat(file.fileno())):
        file.close()
        raise DataError("D30", f"{path} {reason}.")
    return file
