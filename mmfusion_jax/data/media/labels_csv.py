"""Reads labels.csv: file, label or score, and optionally split, speaker, segment."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmfusion_jax.data.media.class_names import (
    MISSING_VALUES,
    likely_typos,
    same_spelling,
    sorted_classes,
    why_scores,
)
from mmfusion_jax.data.media.clip_files import MEDIA_SUFFIXES, ClipFolder
from mmfusion_jax.data.media.csv_text import QUOTE_FIX, read_csv
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import (
    DataError,
    closest,
    shorten,
    shown,
    shown_name,
    suggest,
)

LABEL, SCORE = "label", "score"
START, END = "start", "end"
COLUMNS = "file,label (or score) and optionally split,speaker,text,start,end"
SPLIT_NAMES = {
    **{name: "train" for name in ("train", "training")},
    **{name: "valid" for name in ("valid", "val", "dev", "validation", "development")},
    **{name: "test" for name in ("test", "testing")},
}
"""Name of a split in lower case, as datasets write it -> the split."""

_OTHER_NAMES = {
    "file": ("filename", "file_name", "path", "filepath", "file_path", "clip", "video"),
    LABEL: ("emotion", "class", "category", "target", "annotation", "y"),
}
_ONE_LINE = ("file", LABEL, SCORE, "split", START, END)
"""Columns whose cells have one line, unlike transcripts."""

_MAX_LISTED = 20
_IN_SECONDS = "times are in seconds, with a point: 90.5 is 1:30.5"


@dataclasses.dataclass(frozen=True)
class LabelRow:
    """One line of labels.csv.

    Attributes:
        line: Line number, from 1.
        file: Path relative to the folder of the clips, or an absolute one.
        label: Name of the class; "" without such a column.
        split: "train", "valid" or "test"; "" without such a column.
        speaker: Name of the speaker; "" without such a column.
        start: Start of the segment to use, in seconds.
        end: End of the segment; None is the end of the file.
        text: Transcript; "" if there is none.
        score: Number to predict; None without such a column.
        content: First file with the same content; "" if files were not compared.
    """

    line: int
    file: str
    label: str
    split: str = ""
    speaker: str = ""
    start: float = 0.0
    end: float | None = None
    text: str = ""
    score: float | None = None
    content: str = ""

    @property
    def key(self) -> str:
        """The unique key of the clip."""
        return self.file + self.segment

    @property
    def segment(self) -> str:
        """The segment to use, such as "@1.5-3"; "" for the entire file."""
        return segment_name(self.start, self.end)


def segment_name(start: float, end: float | None) -> str:
    """Returns the name of a segment, such as "@1.5-3"; "" for the entire file.

    Args:
        start: Start in seconds.
        end: End in seconds; None is the end of the file.
    """
    if end is None and not start:
        return ""
    # With the default of 6 digits, segments of a long film would have equal keys.
    return f"@{start:.10g}-{'' if end is None else format(end, '.10g')}"


@dataclasses.dataclass(frozen=True)
class Labels:
    """The rows of labels.csv.

    Attributes:
        rows: Rows whose file exists.
        absent: Key of every other row -> why the file is not there.
    """

    rows: tuple[LabelRow, ...]
    absent: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class _Problem:
    """One mistake in a table.

    Attributes:
        line: Line number; 0 for the entire table.
        text: The mistake.
        code: Error code.
        fix: Remedy.
    """

    line: int
    text: str
    code: str = "D41"
    fix: str = ""


def read_labels(
    path: Path,
    folder: Path,
    classes: Sequence[str] = (),
    speaker_column: str = "speaker",
    text_column: str = "",
    *,
    outside: bool = False,
    max_absent: float = 0.0,
) -> Labels:
    """Reads and checks labels.csv.

    Args:
        path: CSV file with the columns file and label or score, and optionally split,
            speaker, start and end; further columns are ignored.
        folder: Folder of the clips.
        classes: Allowed labels; () allows all.
        speaker_column: Name of the column with the speakers; "" reads none.
        text_column: Name of the column with the transcripts, some of which may be
            empty; "" reads none.
        outside: Files that are not in the folder are allowed.
        max_absent: Fraction of the rows whose file may be absent.

    Raises:
        DataError: A column, a value or a file is missing or wrong; the message lists
            all lines with a fix.
    """
    table = read_csv(path)
    columns = [name for name in (speaker_column, text_column) if name]
    names = _column_names(path, table.names, columns, folder)
    if not table.rows:
        raise DataError("D41", f"{path} has no rows after its header.", "add the clips")
    found = ClipFolder(folder, outside)
    rows: list[LabelRow] = []
    problems: list[_Problem] = []
    absent: dict[int, str] = {}
    for line, cells in table.rows:
        row, wrong = _row(line, names, cells, speaker_column, text_column)
        problems += wrong
        if row is not None:
            file = found.find(row.file)
            if not file:
                absent[line] = found.why_not_found(row.file)
            rows.append(dataclasses.replace(row, file=file or row.file))
    problems += _label_problems(rows, classes)
    problems += _duplicates(rows)
    if not problems and len({row.label for row in rows if row.label}) == 1:
        text = f"every row has the label {shown(rows[0].label)}"
        problems.append(_Problem(0, text, "D07", "add a class"))
    if problems:
        raise _error(path, problems)
    _check_absent(path, folder, rows, absent, max_absent)
    return Labels(
        tuple(row for row in rows if row.line not in absent),
        {row.key: absent[row.line] for row in rows if row.line in absent},
    )


def _column_names(
    path: Path, names: Sequence[str], wanted: Sequence[str], folder: Path
) -> tuple[str, ...]:
    """Returns the names of the columns; case is ignored where it is unambiguous.

    Raises:
        DataError: A column is missing or occurs twice.
    """
    known = ("file", LABEL, SCORE, "split", START, END, *wanted)
    found = list(names)
    for column in known:
        similar = [i for i, name in enumerate(names) if name.casefold() == column]
        if column not in names and len(similar) == 1:
            found[similar[0]] = column
    required = ["file", *([] if SCORE in found else [LABEL])]
    required += [name for name in wanted if name != "speaker"]
    if missing := [name for name in required if name not in found]:
        raise _missing_columns(path, names, missing, folder)
    for name, count in Counter(found).items():
        # Spreadsheets write empty columns, and pandas an index without a name.
        if count > 1 and name:
            raise DataError(
                "D41",
                f"{path} has the column {shown(name)} twice.",
                "remove one, or rename it",
            )
    return tuple(found)


def _missing_columns(
    path: Path, names: Sequence[str], missing: Sequence[str], folder: Path
) -> DataError:
    """Returns the error for columns that are missing, or for a missing header."""
    if "file" in missing and any(
        Path(name).suffix.lower() in MEDIA_SUFFIXES or ClipFolder(folder).find(name)
        for name in names
        if name
    ):
        return DataError(
            "D41",
            f"{path} has no header: its first line is {shown(','.join(names))}.",
            "add a first line with the names of the columns, such as file,label",
        )
    hints = []
    for column in missing:
        others = [n for n in names if n.casefold() in _OTHER_NAMES.get(column, ())]
        near = others[0] if others else closest(column, names, cutoff=0.5)
        hints.append(f"did you mean {shown(near)}?" if near else "")
    columns = "column" if len(missing) == 1 else "columns"
    hint = " ".join(filter(None, hints)) or suggest(missing[0], names)
    return DataError(
        "D41",
        f"{path} has no {shorten(columns)} "
        f"{' and '.join(map(shown, missing))} in its first line; {hint}",
        f"name the columns in the first line: {COLUMNS}",
    )


def _row(
    line: int,
    names: Sequence[str],
    cells: Sequence[str],
    speaker_column: str,
    text_column: str,
) -> tuple[LabelRow | None, list[_Problem]]:
    """Returns the row of a line, None if it is wrong, and what is wrong with it."""
    if problem := _malformed(line, names, cells):
        return None, [problem]
    values = dict(zip(names, (*cells, *[""] * len(names)), strict=False))
    filled = ("file", LABEL, SCORE, "split", speaker_column)
    numbers, problems = _numbers(line, values)
    problems = [*_empty_cells(line, values, filled), *problems]
    split = values.get("split", "")
    if split and split.casefold() not in SPLIT_NAMES:
        text = f"split {shown(split)} is unknown; {suggest(split, SPLITS)}"
        problems.append(_Problem(line, text, fix="train, valid or test"))
    if problems:
        return None, problems
    return LabelRow(
        line=line,
        file=values["file"],
        label=values.get(LABEL, ""),
        split=SPLIT_NAMES.get(split.casefold(), ""),
        speaker=values.get(speaker_column, "") if speaker_column else "",
        start=numbers[START] or 0.0,
        end=numbers[END],
        text=values.get(text_column, "") if text_column else "",
        score=numbers[SCORE],
    ), []


def _malformed(
    line: int, names: Sequence[str], cells: Sequence[str]
) -> _Problem | None:
    """Returns what is wrong with a line before its cells are looked at."""
    if any(cells[len(names) :]):
        text = f"{len(cells)} cells in {len(names)} columns"
        fix = "put cells that contain a comma between quotation marks"
        return _Problem(line, text, fix=fix)
    for name, cell in zip(names, cells, strict=False):
        if name in _ONE_LINE and len(parts := cell.splitlines()) > 1:
            text = (
                f"{shown_name(name)} is a quoted cell of {len(parts)} lines, from "
                f"{shown(parts[0])} to {shown(parts[-1])}: a quotation mark is missing"
            )
            return _Problem(line, text, fix=QUOTE_FIX)
    if cells[0].startswith("#") and not any(cells[1:]):
        text = f"{shown(cells[0])} is a comment"
        return _Problem(line, text, fix="remove comments")
    # Files that were put together, each with its header.
    if [cell.casefold() for cell in cells] == [name.casefold() for name in names]:
        return _Problem(line, "it repeats the header", fix="remove it")
    return None


def _empty_cells(
    line: int, values: Mapping[str, str], filled: Sequence[str]
) -> list[_Problem]:
    """Returns the cells that are empty and must not be."""
    empty = [name for name in filled if name and values.get(name) == ""]
    if not empty:
        return []
    verb = "is" if len(empty) == 1 else "are"
    required = {"file", LABEL, SCORE}.issuperset(empty)
    return [
        _Problem(
            line,
            f"{' and '.join(map(shown, empty))} {shorten(verb)} empty",
            fix="fill it in" if required else "fill it in, or remove the column",
        )
    ]


def _numbers(
    line: int, values: Mapping[str, str]
) -> tuple[dict[str, float | None], list[_Problem]]:
    """Returns the numbers in a line, and what is wrong with them."""
    numbers: dict[str, float | None] = dict.fromkeys((SCORE, START, END))
    problems = []
    for name in numbers:
        try:
            numbers[name] = _number(name, values.get(name, ""))
        except ValueError as error:
            fix = "a number with a point" if name == SCORE else _IN_SECONDS
            problems.append(_Problem(line, shorten(error), fix=fix))
    start, end = numbers[START] or 0.0, numbers[END]
    if end is not None and end <= start:
        text = f"end={end:.10g} is not after start={start:.10g}"
        problems.append(_Problem(line, text))
    return numbers, problems


def _number(name: str, text: str) -> float | None:
    """Returns the number in a cell; None for an empty one.

    Raises:
        ValueError: It is not a number, or not a time in seconds.
    """
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if math.isfinite(value) and (name == SCORE or value >= 0):
        return value
    what = "number" if name == SCORE else "time in seconds"
    raise ValueError(f"{shown_name(name)} {shown(text)} is not a {what}, such as 1.5")


def _label_problems(rows: Sequence[LabelRow], classes: Sequence[str]) -> list[_Problem]:
    """Returns labels that are not classes, likely typos, missing values and scores."""
    labels = [row.label for row in rows if row.label]
    if not labels:
        return []
    if classes:
        fix = "correct the row, or add the class to config.data.classes"
        return [
            _Problem(
                row.line,
                f"label {shown(row.label)} is not in classes; "
                f"{suggest(row.label, classes)}",
                "D07",
                fix,
            )
            for row in rows
            if row.label not in classes
        ]
    accept = f"--config.data.classes={','.join(sorted_classes(labels))}"
    accept = accept if len(accept) < 200 else "--config.data.classes=a,b,c"
    if why := why_scores(labels):
        fix = f"for regression name the column score; for classes, {shorten(accept)}"
        return [
            _Problem(0, f"the column label {shorten(why)}, as scores do", "D07", fix)
        ]
    counts = Counter(labels)
    return [
        *_missing_values(rows, counts, accept),
        *_spellings(rows, counts, accept),
    ]


def _missing_values(
    rows: Sequence[LabelRow], counts: Mapping[str, int], accept: str
) -> list[_Problem]:
    """Returns labels that are written for a missing value."""
    missing = MISSING_VALUES & counts.keys()
    fix = f"correct the row; if it is a class, {shorten(accept)}"
    return [
        _Problem(row.line, f"label {shown(row.label)} is a missing value", "D07", fix)
        for row in rows
        if row.label in missing
    ]


def _spellings(
    rows: Sequence[LabelRow], counts: Mapping[str, int], accept: str
) -> list[_Problem]:
    """Returns classes that differ in spelling only, and likely typos."""
    line_of = {row.label: row.line for row in reversed(rows)}
    problems = []
    groups = same_spelling(counts)
    for group in groups:
        listed = " and ".join(f"{shown(n)} ({counts[n]:d} rows)" for n in group)
        text = f"classes {listed} differ in spelling only"
        fix = f"use one spelling; if they are different classes, {shorten(accept)}"
        line = min(line_of[name] for name in group)
        problems.append(_Problem(line, text, "D07", fix))
    known = {name for group in groups for name in group} | MISSING_VALUES
    for name, near in likely_typos(counts).items():
        if name in known:
            continue
        text = (
            f"label {shown(name)} occurs once and is a likely typo of {shown(near)}, "
            f"which occurs {counts[near]:d} times"
        )
        fix = f"correct the row; if it is right, {shorten(accept)}"
        problems.append(_Problem(line_of[name], text, "D07", fix))
    return problems


def _duplicates(rows: Sequence[LabelRow]) -> list[_Problem]:
    """Returns rows of the same segment of the same file."""
    seen: dict[str, LabelRow] = {}
    problems = []
    for row in rows:
        first = seen.setdefault(row.key, row)
        if first is row:
            continue
        text = f"{shown(row.key)} is a duplicate of line {first.line:d}"
        if first.label != row.label:
            text += f" with label {shown(row.label)} instead of {shown(first.label)}"
        fix = "remove one, or give both a start and an end"
        problems.append(_Problem(row.line, text, fix=fix))
    return problems


def _error(path: Path, problems: Sequence[_Problem]) -> DataError:
    """Returns the error that lists all mistakes in a table."""
    problems = sorted(problems, key=lambda problem: problem.line)
    fix = "; ".join(list(dict.fromkeys(p.fix for p in problems if p.fix))[:3])
    code = problems[0].code
    if len(problems) == 1:
        where = f"{path} line {problems[0].line}" if problems[0].line else f"{path}"
        return DataError(code, f"{where}: {shorten(problems[0].text)}.", fix)
    lines = [
        f"  line {p.line}: {shorten(p.text)}" if p.line else f"  {shorten(p.text)}"
        for p in problems
    ]
    listed = "\n".join(_cut(lines))
    return DataError(code, f"{path}: {len(problems)} mistakes:\n{listed}", fix)


def _check_absent(
    path: Path,
    folder: Path,
    rows: Sequence[LabelRow],
    absent: Mapping[int, str],
    limit: float,
) -> None:
    """Raises DataError that lists the absent files if there are too many."""
    # The last condition: nothing can be left out of nothing.
    if len(absent) <= limit * len(rows) and len(absent) < len(rows):
        return
    lines = [
        f"  line {row.line}: {shorten(row.file)} {shorten(absent[row.line])}"
        for row in rows
        if row.line in absent
    ]
    fix = "paths are relative to the folder of the clips and case-sensitive"
    if any("outside" in reason for reason in absent.values()):
        fix += "; --config.data.outside_files=True allows files outside of it"
    if len(absent) < len(rows):
        fix += "; " + leave_out_fix(len(absent), len(rows))
    listed = "\n".join(_cut(lines))
    raise DataError(
        "D42",
        f"{len(absent)} of {len(rows)} files in {path} cannot be used from {folder}:\n"
        f"{listed}",
        fix,
    )


def leave_out_fix(count: int, total: int) -> str:
    """Returns the option that leaves out some of all clips."""
    # Rounded up, so that the option has the effect that the message promises.
    needed = -(-count * 100 // total) / 100
    return f"--config.data.max_left_out={needed:g} leaves them out"


def _cut(lines: Sequence[str]) -> list[str]:
    """Returns the first lines, and how many more there are."""
    if len(lines) <= _MAX_LISTED:
        return list(lines)
    return [*lines[:_MAX_LISTED], f"  and {len(lines) - _MAX_LISTED} more"]
