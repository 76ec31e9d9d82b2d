"""Ids of examples, and the videos that they name."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from mmfusion_jax.data.feature_files.padded_sequences import CLIP_SEPARATOR
from mmfusion_jax.errors import shown

MISSING = ("", "none", "nan", "null")
"""Ids, in lower case, that stand for a missing one."""

UNAMBIGUOUS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        rf"(?P<video>.+?){re.escape(CLIP_SEPARATOR)}.*",  # abc$_$3
        r"[(\[] *b?['\"](?P<video>.+?)['\"] *,.*[)\]]",  # ('abc', 3)
        r"(?P<video>.+)\[[^\[\]]*\]",  # abc[3]
        r"(?P<video>.+)\([^()]*\)",  # abc(3)
    )
)
"""Forms in which one id alone shows its video."""

AMBIGUOUS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"(?P<video>.+)[/\\][^/\\]+",  # abc/3
        *(
            rf"(?P<video>.+){re.escape(separator)}[A-Za-z]{{0,4}}\d+(\.\w{{1,4}})?"
            for separator in "_-:#. "  # abc_3, abc_utt3, abc_3.mp4
        ),
        r"(?P<video>.+)_\d+(\.\d+)?_\d+(\.\d+)?",  # abc_1.5_3.2
    )
)
"""Forms in which an id shows its video only if all ids of the file have the form."""

BYTES = re.compile(r"b(['\"])(.*)\1", re.DOTALL)
NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
SPLIT_NAME = re.compile(r"(train|valid|val|dev|test)[^a-z]", re.IGNORECASE)
FEW = 10
"""Up to this number, names without a digit are those of classes or folders."""


@dataclasses.dataclass(frozen=True)
class Videos:
    """Videos of the examples of a file.

    Attributes:
        names: Split -> video of every example; "" where its id does not name one. Empty
            lists for a file without ids.
        unknown: Why videos in two splits would not be found, as a sentence; "" if they
            would be.
    """

    names: Mapping[str, Sequence[str]]
    unknown: str = ""


def known_ids(ids: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Returns the ids of a file, without those that identify no example.

    Args:
        ids: Split -> id of every example; () for a split without ids.

    Returns:
        Split -> its ids, "" for a missing one; () for all splits if all are missing, or
        if every split counts its own examples from 0 or 1.
    """
    cleaned = {split: tuple(map(_clean, part)) for split, part in ids.items()}
    if all(map(_are_rows, cleaned.values())) or not any(
        any(part) for part in cleaned.values()
    ):
        return {split: () for split in ids}
    return cleaned


def find_videos(ids: Mapping[str, Sequence[str]]) -> Videos:
    """Returns the video of every example, as far as the ids of a file name videos.

    An id such as "abc$_$3", "abc[3]" or a tuple names the video "abc". One such as
    "abc_3" or "abc/3" does so only if all ids of the file have this form, and if what
    is before the number differs between examples.

    Example:
        >>> from mmfusion_jax.data.feature_files.example_ids import find_videos
        >>> find_videos({"train": ["a1_0", "a1_1"], "test": ["a2_0"]}).names
        {'train': ['a1', 'a1'], 'test': ['a2']}
        >>> find_videos({"train": ["17", "4"], "test": ["5"]}).unknown
        "ids such as '17' name no video: a leak of videos cannot be detected"

    Args:
        ids: Split -> id of every example; "" for a missing one.
    """
    given = [one for part in ids.values() for one in part if one]
    if not given:
        return Videos(
            {split: () for split in ids},
            "no ids: clips and videos in two splits cannot be detected",
        )
    found = {one: _unambiguous(one) for one in given}
    found |= _ambiguous([one for one, name in found.items() if not name])
    names = {
        split: [found[one] if one else "" for one in part]
        for split, part in ids.items()
    }
    return Videos(names, _unknown(ids, names))


def _unknown(
    ids: Mapping[str, Sequence[str]], names: Mapping[str, Sequence[str]]
) -> str:
    """Returns why videos in two splits would not be found; "" if they would be."""
    pairs = [
        pair for s, part in names.items() for pair in zip(ids[s], part, strict=True)
    ]
    nameless = [one for one, name in pairs if not name]
    if len(nameless) == len(pairs):
        example = next(one for one in nameless if one)
        return (
            f"ids such as {shown(example)} name no video: a leak of videos cannot be "
            "detected"
        )
    if nameless:
        return (
            f"{len(nameless)} of {len(pairs)} ids, such as {shown(nameless[0])}, name "
            "no video: a leak of their videos cannot be detected"
        )
    if all(SPLIT_NAME.match(name + "$") for _, name in pairs):
        return (
            f"ids such as {shown(pairs[0][0])} begin with the name of their split: a "
            "leak of videos cannot be detected"
        )
    return ""


def _clean(name: str) -> str:
    """Returns an id without the mark of bytes; "" for a missing one."""
    match = BYTES.fullmatch(name.strip())
    text = match[2] if match else name.strip()
    return "" if text.lower() in MISSING else text


def _are_rows(names: Sequence[str]) -> bool:
    """Returns whether ids are the numbers 0 to n - 1 or 1 to n, in any order."""
    numbers = {int(one) for one in names if one.isdecimal() and len(one) < 10}
    count = len(names)
    return numbers in ({*range(count)}, {*range(1, count + 1)})


def _unambiguous(name: str) -> str:
    """Returns the video of an id that shows it alone, else ""."""
    matches = (pattern.fullmatch(name) for pattern in UNAMBIGUOUS)
    return next((match["video"].strip() for match in matches if match), "")


def _ambiguous(ids: Sequence[str]) -> dict[str, str]:
    """Returns id -> video by the first form that all ids have; {} without one."""
    if any(NUMBER.fullmatch(one) for one in ids):
        return {}
    fallback: dict[str, str] = {}
    for pattern in AMBIGUOUS:
        matches = {one: pattern.fullmatch(one) for one in ids}
        found = {one: match["video"] for one, match in matches.items() if match}
        videos = set(found.values())
        if len(found) < len(ids) or not _differ(videos):
            continue
        if len(videos) < len(ids):
            return found
        # Each id would name its own video: another form may fit better.
        fallback = fallback or found
    return fallback


def _differ(videos: set[str]) -> bool:
    """Returns whether names are those of videos, not of classes, splits or folders."""
    digits = any(any(map(str.isdecimal, name)) for name in videos)
    return len(videos) > 1 and (digits or len(videos) > FEW)
