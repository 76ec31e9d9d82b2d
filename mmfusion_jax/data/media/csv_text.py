"""Reads the header and the rows of a CSV file, or names the format of another file."""

import codecs
import csv
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

from mmfusion_jax.errors import DataError, shorten, shown
from mmfusion_jax.safe_load.regular_file import open_regular

AS_CSV = "save it as comma-separated CSV in UTF-8"
_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "UTF-32 text, not UTF-8 text"),
    (codecs.BOM_UTF32_BE, "UTF-32 text, not UTF-8 text"),
    (codecs.BOM_UTF16_LE, "UTF-16 text, not UTF-8 text"),
    (codecs.BOM_UTF16_BE, "UTF-16 text, not UTF-8 text"),
    (b"PK\x03\x04", "an Excel or ZIP file, not a CSV file"),
    (b"\xd0\xcf\x11\xe0", "an old Excel file (xls), not a CSV file"),
    (b"\x1f\x8b", "a gzip file, not a CSV file"),
    (b"%PDF", "a PDF file, not a CSV file"),
    (b"PAR1", "a Parquet file, not a CSV file"),
    (b"SQLite format 3", "an SQLite database, not a CSV file"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the CSV file"),
)
_SEPARATORS = ((";", "semicolon"), ("\t", "tab"), ("|", "bar"))


@dataclasses.dataclass(frozen=True)
class CsvText:
    """The cells of a CSV file, without spaces around them.

    Attributes:
        names: Cells of the first line.
        rows: First line number, from 1, and cells of every other row that is not empty.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def read_csv(path: Path) -> CsvText:
    """Returns the cells of a comma-separated CSV file in UTF-8.

    Raises:
        DataError: The file is empty, or has another format, encoding or separator; the
            message names it.
    """
    with open_regular(path) as file:
        text = _decoded(path, file.read())
    rows = tuple(_rows(path, text))
    if not rows:
        raise DataError("D41", f"{path} is empty.", "data init FOLDER writes one")
    (_, names), *others = rows
    for mark, separator in _SEPARATORS:
        if len(names) == 1 and mark in names[0]:
            raise DataError(
                "D41",
                f"{path} is {separator}-separated, not comma-separated.",
                AS_CSV,
            )
    return CsvText(names, tuple(others))


def _rows(path: Path, text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yields the rows that are not empty, with the number of their first line.

    Raises:
        DataError: A row is not CSV; the message has its first line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    first = 1
    try:
        for cells in reader:
            stripped = tuple(cell.strip() for cell in cells)
            if any(stripped):
                yield first, stripped
            # A quoted cell can have several lines.
            first = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            "D41",
            f"{path} line {first:d} is not CSV: {shorten(error)}.",
            "a quotation mark may not be closed; in a quoted cell it is doubled",
        ) from error


def _decoded(path: Path, content: bytes) -> str:
    """Returns the text of a file in UTF-8; DataError names the format of others."""
    for mark, what in _MARKS:
        if content.startswith(mark):
            fix = "git lfs pull" if mark.startswith(b"version") else AS_CSV
            raise DataError("D41", f"{path} is {shorten(what)}.", fix)
    if b"\0" in content[:4096]:
        zeros = content[:4096].count(0) / len(content[:4096])
        what = "UTF-16 text, not UTF-8 text" if 0.3 < zeros < 0.7 else "a binary file"
        raise DataError("D41", f"{path} is {shorten(what)}.", AS_CSV)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, content, error.start) from error
    start = text.lstrip()[:40].casefold()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        raise DataError("D41", f"{path} is an HTML or XML file, not a CSV file.")
    if start.startswith(("{", "[")):
        raise DataError("D41", f"{path} is a JSON file, not a CSV file.", AS_CSV)
    return text


def _not_utf8(path: Path, content: bytes, position: int) -> DataError:
    """Returns the error for text in another encoding, which shows the line."""
    number = content.count(b"\n", 0, position) + 1
    line = content[content.rfind(b"\n", 0, position) + 1 :].split(b"\n", 1)[0]
    # Encodings of one byte per character fit every text, so only a reader can tell
    # which one it is.
    read = {
        encoding: line.decode(encoding, "replace").strip()
        for encoding in ("Windows-1252", "Shift-JIS", "GBK")
    }
    fitting = [name for name, text in read.items() if "\ufffd" not in text]
    first = fitting[0] if fitting else "Windows-1252"
    return DataError(
        "D41",
        f"{path} is not UTF-8 text: line {number} is {shown(read[first])} if it is "
        f"{shorten(' or '.join(fitting or [first]))}.",
        AS_CSV,
    )
