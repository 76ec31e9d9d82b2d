"""Every fix that a message offers for a table that cannot be split is applied."""

import dataclasses
import itertools
import re
from pathlib import Path

import pytest

from mmfusion_jax.data.datasets.clip_splits import split_clips
from mmfusion_jax.data.datasets.split_fixes import SplitOptions
from mmfusion_jax.data.media.equal_clips import differing_pairs
from mmfusion_jax.data.media.labels_csv import LabelRow
from mmfusion_jax.errors import DataError

TABLE = Path("labels.csv")


def rows_of(labels, speakers="", splits="", files="", spans=(), contents=""):
    """Rows with a letter each for label, speaker, split, file and content."""
    names = {"t": "train", "v": "valid", "e": "test"}
    found = []
    for i, label in enumerate(labels):
        file = f"{files[i] if files else i}.wav"
        start, end = spans[i] if spans else (0.0, None)
        found.append(
            LabelRow(
                i + 2, file, label,
                split=names[splits[i]] if splits else "",
                speaker=f"speaker {speakers[i]}" if speakers else "",
                start=start, end=end,
                content=f"{contents[i]}.wav" if contents else file,
            )
        )  # fmt: skip
    return found


S = [(i, i + 1) for i in range(12)]
"""Segments one after the other."""

O = [(i, i + 1.5) for i in range(12)]  # noqa: E741
"""Segments of which each overlaps the next one."""

TABLES = {
    # Without a column of splits.
    "too few of one class": rows_of("ababcc", "uvuvww"),
    "speaker is class, 2": rows_of("aaabbb", "xxxyyy"),
    "speaker is class, 3": rows_of("aaabbbccc", "xxxyyyzzz"),
    "a class of one speaker": rows_of("ababcccc", "uuvvzzzz"),
    "speaker is class, one clip each": rows_of("ab", "xy"),
    "one speaker": rows_of("abababab", "xxxxxxxx"),
    "two speakers": rows_of("aabbaabb", "xxxxyyyy"),
    "two speakers, one has all": rows_of("aabbaa", "xxxxyy"),
    "two speakers, one clip each": rows_of("ab", "xy"),
    "classes of one clip": rows_of("abcd"),
    "classes of one clip, a speaker each": rows_of("abcd", "wxyz"),
    "one clip": rows_of("a"),
    "two segments of one file": rows_of("abab", files="qqqq", spans=S),
    "segments of two files": rows_of("ababab", files="qqqrrr", spans=S),
    "file is class": rows_of("aabb", files="qqrr", spans=S),
    "file is class, 3": rows_of("aabbcc", files="qqrrss", spans=S),
    "speakers who overlap": rows_of("ababab", "xyxyxy", files="qqqqqq", spans=O),
    "overlapping pairs": rows_of("aabbaabb", "uvuvxyxy", files="qqqqrrrr", spans=O),
    "equal with two labels": rows_of("abab", contents="qqrs"),
    "all equal with two labels": rows_of("ab", contents="qq"),
    # With one.
    "no test": rows_of("abab", splits="tttt"),
    "no train": rows_of("abab", splits="eeee"),
    "no test, classes of one": rows_of("ab", splits="tt"),
    "class in test only": rows_of("ababcc", splits="tteeee"),
    "class in test only, two classes": rows_of("aabb", splits="teee"),
    "class in test only, train has one": rows_of("ab", splits="te"),
    "six classes in test only": rows_of("abcdefgabcdefg", splits="t" + 13 * "e"),
    "speaker in two splits": rows_of("abab", "xxyy", splits="tete"),
    "speaker is class, in two splits": rows_of("aabb", "xxyy", splits="tete"),
    "speaker is class, by column": rows_of("aabbcc", "xxyyzz", splits="ttttee"),
    "one speaker, by column": rows_of("abab", "xxxx", splits="ttee"),
    "file in two splits": rows_of("abab", files="qqrr", splits="tete", spans=S),
    "overlap in two splits": rows_of(
        "abab", "uvxy", files="qqqr", splits="tett", spans=O
    ),
    "overlap in two splits, no speaker": rows_of(
        "ababab", files="qqrrss", splits="tettee", spans=O
    ),
    "copy in validation": rows_of("abababa", splits="ttttvve", contents="0123045"),
    "only test is a copy": rows_of("aba", splits="tte", contents="010"),
}


def fixes_of(rows, options=SplitOptions()):  # noqa: B008
    """Returns the fixes for a table, [] if it can be split, with the message."""
    try:
        split_clips(TABLE, rows, options)
    except DataError as error:
        return error.fix.split("; or ")
    return []


def applied(fix, rows):
    """Returns rows and options after a fix, done as it says; None for other advice."""
    options = SplitOptions()
    flags = re.findall(r"--config\.data\.(\w+)=(\S*)", fix)
    for name, value in flags:
        if name == "speaker_column":
            rows = [dataclasses.replace(row, speaker="") for row in rows]
        else:
            typed = type(getattr(options, name))
            options = dataclasses.replace(options, **{name: typed(eval(value))})
    done = changed(fix, rows)
    return None if done is None and not flags else (done or rows, options)


