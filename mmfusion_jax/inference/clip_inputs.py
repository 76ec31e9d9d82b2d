"""Clips that are given by a file, a folder or a labels.csv."""

import dataclasses
import math
import os
from pathlib import Path

from mmfusion_jax.data.media.clip_files import MEDIA_SUFFIXES, ClipFolder
from mmfusion_jax.data.media.csv_text import read_csv
from mmfusion_jax.data.media.labels_csv import segment_name
from mmfusion_jax.errors import (
    DataError,
    join_names,
    shorten,
    shown,
    shown_name,
    shown_path,
    type_name,
)
from mmfusion_jax.paths import local_path

FEATURE_SUFFIXES = (".npz", ".pkl", ".pickle", ".p")
SPAN = ("start", "end")


@dataclasses.dataclass(frozen=True)
class ClipInput:
    """A clip, or a segment of one, with its transcript.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.inference.ClipInput("talk.mp4", text="so good", start=1.5, end=3).key
        'talk.mp4@1.5-3'

    Attributes:
        file: The video or audio file.
        text: Transcript; "" if there is none.
        start: Start of the segment, in seconds.
        end: End of the segment; None is the end of the file.
        name: Name of the file in results; "" is its path.
    """

    file: str | os.PathLike[str]
    text: str = ""
    start: float = 0.0
    end: float | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.file, str | os.PathLike):
            raise DataError(
                "D26", f"ClipInput: file is {type_name(self.file)}.", "a path"
            )
        if not isinstance(self.text, str):
            raise DataError(
                "D26",
                f"{shorten(self.named)}: text is {type_name(self.text)}.",
                'a str; "" is none',
            )
        end = math.inf if self.end is None else self.end
        times = isinstance(self.start, int | float) and isinstance(end, int | float)
        if not times or not 0 <= self.start < end or self.start == math.inf:
            raise DataError(
                "D26",
                f"{shorten(self.named)}: start={shown(self.start)}, "
                f"end={shown(self.end)} is not a segment.",
                "0 <= start < end, in seconds",
            )

    @property
    def path(self) -> Path:
        """The path of the file."""
        return local_path("file", self.file)

    @property
    def named(self) -> str:
        """The file, for messages."""
        return shorten(shown_path(self.name or os.fspath(self.file)))

    @property
    def key(self) -> str:
        """File name with the segment."""
        return (self.name or os.fspath(self.file)) + self.segment

    @property
    def segment(self) -> str:
        """The segment, such as "@1.5-3"; "" for the entire file."""
        return segment_name(self.start, self.end)


def has_features(path: Path) -> bool:
    """Returns whether a path is a file of features, or a folder of such files."""
    if os.path.isdir(path):  # False for what cannot be a path
        names = [name.lower() for name in os.listdir(path)]
        clips = "labels.csv" in names or any(map(_is_clip, names))
        return not clips and any(name.endswith(FEATURE_SUFFIXES) for name in names)
    return path.suffix.lower() in FEATURE_SUFFIXES


def _is_clip(name: str) -> bool:
    """Returns whether a file is a clip by its name."""
    return os.path.splitext(name)[1].lower() in MEDIA_SUFFIXES


def expand_clips(path: Path, text_column: str = "text") -> list[ClipInput]:
    """Returns the clips that a path stands for.

    Args:
        path: A video or audio file, a folder of such files, or a labels.csv, or a
            folder with one: its columns file, text, start and end are read.
        text_column: Name of the column with the transcripts.

    Raises:
        DataError: The folder has no clip, or the table is malformed.
    """
    path = local_path("path", path)
    if path.suffix.lower() == ".csv":
        return [clip for clip, _ in clips_of_table(path, text_column)]
    if not os.path.isdir(path):
        return [ClipInput(path)]
    if is_file(path / "labels.csv"):
        return [clip for clip, _ in clips_of_table(path / "labels.csv", text_column)]
    files = ClipFolder(path).media
    if not files:
        raise DataError(
            "D30",
            f"folder {shown_path(path)} has no video or audio file.",
            f"files such as {join_names(sorted(MEDIA_SUFFIXES)[:8])}",
        )
    return [ClipInput(path / file, name=file) for file in files]


def clips_of_table(
    table: Path, text_column: str = "text"
) -> list[tuple[ClipInput, dict[str, str]]]:
    """Returns the clips of a labels.csv with the cells of their rows by column.

    A file that does not exist is kept: it is an error of its clip alone.

    Args:
        table: The table, in the folder of the clips.
        text_column: Name of the column with the transcripts.

    Raises:
        DataError: The table is malformed.
    """
    content = read_csv(table)
    known = ("file", text_column, *SPAN)
    # Case is ignored, as in the training.
    lower = {name.casefold(): name for name in known}
    names = [lower.get(name.casefold(), name) for name in content.names]
    if "file" not in names:
        raise DataError(
            "D41",
            f"{table} has no column 'file'; it has {join_names(content.names)}.",
            "its columns are file and optionally text, start, end",
        )
    folder = ClipFolder(table.parent, outside=True)
    found = []
    for line, cells in content.rows:
        row = dict(zip(names, cells, strict=False))
        if not (cell := row.get("file", "")):
            raise DataError("D41", f"{table}, line {line}: 'file' is empty.")
        start, end = (_seconds(table, line, name, row.get(name)) for name in SPAN)
        if end is not None and end <= (start or 0.0):
            raise DataError(
                "D41",
                f"{table}, line {line}: end={end:.10g} is not after "
                f"start={start or 0.0:.10g}.",
            )
        file, text = folder.find(cell) or cell, row.get(text_column, "")
        clip = ClipInput(table.parent / file, text, start or 0.0, end, file)
        found.append((clip, row))
    if not found:
        raise DataError("D41", f"{table} has no rows after its header.")
    return found


def _seconds(table: Path, line: int, name: str, text: str | None) -> float | None:
    """Returns a time of a table in seconds; None for an empty cell."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise DataError(
            "D41",
            f"{table}, line {line}: {shown_name(name)}={shown(text)} is not a time in "
            "seconds.",
            "such as 12.5",
        )
    return value


def is_file(path: Path) -> bool:
    """Returns whether a path is a file; False for one that cannot be a path."""
    return os.path.isfile(path)


def not_found(clip: ClipInput) -> DataError:
    """Returns the error for a clip whose file is not there."""
    path = clip.path
    reason = ClipFolder(path.parent).why_not_found(path.name)
    suffix = "" if reason.endswith("?") else "."
    return DataError(
        "D30",
        f"{shorten(clip.named)} {shorten(reason)}{suffix}",
        "a video or audio file, a folder of these, or a labels.csv",
    )
