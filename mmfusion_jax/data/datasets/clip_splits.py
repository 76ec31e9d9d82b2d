"""Splits of clips, and reasons why scores on them may be too optimistic."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmfusion_jax.data.media.class_names import (
    class_remarks,
    same_spelling,
    sorted_classes,
    spelling,
)
from mmfusion_jax.data.media.equal_clips import check_equal_rows, equal_rows
from mmfusion_jax.data.media.labels_csv import LabelRow
from mmfusion_jax.data.splits import SPLITS, random_splits
from mmfusion_jax.errors import ConfigError, DataError, join_names, shorten, shown

_BY_COLUMN = "by the column split"
_LAST_STEP = "without a validation split the run takes its last step"


def clip_groups(rows: Sequence[LabelRow], equal_clips: bool = False) -> dict[str, str]:
    """Returns key -> group of a clip, which must be in one split; {} if unknown.

    The group is the speaker, or the file if there are several segments of a file.
    Files with the same content are one group, named "a.mp4 = b.mp4".

    Args:
        rows: Rows of labels.csv.
        equal_clips: Files with the same content are several groups.
    """
    if any(row.speaker for row in rows):
        # Two spellings of a speaker are one group: if they are two speakers, the splits
        # are only a bit less even.
        names = {row.speaker for row in rows}
        merged = {
            spelling(group[0]): min(group) for group in same_spelling(sorted(names))
        }
        return {row.key: merged.get(spelling(row.speaker), row.speaker) for row in rows}
    names_of: dict[str, list[str]] = {}
    for row in rows:
        first = row.file if equal_clips else row.content or row.file
        names_of.setdefault(first, []).append(row.file)
    if len(names_of) == len(rows):
        return {}
    title = {
        name: " = ".join(dict.fromkeys(names))
        for names in names_of.values()
        for name in names
    }
    return {row.key: title[row.file] for row in rows}


def split_fractions(valid: float, test: float) -> dict[str, float]:
    """Returns split -> fraction of the clips."""
    if valid < 0 or test <= 0 or valid + test >= 1:
        raise ConfigError(
            "C10",
            f"config.data.val_fraction={shown(valid)} and "
            f"config.data.test_fraction={shown(test)} give an empty "
            "train or test split.",
            "fractions such as 0.15 and 0.15",
        )
    # In this order `random_splits` assigns the first examples of a class: a class of
    # two is in train and test.
    return {"train": 1 - valid - test, "test": test, "valid": valid}


def split_rows(
    table: Path,
    rows: Sequence[LabelRow],
    groups: Mapping[str, str],
    fractions: Mapping[str, float],
    seed: int,
    equal_clips: bool = False,
) -> tuple[dict[str, list[LabelRow]], str]:
    """Returns the rows of each split, and a description of the method.

    Args:
        table: The labels file.
        rows: Its rows.
        groups: Key -> group of a clip, as by `clip_groups`.
        fractions: Split -> fraction of the clips.
        seed: Seed of a random split.
        equal_clips: Clips with equal content may be in two splits.

    Raises:
        DataError: Train or test is empty, there are fewer groups than splits, a class
            is not in train, or equal clips are in two splits.
    """
    if any(row.split for row in rows):
        chosen, how = [row.split for row in rows], _BY_COLUMN
    else:
        _check_groups(rows, groups, fractions)
        speakers = [groups[row.key] for row in rows] if groups else None
        chosen = random_splits([row.label for row in rows], fractions, seed, speakers)
        kind = "by class" if speakers is None else "by speaker or file"
        how = f"at random {kind}, split_seed {seed}"
    if not equal_clips:
        check_equal_rows(table, rows, chosen)
    splits = {
        split: [row for row, name in zip(rows, chosen, strict=True) if name == split]
        for split in SPLITS
    }
    for split in ("train", "test"):
        if not splits[split]:
            fix = f"set the column split of some rows to {shown(split)}"
            if how != _BY_COLUMN:
                fix += (
                    ", or add clips: a random split needs two clips of a class, for "
                    "train and test"
                )
            raise DataError(
                "D45",
                f"split {shown(split)} is empty ({how}): {len(rows)} clips of "
                f"{len({row.label for row in rows})} classes.",
                shorten(fix),
            )
    _check_classes(table, splits)
    return {split: part for split, part in splits.items() if part}, how


def _check_groups(
    rows: Sequence[LabelRow], groups: Mapping[str, str], fractions: Mapping[str, float]
) -> None:
    """Raises DataError, with what works instead, if there are too few groups."""
    wanted = [split for split, fraction in fractions.items() if fraction]
    count = len(set(groups.values()))
    if not groups or count >= len(wanted):
        return
    by_speaker = any(row.speaker for row in rows)
    kind = "speakers" if by_speaker else "files with several segments"
    fixes = []
    if count == 2:
        fixes.append(
            f"--config.data.val_fraction=0 splits into train and test; {_LAST_STEP}"
        )
    if by_speaker:
        fixes.append(
            "--config.data.speaker_column= splits at random by class: scores then hold "
            "for these speakers only"
        )
    fixes.append("or set the column split")
    raise DataError(
        "D45",
        f"too few {shorten(kind)}: {count} for the splits {join_names(wanted)}.",
        shorten("; ".join(fixes)),
    )


def _check_classes(table: Path, splits: Mapping[str, Sequence[LabelRow]]) -> None:
    """Raises DataError for classes without training clips."""
    trained = {row.label for row in splits["train"]}
    wrong = [
        (split, row)
        for split, part in splits.items()
        for row in part
        if row.label not in trained
    ]
    if not wrong:
        return
    split, row = wrong[0]
    others = sorted({row.label for _, row in wrong} - {row.label})
    suffix = f"; nor have {join_names(map(shown, others))}" if others else ""
    raise DataError(
        "D46",
        f"{table} line {row.line}: class {shown(row.label)} of split "
        f"{shown(split)} has no clip in split 'train'{suffix}.",
        "move some of its clips to train, or remove the class",
    )


def split_warnings(
    splits: Mapping[str, Sequence[LabelRow]], groups: Mapping[str, str], how: str
) -> list[str]:
    """Returns reasons why scores may be too optimistic, or depend on few clips."""
    rows = [row for part in splits.values() for row in part]
    warnings = [*_speaker_warnings(rows, groups, how), *_equal_warnings(rows)]
    labels = [row.label for row in rows if row.label]
    warnings += class_remarks(labels)
    for split in ("valid", "test"):
        there = {row.label for row in splits.get(split, rows)}
        if absent := sorted_classes(set(labels) - there):
            warnings.append(
                f"{len(absent)} of {len(set(labels))} classes have no clip in "
                f"{shorten(split)}: {join_names(map(shown, absent))}"
            )
    return warnings


def _speaker_warnings(
    rows: Sequence[LabelRow], groups: Mapping[str, str], how: str
) -> Iterator[str]:
    """Yields why speakers may be in two splits."""
    if groups and any(row.speaker for row in rows):
        for group in same_spelling(row.speaker for row in rows):
            yield (
                f"speakers {join_names(map(shown, group))} differ in spelling only and "
                "are one speaker in the splits"
            )
    elif how.startswith("at random"):
        yield (
            "no column `speaker`: a random split may put a speaker into training and "
            "test (data leakage)"
        )
    else:
        yield "no column `speaker`: speakers in two splits (data leakage) not checked"


def _equal_warnings(rows: Sequence[LabelRow]) -> Iterator[str]:
    """Yields how many clips repeat others."""
    repeated = [row.key for group in equal_rows(rows) for row in group[1:]]
    if repeated:
        yield (
            f"{len(repeated)} of {len(rows)} clips repeat the content of another: "
            f"{join_names(repeated)}"
        )


def count_classes(rows: Sequence[LabelRow]) -> dict[str, int]:
    """Returns class -> number of its clips."""
    return dict(Counter(row.label for row in rows if row.label))
