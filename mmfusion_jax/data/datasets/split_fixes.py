"""Fixes for clips that cannot be split; only those that work for the table."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmfusion_jax.data.media.equal_clips import differing_pairs
from mmfusion_jax.data.media.labels_csv import LabelRow
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import DataError, join_names, shorten, shown

LAST_STEP = "without a validation split the run takes its last step"
_NO_SPEAKERS = "--config.data.speaker_column="
_MAX_SEEDS = 20
_MAX_GROUPS = 50
_MAX_NAMES = 5
_MAX_FIXES = 3


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """Options of `load_clips` that decide how clips are split.

    Attributes:
        val_fraction: Fraction of the clips for validation, without a split column.
        test_fraction: Fraction of the clips for test, without a split column.
        split_seed: Seed of a random split.
        equal_clips: Equal and overlapping clips may be in two splits.
    """

    val_fraction: float = 0.15
    test_fraction: float = 0.15
    split_seed: int = 0
    equal_clips: bool = False


Split = Callable[[Sequence[LabelRow], SplitOptions], Any]
"""Splits rows; raises DataError if they cannot be split."""


@dataclasses.dataclass(frozen=True)
class _Fix:
    """A change of the table or of the options.

    Attributes:
        text: What to do, or the effect of the flags.
        rows: The rows after it.
        options: The options after it.
        flags: Flags to add, if any.
    """

    text: str
    rows: Sequence[LabelRow]
    options: SplitOptions
    flags: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The flags and their effect."""
        return " ".join(part for part in (*self.flags, self.text) if part)


def working_fix(
    rows: Sequence[LabelRow],
    groups: Mapping[str, str],
    options: SplitOptions,
    split: Split,
) -> str:
    """Returns what makes a split possible, each part of it alone.

    Every fix is applied to the rows and options and is left out if the result cannot be
    split either.

    Args:
        rows: Rows of labels.csv that cannot be split.
        groups: Key -> group of a clip, which must be in one split; {} if unknown.
        options: How they are split.
        split: Splits rows.
    """
    alternatives = (
        _by_column(rows, groups, options)
        if any(row.split for row in rows)
        else _at_random(rows, groups, options)
    )
    found = []
    for fixes in alternatives:
        works = next((fix for fix in fixes if _works(fix, split)), None)
        if works and works.sentence not in found:
            found.append(works.sentence)
        if len(found) == _MAX_FIXES:
            break
    return "; or ".join(found) or _add_clips(rows)


def _works(fix: _Fix, split: Split) -> bool:
    """Returns whether clips can be split, and trained on, after a fix."""
    labels = {row.label for row in fix.rows if row.label}
    # One class is refused too, before clips are split.
    if not fix.rows or len(labels) == 1:
        return False
    try:
        split(fix.rows, fix.options)
    except DataError:
        return False
    return True


def _add_clips(rows: Sequence[LabelRow]) -> str:
    """Returns the fix for clips that cannot be split by any change of the table."""
    who = " of different speakers" if any(row.speaker for row in rows) else ""
    return (
        f"add clips: every class of the test split needs clips{shorten(who)} in train, "
        "and train and test need one clip at least"
    )


def _at_random(
    rows: Sequence[LabelRow], groups: Mapping[str, str], options: SplitOptions
) -> Iterator[Iterable[_Fix]]:
    """Yields alternatives for a random split, the first of each that works counts."""
    yield _accept(rows, options)
    yield _without_pairs(rows, options)
    yield _seeds(rows, options)
    yield _without_validation(rows, options)
    yield _assigned(rows, groups, options)
    yield _without_speakers(rows, options)


def _by_column(
    rows: Sequence[LabelRow], groups: Mapping[str, str], options: SplitOptions
) -> Iterator[Iterable[_Fix]]:
    """Yields alternatives for a split by column, as `_at_random`."""
    yield _accept(rows, options)
    yield _without_pairs(rows, options)
    yield _one_split(rows, groups, options)
    yield _into_train(rows, groups, options)
    yield _without_classes(rows, options)
    yield _assigned(rows, groups, options)
    if ignored := _ignore_speakers(rows):
        what = "ignores the speakers"
        yield (_Fix(what, ignored, options, (_NO_SPEAKERS,)),)
        moves = _into_train(ignored, {}, options)
        yield (
            dataclasses.replace(
                fix, text=f"{what}, and {shorten(fix.text)}", flags=(_NO_SPEAKERS,)
            )
            for fix in moves
        )


def _accept(rows: Sequence[LabelRow], options: SplitOptions) -> Iterator[_Fix]:
    """Yields the option that accepts equal and overlapping clips."""
    accepted = dataclasses.replace(options, equal_clips=True)
    yield _Fix("accepts them", rows, accepted, ("--config.data.equal_clips=True",))


def _without_pairs(rows: Sequence[LabelRow], options: SplitOptions) -> Iterator[_Fix]:
    """Yields the removal of one row of each pair of clips that must not differ."""
    splits = [row.split for row in rows] if any(row.split for row in rows) else ()
    pairs = list(differing_pairs(rows, splits))
    second = {other.key for _, other, _ in pairs}
    if second:
        kept = [row for row in rows if row.key not in second]
        yield _Fix("remove one row of each pair, the second", kept, options)


