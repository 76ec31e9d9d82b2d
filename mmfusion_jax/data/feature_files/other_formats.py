"""Recognizes files of other formats, so that a message can say what they are."""

import dataclasses
import os
import re
from pathlib import Path
from zipfile import BadZipFile, LargeZipFile, ZipFile

from mmfusion_jax.errors import DataError, join_names, shown_name
from mmfusion_jax.safe_load.regular_file import open_regular

CONVERT = "docs/formats.md, section {!r}, shows how to save its arrays as npz"
AS_NPZ = CONVERT.format("Any other file")


@dataclasses.dataclass(frozen=True)
class Format:
    """A format that is not read.

    Attributes:
        start: First bytes; lower case for text.
        what: Name, for the message "FILE is ...".
        fix: Remedy.
        offset: Position of `start` in the file.
    """

    start: bytes
    what: str
    fix: str
    offset: int = 0


_TORCH = "a file of torch.save, which is a program and not read"
_JOBLIB = CONVERT.format("torch and joblib")
_TABLES = CONVERT.format("Tables (csv, parquet, pandas)")
_PACKED = "and import the file in it"
BINARY_FORMATS = (
    Format(b"\x1f\x8b", "compressed (gzip)", f"unpack it: gunzip FILE, {_PACKED}"),
    Format(b"BZh", "compressed (bzip2)", f"unpack it: bunzip2 FILE, {_PACKED}"),
    Format(b"\xfd7zXZ\x00", "compressed (xz)", f"unpack it: unxz FILE, {_PACKED}"),
    Format(b"\x5d\x00\x00", "compressed (lzma)", f"unpack it: unlzma FILE, {_PACKED}"),
    Format(
        b"\x28\xb5\x2f\xfd",
        "compressed (zstd)",
        f"unpack it: unzstd FILE, {_PACKED}",
    ),
    Format(
        b"\x04\x22\x4d\x18", "compressed (lz4)", f"unpack it: unlz4 FILE, {_PACKED}"
    ),
    Format(b"7z\xbc\xaf", "an archive (7z)", f"unpack it: 7z x FILE, {_PACKED}"),
    Format(b"Rar!", "an archive (RAR)", f"unpack it: unrar x FILE, {_PACKED}"),
    Format(b"ustar", "an archive (tar)", f"unpack it: tar xf FILE, {_PACKED}", 257),
    Format(
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P",
        _TORCH,
        _JOBLIB,
    ),
    Format(b"\x93NUMPY", "a single array (npy)", AS_NPZ),
    Format(b"MATLAB 7.3", "a MATLAB file (mat, version 7.3)", CONVERT.format("MATLAB")),
    Format(b"MATLAB", "a MATLAB file (mat)", CONVERT.format("MATLAB")),
    Format(
        b"\x89HDF\r\n",
        "an HDF5 file (h5, hdf5 or csd), which is not read",
        CONVERT.format("HDF5 and csd"),
    ),
    Format(b"PAR1", "a parquet file", _TABLES),
    Format(b"ARROW1", "an Arrow file", _TABLES),
    Format(
        b"\x00\x05\x16\x07",
        "an AppleDouble file: macOS stores attributes in it, not the data",
        "import the file of the same name without ._",
    ),
    Format(b"\x78\x01", "compressed (zlib), as joblib writes", _JOBLIB),
    Format(b"\x78\x5e", "compressed (zlib), as joblib writes", _JOBLIB),
    Format(b"\x78\x9c", "compressed (zlib), as joblib writes", _JOBLIB),
    Format(b"\x78\xda", "compressed (zlib), as joblib writes", _JOBLIB),
    Format(b"RIFF", "an audio or video file", "import the features made of it"),
    Format(b"ftyp", "a video file", "import the features made of it", 4),
    Format(b"%PDF", "a PDF", "download the data instead"),
    Format(
        b"\xc2\x80",
        "a pickle that was saved as text (UTF-8), which damaged it",
        "copy or download it again without opening it in an editor",
    ),
)

TEXT_FORMATS = (
    Format(
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself",
        "run git lfs pull in its repository, or download the file from its page",
    ),
    Format(
        b"<",
        "an HTML page instead of a feature file",
        "the download was denied or needs a login: open it in a web browser, log in, "
        "and download the file again",
    ),
)

LABEL_TABLE = {"video_id", "clip_id", "text", "label"}
"""Columns of label.csv of MMSA."""

TEXT_PICKLE = re.compile(
    rb"\(?[dlt]p\d|\((?:[dlt(SVIFLN]|c\w)|[c(]?c[\w.]+\r?\n[\w.]+\r?\n|[\]}]q"
)
"""Beginning of a pickle of protocol 0, which is text, or 1."""

BASE64_PICKLE = re.compile(r"gA[JNSU][\w+/]{20}")
"""Beginning of a pickle of protocol 2 or later in base64."""