def changed(fix, rows):
    """Returns the rows after a change of the table; None if a fix has none."""
    if found := re.search("split: test for (.*), train for all others", fix):
        rows = moved(rows, lambda row: True, "train")
        return moved(rows, lambda row: is_named(row, found[1]), "test")
    if found := re.search(r"set split to (\w+) for (all clips of .*)", fix):
        return moved(rows, lambda row: is_named(row, found[2]), found[1])
    if found := re.search(r"set split to (\w+) in line ([\d, ]+)", fix):
        lines = set(map(int, found[2].split(",")))
        return moved(rows, lambda row: row.line in lines, found[1])
    if "for one clip of each of 6 classes" in fix:
        first = {row.label: row.line for row in reversed(rows)}
        return moved(rows, lambda row: row.line in first.values(), "train")
    if "remove one row of each pair" in fix:
        splits = [row.split for row in rows] if rows[0].split else ()
        second = {other.line for _, other, _ in differing_pairs(rows, splits)}
        return [row for row in rows if row.line not in second]
    if found := re.search("remove the rows of (.*)", fix):
        return [row for row in rows if f"'{row.label}'" not in found[1]]
    return None


def moved(rows, condition, split):
    """Returns rows of which some are in another split."""
    return [
        dataclasses.replace(row, split=split) if condition(row) else row for row in rows
    ]


def is_named(row, text):
    """Returns whether a text names the speaker or file of a row."""
    return row.speaker in text if row.speaker else row.file in text


def can_be_split(rows):
    """Returns whether any assignment of the clips to train and test works."""
    for splits in itertools.product(("train", "test"), repeat=len(rows)):
        chosen = [dataclasses.replace(r, split=s) for r, s in zip(rows, splits)]  # noqa: B905
        if not fixes_of(chosen):
            return True
    return False


@pytest.mark.parametrize("name", TABLES)
def test_every_fix_that_is_offered_works(name):
    rows = TABLES[name]
    for fix in fixes_of(rows):
        done = applied(fix, rows)
        if done is None:
            assert fix.startswith("add clips")
            assert len(rows) > 8 or not can_be_split(rows)
            continue
        assert fixes_of(*done) == [], fix
        left, _ = done
        assert len({row.label for row in left}) > 1 and left


def test_the_tables_cannot_be_split():
    assert not [name for name, rows in TABLES.items() if not fixes_of(rows)]


def test_a_speaker_for_each_class_is_not_told_to_drop_validation():
    (fix,) = fixes_of(TABLES["speaker is class, 2"])
    assert fix.startswith("--config.data.speaker_column= splits at random by class")


def test_another_seed_is_offered_where_it_works():
    rows = rows_of("aababababb", "uuvvwwxxyy")
    assert not fixes_of(rows)
    rows = rows_of("ababaabb", "uuvvxxyy")
    for seed in range(20):
        fixes = fixes_of(rows, SplitOptions(split_seed=seed))
        assert not fixes or fixes[0].startswith("--config.data.split_seed=")


def test_speakers_who_overlap_are_in_one_split():
    spans = [(0, 2), (1, 3), (5, 6), (5.5, 7), (8, 9), (8.5, 9.5)]
    rows = rows_of("ababab", "uvwxyz", files="qqqqqq", spans=spans)
    found = split_clips(TABLE, rows, SplitOptions())
    assert sorted(sum(found.groups.values(), [])) == [
        f"speaker {a} + speaker {b}" for a, b in ("uv", "wx", "yz")
    ]
    accepted = split_clips(TABLE, rows, SplitOptions(equal_clips=True))
    assert len(sum(accepted.groups.values(), [])) == 6


@pytest.mark.parametrize("contents", ["", "0022"])
def test_segments_that_overlap_in_two_splits_are_refused(contents):
    """Whoever speaks in them, and in copies of a file too."""
    spans = [(0, 2), (1.5, 3), (3, 4), (4, None)]
    files = "0123" if contents else "0022"
    rows = rows_of("abab", "uvwx", "tevt", files, spans, contents)
    with pytest.raises(DataError) as caught:
        split_clips(TABLE, rows, SplitOptions())
    assert caught.value.code == "D47" and "1 pair of clips" in caught.value.args[0]
    assert "line 2: 0.wav@0-2 and line 3" in caught.value.args[0]
    assert "overlap, split 'train' and 'test'" in caught.value.args[0]
    # One ends where the next one starts.
    spans[1] = (2, 3)
    assert not fixes_of(rows_of("abab", "uvwx", "tevt", files, spans, contents))
    # An entire file contains its segments.
    spans[0] = (0, None)
    assert fixes_of(rows_of("abab", "uvwx", "tevt", files, spans, contents))