def _seeds(rows: Sequence[LabelRow], options: SplitOptions) -> Iterator[_Fix]:
    """Yields other seeds of the random split."""
    for seed in range(_MAX_SEEDS):
        other = dataclasses.replace(options, split_seed=seed)
        flag = f"--config.data.split_seed={seed:d}"
        yield _Fix("", rows, other, (flag,))


def _without_validation(
    rows: Sequence[LabelRow], options: SplitOptions
) -> Iterator[_Fix]:
    """Yields a split into train and test only, with this seed or another."""
    if not options.val_fraction:
        return
    fewer = dataclasses.replace(options, val_fraction=0.0)
    text = f"splits into train and test; {LAST_STEP}"
    for fix in (_Fix("", rows, fewer), *_seeds(rows, fewer)):
        flags = ("--config.data.val_fraction=0", *fix.flags)
        yield dataclasses.replace(fix, text=text, flags=flags)


def _without_speakers(
    rows: Sequence[LabelRow], options: SplitOptions
) -> Iterator[_Fix]:
    """Yields a split by class, in which a speaker can be in several splits."""
    ignored = _ignore_speakers(rows)
    if not ignored:
        return
    what = "splits at random by class: scores then hold for these speakers only"
    yield _Fix(what, ignored, options, (_NO_SPEAKERS,))
    for fix in _without_validation(ignored, options):
        flags = (_NO_SPEAKERS, *fix.flags)
        about = f"{what}, and {LAST_STEP}"
        yield dataclasses.replace(fix, text=about, flags=flags)


def _ignore_speakers(rows: Sequence[LabelRow]) -> list[LabelRow]:
    """Returns the rows without their speakers; [] if they have none."""
    if not any(row.speaker for row in rows):
        return []
    return [dataclasses.replace(row, speaker="") for row in rows]


def _assigned(
    rows: Sequence[LabelRow], groups: Mapping[str, str], options: SplitOptions
) -> Iterator[_Fix]:
    """Yields splits by column in which one group, or clip, is tested."""
    group_of = groups or {row.key: row.key for row in rows}
    for group in itertools.islice(dict.fromkeys(group_of.values()), _MAX_GROUPS):
        chosen = [
            dataclasses.replace(
                row, split="test" if group_of[row.key] == group else "train"
            )
            for row in rows
        ]
        what = _all_of(rows, [group]) if groups else shown(group)
        text = f"set the column split: test for {what}, train for all others"
        yield _Fix(text, chosen, options)


def _one_split(
    rows: Sequence[LabelRow], groups: Mapping[str, str], options: SplitOptions
) -> Iterator[_Fix]:
    """Yields the move of every group that is in two splits into one of them."""
    splits: dict[str, list[str]] = {}
    for row in rows:
        if groups:
            splits.setdefault(groups[row.key], []).append(row.split)
    shared = [group for group, names in splits.items() if len({*names}) > 1]
    if not shared:
        return
    for split in SPLITS:
        moved = [
            dataclasses.replace(row, split=split) if groups[row.key] in shared else row
            for row in rows
        ]
        listed = _all_of(rows, shared)
        yield _Fix(f"set split to {split} for {listed}", moved, options)


def _into_train(
    rows: Sequence[LabelRow], groups: Mapping[str, str], options: SplitOptions
) -> Iterator[_Fix]:
    """Yields the move of a clip, with its group, of every class that is not trained."""
    trained = {row.label for row in rows if row.split == "train"}
    first: dict[str, LabelRow] = {}
    for row in rows:
        if row.label not in trained:
            first.setdefault(row.label, row)
    if not first:
        return
    if groups:
        names = list(dict.fromkeys(groups[row.key] for row in first.values()))
        is_moved = lambda row: groups[row.key] in names
        listed = _all_of(rows, names)
        what = f"for {listed}"
    else:
        keys = {row.key for row in first.values()}
        is_moved = lambda row: row.key in keys
        lines = [str(row.line) for row in first.values()]
        what = f"in line {join_names(lines[:_MAX_NAMES])}"
        if len(lines) > _MAX_NAMES:
            what = f"for one clip of each of {len(lines)} classes without one in train"
    moved = [
        dataclasses.replace(row, split="train") if is_moved(row) else row
        for row in rows
    ]
    yield _Fix(f"set split to train {shorten(what)}", moved, options)


def _without_classes(rows: Sequence[LabelRow], options: SplitOptions) -> Iterator[_Fix]:
    """Yields the removal of the classes that are not trained."""
    trained = {row.label for row in rows if row.split == "train"}
    names = list(dict.fromkeys(r.label for r in rows if r.label not in trained))
    if not names:
        return
    kept = [row for row in rows if row.label in trained]
    listed = join_names(map(shown, names[:_MAX_NAMES]))
    if len(names) > _MAX_NAMES:
        listed = f"{len(names)} classes that have no clip in train"
    yield _Fix(f"remove the rows of {shorten(listed)}", kept, options)


def _all_of(rows: Sequence[LabelRow], names: Sequence[str]) -> str:
    """Returns "all clips of" some groups as text."""
    kind = "speaker" if any(row.speaker for row in rows) else "file"
    kind = kind if len(names) == 1 else f"{kind}s"
    listed = join_names(map(shown, names[:_MAX_NAMES]))
    if len(names) > _MAX_NAMES:
        return f"all clips of the {len(names)} {shorten(kind)} in several splits"
    return f"all clips of {shorten(kind)} {shorten(listed)}"