_HEAD = 1024
_SAMPLE = 1 << 20
_MANY = 8
_RECODED = b"\xef\xbf\xbd"


def check_format(path: Path) -> bool:
    """Returns whether a file is an npz, and not a pickle.

    Raises:
        DataError: The file is neither of them; the message names its format.
    """
    with open_regular(path) as stream:
        try:
            head = stream.read(_HEAD)
        except OSError as error:
            reason = shown_name(error.strerror or error)
            raise DataError("D30", f"{path} cannot be read ({reason}).") from error
    if not head:
        raise DataError("D70", f"{path} is empty.", "copy or download it again")
    for one in BINARY_FORMATS:
        if head[one.offset :].startswith(one.start):
            raise DataError("D70", f"{path} is {one.what}.", one.fix)
    text = _as_text(head)
    if text is not None:
        raise _text_file(path, text)
    if head.startswith(b"PK\x03\x04"):
        _check_zip(path)
        return True
    return False


def changed_in_transfer(path: Path) -> tuple[str, str]:
    """Returns how a transfer changed a pickle, and the fix; ("", "") if it did not.

    Args:
        path: A pickle that cannot be read.
    """
    size = os.stat(path).st_size
    with open_regular(path) as stream:
        sample = stream.read(_SAMPLE)
    fix = "copy or download it again in binary mode"
    feeds, pairs = sample.count(b"\n"), sample.count(b"\r\n")
    if sample.count(_RECODED) >= _MANY:
        return "bytes were replaced, as by a program that takes it for text", fix
    # In a plain pickle, a line feed follows a carriage return by chance only.
    if feeds >= _MANY and feeds == pairs:
        if not sample.startswith(b"\x80"):
            fix = f"{fix}, or run: dos2unix FILE"
        return "line ends were changed in transfer (LF to CR LF)", fix
    # Among 65536 pairs of bytes, about one is CR LF.
    if size >= _SAMPLE and not pairs and min(feeds, sample.count(b"\r")) > 1000:
        return "line ends were changed in transfer (CR LF to LF)", fix
    return "", ""


def _as_text(head: bytes) -> str | None:
    """Returns the beginning of a text file; None for other files and pickles."""
    if TEXT_PICKLE.match(head):
        return None
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    for cut in range(4):  # the last character may be cut
        try:
            text = head[: len(head) - cut].decode("utf-16" if wide else "utf-8-sig")
            break
        except UnicodeDecodeError:
            continue
    else:
        return None
    plain = all(c.isprintable() or c in "\t\r\n" for c in text)
    return text if plain else None


def _text_file(path: Path, text: str) -> DataError:
    """Returns the error for a text file."""
    start = text.lstrip()
    for one in TEXT_FORMATS:
        if start.lower().encode().startswith(one.start):
            return DataError("D70", f"{path} is {one.what}.", one.fix)
    if BASE64_PICKLE.match(start):
        return DataError(
            "D70", f"{path} is a pickle in base64.", "decode it: base64 -d FILE"
        )
    if start.startswith(("{", "[")):
        return DataError("D70", f"{path} is a JSON file.", AS_NPZ)
    line = start.splitlines()[0] if start else ""
    cells = [cell.strip(" \"'\r").lower() for cell in re.split(r"[,;\t]", line)]
    if set(cells) >= LABEL_TABLE:
        return DataError(
            "D70",
            f"{path} is the table of labels of MMSA, which has no features.",
            "import the feature file of the dataset, such as unaligned_50.pkl or "
            "unaligned_39.pkl: it contains these labels",
        )
    if len(cells) > 1:
        return DataError(
            "D70",
            f"{path} is a text file, a table with the columns "
            f"{join_names(cells[:8])}{', ...' if len(cells) > 8 else ''}.",
            _TABLES,
        )
    return DataError("D70", f"{path} is a text file.", AS_NPZ)


def _check_zip(path: Path) -> None:
    """Raises DataError for a zip archive that is not an npz."""
    try:
        with open_regular(path) as stream, ZipFile(stream) as archive:
            names = archive.namelist()
    except (BadZipFile, LargeZipFile, ValueError, OSError, NotImplementedError):
        return  # the reader of npz files raises the error
    if any(name.endswith(".npy") for name in names):
        return
    if any(name.endswith("data.pkl") for name in names):
        raise DataError("D70", f"{path} is {_TORCH}.", _JOBLIB)
    if any(name.startswith("xl/") for name in names):
        raise DataError(
            "D70",
            f"{path} is an Excel file.",
            _TABLES,
        )
    raise DataError(
        "D70",
        f"{path} is a zip archive of {join_names(names[:8], 'nothing')}.",
        f"unpack it: unzip FILE, {_PACKED}",
    )
