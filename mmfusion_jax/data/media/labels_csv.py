"""Reads labels.csv: file, label, and optionally split, speaker, text and segment."""

import csv
import dataclasses
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import DataError, closest, shorten, shown, shown_name, suggest
from mmfusion_jax.safe_load.regular_file import open_regular

REQUIRED = ("file", "label")
COLUMNS = "file,label and optionally split,speaker,text,start,end"
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class LabelRow:
    """One line of labels.csv.

    Attributes:
        line: Line number, from 1.
        file: Path relative to the folder of the clips.
        label: Name of the class.
        split: "train", "valid" or "test"; "" without such a column.
        speaker: Name of the speaker; "" without such a column.
        start: Start of the segment to use, in seconds.
        end: End of the segment; None is the end of the file.
        text: Transcript; "" if there is none.
    """

    line: int
    file: str
    label: str
    split: str = ""
    speaker: str = ""
    start: float = 0.0
    end: float | None = None
    text: str = ""

    @property
    def key(self) -> str:
        """The unique key of the clip."""
        if self.end is None and not self.start:
            return self.file
        return (
            f"{self.file}@{self.start:g}-{'' if self.end is None else f'{self.end:g}'}"
        )


def read_labels(
    path: Path,
    folder: Path,
    classes: Sequence[str] = (),
    speaker_column: str = "speaker",
    text_column: str = "",
) -> list[LabelRow]:
    """Reads and checks labels.csv.

    Args:
        path: CSV file with the columns file and label, and optionally split, speaker,
            start and end; further columns are ignored.
        folder: Folder of the clips.
        classes: Allowed labels; () allows all.
        speaker_column: Name of the column with the speakers.
        text_column: Name of the column with the transcripts, some of which may be
            empty; "" reads none.

    Raises:
        DataError: A column, a value or a file is missing or wrong; the message has the
            line number and a fix.
    """
    rows = list(_rows(path, speaker_column, text_column))
    if not rows:
        raise DataError("D41", f"{path} has no rows after its header.")
    _check_labels(path, rows, classes)
    _check_unique(path, rows)
    _check_files(path, rows, folder)
    return rows


def _rows(path: Path, speaker_column: str, text_column: str) -> Iterator[LabelRow]:
    """Yields the lines, each checked separately."""
    try:
        with (
            open_regular(path) as stream,
            io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as file,
        ):
            reader = csv.DictReader(file, strict=True, restval="")
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            wanted = [name for name in (speaker_column, text_column) if name]
            _check_columns(path, names, [n for n in wanted if n != "speaker"])
            for cells in reader:
                texts = {k: (v or "").strip() for k, v in cells.items() if k}
                row = _row(path, reader.line_num, texts, speaker_column)
                yield dataclasses.replace(row, text=texts.get(text_column, ""))
    except UnicodeDecodeError as error:
        raise DataError(
            "D41",
            f"{path} is not UTF-8 text: {error.reason}.",
            "save it as comma-separated CSV in UTF-8",
        ) from error
    except csv.Error as error:
        raise DataError(
            "D41", f"{path} is not a CSV file: {shorten(error)}."
        ) from error


def _check_columns(path: Path, names: Sequence[str], others: Sequence[str]) -> None:
    """Raises DataError unless all required columns and `others` are there, once."""
    wanted = [*REQUIRED, *others]
    if not names:
        raise DataError("D41", f"{path} is empty.", f"its first line is: {COLUMNS}")
    for mark, separator in ((";", "semicolon"), ("\t", "tab")):
        if len(names) == 1 and mark in names[0]:
            raise DataError(
                "D41",
                f"{path} is {separator}-separated, not comma-separated.",
                "save it as comma-separated CSV",
            )
    for name in wanted:
        if name not in names:
            raise DataError(
                "D41",
                f"{path} has no column {shown(name)} in its first line; "
                f"{suggest(name, names)}",
                f"the first line is: {COLUMNS}",
            )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError("D41", f"{path} has the column {shown(twice[0])} twice.")


def _row(path: Path, line: int, cells: dict[str, str], speaker_column: str) -> LabelRow:
    where = f"{path} line {line}"
    for name in (*REQUIRED, *({"split", speaker_column} & cells.keys())):
        if not cells[name]:
            raise DataError("D41", f"{where}: {shown(name)} is empty.", "fill it in")
    split = cells.get("split", "")
    if "split" in cells and split not in SPLITS:
        raise DataError(
            "D41", f"{where}: split {shown(split)} is unknown; {suggest(split, SPLITS)}"
        )
    start = _seconds(where, "start", cells.get("start", "")) or 0.0
    end = _seconds(where, "end", cells.get("end", ""))
    if end is not None and end <= start:
        raise DataError("D41", f"{where}: end={end:g} is not after start={start:g}.")
    speaker = cells.get(speaker_column, "")
    return LabelRow(line, cells["file"], cells["label"], split, speaker, start, end)


def _seconds(where: str, name: str, text: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise DataError(
            "D41",
            f"{where}: {shown_name(name)} {shown(text)} is not a time in "
            "seconds, such as 1.5.",
        )
    return value


def _check_labels(path: Path, rows: Sequence[LabelRow], classes: Sequence[str]) -> None:
    """Finds labels that are not classes, or that are likely typos."""
    counts = Counter(row.label for row in rows)
    for row in rows:
        if classes and row.label not in classes:
            raise DataError(
                "D07",
                f"{path} line {row.line}: label {shown(row.label)} is not in classes; "
                f"{suggest(row.label, classes)}",
                "correct the row, or add the class to config.data.classes",
            )
        if classes or counts[row.label] > 1:
            continue
        common = [name for name, count in counts.items() if count > 3]
        if near := closest(row.label, common, cutoff=0.65):
            raise DataError(
                "D07",
                f"{path} line {row.line}: label {shown(row.label)} occurs once and is "
                f"a likely typo of {shown(near)}, which occurs {counts[near]:d} times.",
                "correct the row; if it is right, --config.data.classes=a,b,c",
            )
    if len(counts) < 2:
        raise DataError(
            "D07",
            f"{path}: every row has the label {shown(rows[0].label)}.",
            "add a class",
        )


def _check_unique(path: Path, rows: Sequence[LabelRow]) -> None:
    seen: dict[str, int] = {}
    for row in rows:
        if row.key in seen:
            raise DataError(
                "D41",
                f"{path} line {row.line}: {shown(row.key)} is a duplicate of line "
                f"{seen[row.key]:d}.",
                "remove one, or give both a start and an end",
            )
        seen[row.key] = row.line


def _check_files(path: Path, rows: Sequence[LabelRow], folder: Path) -> None:
    """Raises DataError that lists all missing files."""
    # Unlike Path.is_file, os.path.isfile is False for a name that is too long.
    missing = [row for row in rows if not os.path.isfile(folder / row.file)]
    if not missing:
        return
    lines = [f"  line {row.line}: {shorten(row.file)}" for row in missing[:_MAX_LISTED]]
    if len(missing) > _MAX_LISTED:
        lines.append(f"  and {len(missing) - _MAX_LISTED} more")
    raise DataError(
        "D42",
        f"{len(missing)} of {len(rows)} files in {path} do not exist in {folder}:\n"
        + "\n".join(lines),
        "paths are relative to the folder of the clips and case-sensitive",
    )
