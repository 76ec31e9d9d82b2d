"""Checks a folder of clips with its labels.csv before any training."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmfusion_jax.data.datasets.clip_splits import split_clips, split_warnings
from mmfusion_jax.data.datasets.clips import find_table
from mmfusion_jax.data.datasets.split_fixes import SplitOptions
from mmfusion_jax.data.label_checks import label_warnings
from mmfusion_jax.data.media.class_names import sorted_classes
from mmfusion_jax.data.media.clip_files import ClipFolder
from mmfusion_jax.data.media.clip_remark import REMARK_KINDS
from mmfusion_jax.data.media.decode import AudioSampling, FrameSampling, read
from mmfusion_jax.data.media.equal_clips import with_contents
from mmfusion_jax.data.media.labels_csv import LABEL, SCORE, LabelRow, read_labels
from mmfusion_jax.data.media.resize import SquareResize
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.data.storage.worker_pool import Failure, map_in_processes
from mmfusion_jax.errors import DataError, shorten

_FRAMES, _SIZE, _RATE = 8, 32, 16000  # enough to find silent audio and black frames


@dataclasses.dataclass(frozen=True)
class Lengths:
    """Lengths of clips or segments in seconds.

    Attributes:
        minimum: The shortest.
        median: The median.
        maximum: The longest.
        total: The sum.
    """

    minimum: float
    median: float
    maximum: float
    total: float


@dataclasses.dataclass(frozen=True)
class FolderReport:
    """What a folder of clips and its labels.csv contain.

    Attributes:
        folder: Folder of the clips.
        table: The labels file.
        rows: Number of its rows.
        files: Number of different files that can be used.
        how: How the splits are made; "" if they cannot be.
        classes: Split, or "all" without splits -> class -> number of clips.
        scores: Minimum and maximum of the scores; () without.
        speakers: Speaker -> number of clips.
        lengths: Lengths of the clips; None if none can be decoded.
        with_audio: Number of clips with audio.
        with_video: Number of clips with video.
        channels: Number of audio channels -> number of clips.
        remarks: Kind of a remark, such as "silent" -> keys of the clips.
        left_out: Key of each clip that is absent or damaged -> the reason.
        without_row: Media files in the folder that the labels file does not name.
        warnings: What is unusual.
        problems: What a training would refuse.
    """

    folder: str
    table: str
    rows: int
    files: int
    how: str
    classes: dict[str, dict[str, int]]
    scores: tuple[float, ...]
    speakers: dict[str, int]
    lengths: Lengths | None
    with_audio: int
    with_video: int
    channels: dict[str, int]
    remarks: dict[str, list[str]]
    left_out: dict[str, str]
    without_row: list[str]
    warnings: list[str]
    problems: list[str]


@dataclasses.dataclass(frozen=True)
class _Measured:
    """Findings about one clip."""

    seconds: float
    audio: bool
    video: bool
    channels: int
    kinds: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Job:
    """A clip to decode."""

    path: Path
    start: float
    end: float | None


def check_folder(
    folder: str,
    labels: str = "",
    *,
    speaker_column: str = "speaker",
    workers: int | None = None,
    timeout: float = 120.0,
) -> FolderReport:
    """Reads labels.csv and decodes every clip, with few frames and nothing stored.

    Args:
        folder: Folder of the clips.
        labels: Path of the labels file; "" means `labels.csv` in the folder.
        speaker_column: Name of the column with the speakers.
        workers: Number of decoding processes; None uses one per core.
        timeout: Time limit of one file in seconds.

    Raises:
        DataError: The folder or the labels file is missing, or rows are wrong.
    """
    path, table = find_table(folder, labels)
    # Absent files are counted, and listed with the damaged ones.
    found = read_labels(table, path, (), speaker_column, max_absent=1.0)
    rows = with_contents(found.rows, path)
    jobs = [_Job(path / row.file, row.start, row.end) for row in rows]
    results = map_in_processes(_measure, jobs, workers=workers, timeout=timeout)
    measured = dict(zip((row.key for row in rows), track(
        results, len(jobs), f"decoding {len(jobs)} clips"), strict=True))  # fmt: skip
    good = {k: one for k, one in measured.items() if isinstance(one, _Measured)}
    failed = {
        key: _without_path(one.reason, key, path)
        for key, one in measured.items()
        if isinstance(one, Failure)
    }
    usable = [row for row in rows if row.key in good]
    splits, how, warnings, problems = _splits(table, usable)
    remarks: dict[str, list[str]] = {}
    for key, one in good.items():
        for kind in one.kinds:
            remarks.setdefault(kind, []).append(key)
    left_out = {**found.absent, **failed}
    if left_out:
        total = len(left_out) + len(good)
        problems.append(f"{len(left_out)} of {total} clips cannot be used")
    scores = [row.score for row in usable if row.score is not None]
    channels = Counter(str(one.channels) for one in good.values() if one.audio)
    return FolderReport(
        folder=str(path),
        table=str(table),
        rows=len(rows) + len(found.absent),
        files=len({row.file for row in usable}),
        how=how,
        classes={name: _counts(part) for name, part in splits.items()},
        scores=(min(scores), max(scores)) if scores else (),
        speakers=dict(Counter(row.speaker for row in usable if row.speaker)),
        lengths=_lengths([one.seconds for one in good.values()]),
        with_audio=sum(one.audio for one in good.values()),
        with_video=sum(one.video for one in good.values()),
        channels=dict(sorted(channels.items())),
        remarks={kind: remarks[kind] for kind in REMARK_KINDS if kind in remarks},
        left_out=left_out,
        without_row=ClipFolder(path).without_row([row.file for row in found.rows]),
        warnings=warnings,
        problems=problems,
    )


def _splits(
    table: Path, rows: Sequence[LabelRow]
) -> tuple[dict[str, list[LabelRow]], str, list[str], list[str]]:
    """Returns the rows of each split, how they are made, warnings and problems."""
    try:
        found = split_clips(table, rows, SplitOptions())
    except DataError as error:
        problem = f"{error.code} {error.args[0]}"
        if error.fix:
            problem += f" Fix for a training: {shorten(error.fix, 1000)}"
        return {"all": list(rows)}, "", [], [problem]
    splits, how, warnings = found.rows, found.how, split_warnings(found)
    names = sorted_classes(row.label for row in rows if row.label)
    for label, classes in ((LABEL, names), (SCORE, ())):
        values = {
            split: np.array(
                [
                    names.index(row.label) if label == LABEL else row.score
                    for row in part
                ]
            )
            for split, part in splits.items()
            if (names if label == LABEL else part[0].score is not None)
        }
        warnings += label_warnings(values, label, classes)
    return splits, how, warnings, []


def _measure(job: _Job) -> _Measured:
    """Returns findings about a clip."""
    clip = read(
        job.path,
        FrameSampling(_FRAMES, SquareResize(_SIZE)),
        AudioSampling(_RATE),
        start=job.start,
        end=job.end,
    )
    if clip.frames is None and clip.waveform is None:
        raise DataError("D31", f"{job.path} has no audio and video.")
    return _Measured(
        seconds=(clip.duration if job.end is None else job.end) - job.start,
        audio=clip.waveform is not None,
        video=clip.frames is not None,
        channels=clip.channels,
        kinds=tuple(dict.fromkeys(remark.kind for remark in clip.remarks)),
    )


def _without_path(reason: str, key: str, folder: Path) -> str:
    """Returns the reason why a clip failed, without its path."""
    file = key.rpartition("@")[0] or key
    path = str((folder / file).absolute())
    return reason.replace(path, "").lstrip(": ")


def _counts(rows: Sequence[LabelRow]) -> dict[str, int]:
    """Returns class -> number of clips; {"clips": n} without classes."""
    labels = [row.label for row in rows]
    counts = Counter(labels)
    if not any(labels):
        return {"clips": len(rows)}
    return {name: counts[name] for name in sorted_classes(labels)}


def _lengths(seconds: Sequence[float]) -> Lengths | None:
    if not seconds:
        return None
    median = float(np.median(seconds))
    return Lengths(min(seconds), median, max(seconds), float(sum(seconds)))
