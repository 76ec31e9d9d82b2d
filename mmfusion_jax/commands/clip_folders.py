"""Checks a folder of clips, and writes a labels.csv to fill in."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmfusion_jax.cli.flags import ParsedCommand
from mmfusion_jax.errors import join_names, printable, shorten, shown_name
from mmfusion_jax.paths import local_path

# Slow to import, and needed only once the flags are known to be valid.
if TYPE_CHECKING:
    from mmfusion_jax.data.datasets.folder_report import FolderReport

_MAX_LISTED = 20


def is_clip_folder(command: ParsedCommand) -> bool:
    """Returns whether `data check` was given a folder of clips."""
    from mmfusion_jax.data.media.clip_files import ClipFolder

    folder = local_path("the argument", command.positional)
    if not folder.is_dir() or command.flags["dataset"]:
        return False
    has_table = command.flags["labels"] or (folder / "labels.csv").exists()
    return bool(has_table or ClipFolder(folder).media)


def check_command(command: ParsedCommand) -> int:
    """Prints what a folder contains; returns 1 if a training would refuse it."""
    from mmfusion_jax.data.datasets.folder_report import check_folder
    from mmfusion_jax.results.json_file import dumps

    report = check_folder(
        command.positional,
        command.flags["labels"],
        speaker_column=command.flags["speaker_column"],
        workers=None if (count := command.flags["workers"]) < 0 else count,
    )
    if command.flags["json"]:
        print(dumps(report))
    else:
        print(printable("\n".join(report_lines(report))))
    return int(bool(report.problems))


def init_command(command: ParsedCommand) -> None:
    """Writes labels.csv with a row for every media file of a folder."""
    from mmfusion_jax.data.datasets.new_labels import write_labels
    from mmfusion_jax.results.json_file import dumps

    table, count = write_labels(command.positional, command.flags["label_from_folder"])
    if command.flags["json"]:
        print(dumps({"file": str(table), "rows": count}))
        return
    lines = [
        f"wrote {table} with {count} rows",
        "fill in the empty cells of the column label (for numbers, name it score) and "
        "of the column speaker, or remove it; optional columns: split, text, start, "
        "end",
        f"then check:  python -m mmfusion_jax data check {shorten(table.parent)}",
    ]
    print(printable("\n".join(lines)))


def report_lines(report: "FolderReport") -> Iterator[str]:
    """Yields the lines of a report."""
    yield (
        f"{shorten(report.folder)}: {report.rows:d} rows in "
        f"{shown_name(Path(report.table).name)}, {report.files:d} files can be used"
    )
    yield from _class_lines(report.classes, report.how)
    if report.scores:
        low, high = report.scores
        yield f"scores: {low:g} to {high:g}"
    if report.speakers:
        counts = [f"{shown_name(name)} ({n:d})" for name, n in report.speakers.items()]
        yield f"speakers: {len(counts)}: {join_names(counts)}"
    if report.lengths:
        one = report.lengths
        yield (
            f"lengths: {one.minimum:.2f} to {one.maximum:.2f} s, median "
            f"{one.median:.2f} s, {one.total:.0f} s in all"
        )
    channels = [
        f"{n:d} with {count} channel{'' if count == '1' else 's'}"
        for count, n in report.channels.items()
    ]
    suffix = f" ({join_names(channels)})" if channels else ""
    yield f"audio: {report.with_audio:d} clips{suffix}; video: {report.with_video:d}"
    yield from _finding_lines(report)


def _class_lines(classes: Mapping[str, Mapping[str, int]], how: str) -> Iterator[str]:
    """Yields the number of clips of every class in every split."""
    names = list(dict.fromkeys(name for part in classes.values() for name in part))
    width = max((len(shown_name(name)) for name in names), default=0)
    suffix = f"; splits {how}" if how else ""
    yield f"clips by class: {join_names(classes)}{suffix}"
    for name in names:
        counts = ", ".join(str(part.get(name, 0)) for part in classes.values())
        yield f"  {shown_name(name):{width}}  {counts}"


def _finding_lines(report: "FolderReport") -> Iterator[str]:
    """Yields remarks, clips that cannot be used, and problems."""
    from mmfusion_jax.data.media.clip_remark import REMARK_KINDS

    for kind, keys in report.remarks.items():
        yield f"remark: {len(keys)} clips have {REMARK_KINDS[kind]}: {join_names(keys)}"
    for line in report.warnings:
        yield f"remark: {shorten(line)}"
    if report.without_row:
        count, listed = len(report.without_row), join_names(report.without_row)
        yield f"remark: {count} media files have no row: {listed}"
    for line in report.problems:
        for part in line.split("\n"):
            yield f"problem: {shorten(part)}"
    for key, reason in list(report.left_out.items())[:_MAX_LISTED]:
        yield f"  {shorten(key)}  {shorten(reason)}"
    if len(report.left_out) > _MAX_LISTED:
        yield f"  and {len(report.left_out) - _MAX_LISTED} more"
