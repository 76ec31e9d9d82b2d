"""Writes a labels.csv to fill in."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

from mmfusion_jax.data.datasets.ravdess.filenames import (
    AUDIO_ONLY,
    AUDIO_VIDEO,
    EMOTIONS,
    SPEECH,
    parse,
)
from mmfusion_jax.data.media.clip_files import ClipFolder
from mmfusion_jax.data.option_checks import data_folder
from mmfusion_jax.data.storage.array_record_store import when_not_writable
from mmfusion_jax.errors import DataError

LAYOUT = "  FOLDER/a.mp4, FOLDER/more/b.wav, ..."
NAME = "labels.csv"


def write_labels(folder: str, label_from_folder: bool = False) -> tuple[Path, int]:
    """Writes labels.csv with a row for every media file; never overwrites one.

    The labels and speakers of files with names of RAVDESS are filled in.

    Args:
        folder: Folder of the clips.
        label_from_folder: The label is the name of the folder of a file.

    Returns:
        The file, and its number of rows.

    Raises:
        DataError: The folder has no media files, or has a labels.csv.
    """
    path = data_folder(folder, LAYOUT, "name the folder of the clips")
    table = path / NAME
    rows = list(_rows(path, label_from_folder))
    if not rows:
        raise DataError("D48", f"{path} contains no media files.", "name their folder")
    try:
        with (
            when_not_writable(table),
            table.open("x", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file).writerows([("file", "label", "speaker"), *rows])
    except FileExistsError as error:
        raise DataError(
            "D48",
            f"{table} exists, and is not overwritten.",
            "edit it, or rename it first",
        ) from error
    return table, len(rows)


def _rows(folder: Path, label_from_folder: bool) -> Iterator[tuple[str, str, str]]:
    """Yields file, label and speaker; "" where they are not known."""
    files = ClipFolder(folder).media
    codes = {file: parse(Path(file)) for file in files}
    seen = {c.recording for c in codes.values() if c and c.modality == AUDIO_VIDEO}
    for file in files:
        code = codes[file]
        parent = os.path.basename(os.path.dirname(file))
        if code is None:
            yield file, parent if label_from_folder else "", ""
        # Every recording of RAVDESS once: the wav has the audio of the mp4.
        elif code.channel == SPEECH and (
            code.modality == AUDIO_VIDEO
            or (code.modality == AUDIO_ONLY and code.recording not in seen)
        ):
            yield file, EMOTIONS[code.emotion], f"actor {code.actor:02d}"
