"""Recognizes by its first bytes a file that is not a media file."""

import codecs
from pathlib import Path

from mmfusion_jax.errors import DataError, shown_name
from mmfusion_jax.safe_load.regular_file import open_regular

_AGAIN = "copy or download it again"
_HEAD = 512

_OTHER_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"\0\5\x16\7", "is an AppleDouble file of macOS", ""),
    (b"PK\3\4", "is a ZIP archive", "unpack it"),
    (b"PK\5\6", "is an empty ZIP archive", _AGAIN),
    (b"Rar!", "is a RAR archive", "unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive", "unpack it"),
    (b"\x1f\x8b", "is a gzip archive", "unpack it"),
    (b"BZh", "is a bzip2 archive", "unpack it"),
    (b"\xfd7zXZ", "is an xz archive", "unpack it"),
    (b"%PDF", "is a PDF document", _AGAIN),
    (b"bplist", "is a property list of macOS, such as a placeholder of iCloud", _AGAIN),
    (b"\x93NUMPY", "is a NumPy array", "use the recording from which it was made"),
    (b"\x89HDF", "is an HDF5 file", "use the recording from which it was made"),
    (b"\xd0\xcf\x11\xe0", "is an Office document", _AGAIN),
)
"""First bytes, what such a file is, and a fix."""

_IMAGES = ((b"\xff\xd8\xff", "a JPEG"), (b"\x89PNG\r\n", "a PNG"), (b"BM", "a BMP"))
_IMAGE_NAMES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")


def check_header(path: Path) -> None:
    """Raises DataError for a file that is not a media file."""
    with open_regular(path) as file:
        head = file.read(_HEAD)
        if not head:
            raise DataError("D31", f"{path} is empty.", _AGAIN)
        zeros = not head.strip(b"\0") and not any(
            chunk.strip(b"\0") for chunk in iter(lambda: file.read(1 << 20), b"")
        )
    if zeros:
        raise DataError(
            "D31", f"{path} contains zeros only: its download did not finish.", _AGAIN
        )
    _check_text(path, head)
    _check_other_formats(path, head)


def _check_text(path: Path, head: bytes) -> None:
    """Raises DataError for a text file, such as a web page or a placeholder."""
    text = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        raise DataError(
            "D31",
            f"{path} is a Git LFS pointer, a text file in place of the clip.",
            "git lfs install, then git lfs pull in the folder of the clips",
        )
    if b"/annex/objects/" in text:
        raise DataError(
            "D31",
            f"{path} is a git-annex pointer, a text file in place of the clip.",
            "git annex get, in the folder of the clips",
        )
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise DataError(
            "D31",
            f"{path}: got an HTML page instead of a media file.",
            "the download was denied or needs a login: open it in a text editor",
        )
    # Playlists would make the decoder open other files.
    if text.startswith((b"#extm3u", b"ffconcat")):
        raise DataError(
            "D31",
            f"{path} is a text file, a playlist that names other files, not a media "
            "file.",
            "use the files that it names",
        )
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head):
        kind = "of JSON, " if text.startswith((b"{", b"[")) else ""
        raise DataError(
            "D31",
            f"{path} is a text file, {kind}not a media file.",
            "the download may have failed: open it in a text editor",
        )


def _check_other_formats(path: Path, head: bytes) -> None:
    """Raises DataError for a file of a known format that is not a media format."""
    for first, what, fix in _OTHER_FORMATS:
        if head.startswith(first):
            clip = shown_name(path.name.removeprefix("._"))
            fix = fix or "delete it; the clip is " + clip + ", without ._"
            raise DataError("D31", f"{path} {what}, not a media file.", fix)
    for first, what in _IMAGES:
        if head.startswith(first) and path.suffix.lower() not in _IMAGE_NAMES:
            raise DataError(
                "D31",
                f"{path} is {what} image with the name of a clip.",
                _AGAIN,
            )
