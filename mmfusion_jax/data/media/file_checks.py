"""Checks the first bytes of a media file before it is decoded."""

import codecs
import struct
from pathlib import Path

from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.regular_file import open_regular

TOLERANCE = 0.02
"""Fraction of a file that may be missing without an error."""

_UNKNOWN_SIZE = 0x7FFFF000  # written by programs that stream a WAV


def check_header(path: Path) -> None:
    """Raises DataError for a file that is not a media file."""
    with open_regular(path) as file:
        head = file.read(512)
    if not head:
        raise DataError("D31", f"{path} is empty.", "copy or download it again")
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(
            "D31",
            f"{path}: got an HTML page instead of a media file.",
            "the download was denied or needs a login: open it in a text editor",
        )
    # Playlists would make the decoder open other files.
    listed = text.startswith((b"#extm3u", b"ffconcat"))
    if listed or all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        raise DataError("D31", f"{path} is a text file, not a media file.")
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        _check_wav(path)


def _check_wav(path: Path) -> None:
    """Raises DataError for a truncated WAV file; decoders accept it silently."""
    have = path.stat().st_size
    with path.open("rb") as file:
        file.seek(12)
        # The chunks of a RIFF file: name, size, content padded to an even number of
        # bytes.
        while len(header := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", header)
            if name == b"data":
                have -= file.tell()
                if size < _UNKNOWN_SIZE and have < size * (1 - TOLERANCE):
                    raise truncated(path, f"{have:d} of {size} bytes of audio")
                return
            file.seek(size + size % 2, 1)


def truncated(path: Path, what: str) -> DataError:
    """Returns the error for a truncated file."""
    return DataError(
        "D32", f"{path} is truncated: {what}.", "copy or download it again"
    )
