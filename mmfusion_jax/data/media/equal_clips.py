"""Finds rows of labels.csv with equal content, and segments that overlap."""

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from pathlib import Path

from mmfusion_jax.data.media.file_checks import check_header
from mmfusion_jax.data.media.labels_csv import LabelRow
from mmfusion_jax.errors import DataError, shorten, shown

_SAMPLE = 4096
"""Bytes of the beginning, the middle and the end that are compared first."""

_MAX_LISTED = 20
_MAX_PAIRS = 1000


def with_contents(rows: Sequence[LabelRow], folder: Path) -> list[LabelRow]:
    """Returns the rows with the first file of the same content.

    Files are compared by their size, then by parts, and then by their checksum, so
    files are read entirely only if they are likely to be equal.

    Args:
        rows: Rows of labels.csv.
        folder: Folder of the clips.
    """
    first = _first_of_equal(list(dict.fromkeys(row.file for row in rows)), folder)
    return [dataclasses.replace(row, content=first[row.file]) for row in rows]


def equal_rows(rows: Iterable[LabelRow]) -> list[list[LabelRow]]:
    """Returns the groups of rows with the same content, start and end."""
    groups: dict[Hashable, list[LabelRow]] = {}
    for row in rows:
        groups.setdefault((row.content or row.file, row.segment), []).append(row)
    return [group for group in groups.values() if len(group) > 1]


def overlapping_rows(
    rows: Iterable[LabelRow],
) -> Iterator[tuple[LabelRow, LabelRow]]:
    """Yields the pairs of rows with the same content whose segments overlap.

    Rows with the same start and end are not among them, see `equal_rows`.
    """
    groups: dict[str, list[LabelRow]] = {}
    for row in rows:
        groups.setdefault(row.content or row.file, []).append(row)
    for group in groups.values():
        before: list[LabelRow] = []
        for row in sorted(group, key=lambda row: (row.start, row.line)):
            before = [one for one in before if _end(one) > row.start]
            for one in before:
                if one.segment != row.segment:
                    yield (one, row) if one.line < row.line else (row, one)
            before.append(row)


def _end(row: LabelRow) -> float:
    return math.inf if row.end is None else row.end


def differing_pairs(
    rows: Sequence[LabelRow], splits: Sequence[str]
) -> Iterator[tuple[LabelRow, LabelRow, str]]:
    """Yields pairs of rows that must not differ, and in what they do.

    Equal clips must have one label, score and split, overlapping ones one split.

    Args:
        rows: Rows of labels.csv.
        splits: Split of each row; () if they are not known yet.
    """
    split_of = (
        dict(zip((row.line for row in rows), splits, strict=True)) if splits else {}
    )
    for first, *others in equal_rows(rows):
        for other in others:
            differences = [
                f"{shorten(name)} {shown(mine)} and {shown(yours)}"
                for name, mine, yours in (
                    ("label", first.label, other.label),
                    ("score", first.score, other.score),
                    ("split", split_of.get(first.line), split_of.get(other.line)),
                )
                if mine != yours
            ]
            if differences:
                yield first, other, ", ".join(differences)
    for first, other in overlapping_rows(rows) if splits else ():
        mine, yours = split_of[first.line], split_of[other.line]
        if mine != yours:
            yield first, other, f"overlap, split {shown(mine)} and {shown(yours)}"


def check_equal_rows(
    table: Path, rows: Sequence[LabelRow], splits: Sequence[str]
) -> None:
    """Raises DataError for equal clips with two labels, scores or splits.

    Overlapping segments in two splits are an error too, whoever speaks in them.

    Args:
        table: The labels file.
        rows: Its rows.
        splits: Split of each row; () if they are not known yet.
    """
    found = list(itertools.islice(differing_pairs(rows, splits), _MAX_PAIRS))
    if not found:
        return
    listed = [
        f"  line {first.line}: {shorten(first.key)} and line {other.line}: "
        f"{shorten(other.key)}: {shorten(what)}"
        for first, other, what in found[:_MAX_LISTED]
    ]
    if len(found) > _MAX_LISTED:
        listed.append(f"  and {len(found) - _MAX_LISTED} more")
    pairs = "pair" if len(found) == 1 else "pairs"
    raise DataError(
        "D47",
        f"{table}: {len(found)} {shorten(pairs)} of clips with equal or overlapping "
        "content differ:\n" + "\n".join(listed),
        "remove one row of each pair; --config.data.equal_clips=True accepts them",
    )


def _first_of_equal(files: Sequence[str], folder: Path) -> dict[str, str]:
    """Returns file -> the first of the files that have the same content."""
    first = {file: file for file in files}
    groups = [list(files)]
    for measure in (_size, _samples, _checksum):
        groups = [part for group in groups for part in _divided(group, folder, measure)]
    for group in groups:
        first |= dict.fromkeys(group, group[0])
    return first


def _divided(
    files: Sequence[str], folder: Path, measure: Callable[[Path], Hashable]
) -> list[list[str]]:
    """Returns the groups of several files for which `measure` returns the same."""
    groups: dict[Hashable, list[str]] = {}
    for file in files:
        try:
            value = measure(folder / file)
        # Two error pages of a download are equal, and the decoder names them.
        except (OSError, DataError):
            continue
        groups.setdefault(value, []).append(file)
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _samples(path: Path) -> Hashable:
    """Returns a checksum of parts of a file."""
    check_header(path)
    size = path.stat().st_size
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for position in (0, size // 2, max(0, size - _SAMPLE)):
            file.seek(position)
            digest.update(file.read(_SAMPLE))
    return digest.digest()


def _checksum(path: Path) -> Hashable:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
