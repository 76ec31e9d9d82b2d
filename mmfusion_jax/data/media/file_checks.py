"""What a file is by its first bytes, before a decoder sees it."""

import codecs
import struct
from pathlib import Path

from mmfusion_jax.errors import DataError

TOLERANCE = 0.02
"""Share of a file that may be missing without anybody noticing."""

_UNKNOWN_SIZE = 0x7FFFF000  # written by programs that stream a wav


def check_header(path: Path) -> None:
    """Refuses what is no clip before a decoder sees it."""
    if not path.is_file():
        raise DataError("D30", f"{path} is not there, or is not a file.")
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise DataError("D31", f"{path} is empty.", "copy or download it again")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(
            "D31",
            f"{path} is a web page, not a clip.",
            "the download was refused or wants a login: open it in a text editor",
        )
    # Play lists would make the decoder open other files.
    listed = text.startswith((b"#extm3u", b"ffconcat"))
    if listed or all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        raise DataError("D31", f"{path} is a text file, not a clip.")
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        _check_wav(path)


def _check_wav(path: Path) -> None:
    """Refuses a wav with less sound than its header says; no decoder notices."""
    have = path.stat().st_size
    with path.open("rb") as file:
        file.seek(12)
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                have -= file.tell()
                if size < _UNKNOWN_SIZE and have < size * (1 - TOLERANCE):
                    raise truncated(path, f"{have} of {size} bytes of sound")
                return
            file.seek(size + size % 2, 1)


def truncated(path: Path, what: str) -> DataError:
    """The error for a file that ends too early."""
    return DataError(
        "D32", f"{path} is cut short: {what}.", "copy or download it again"
    )
