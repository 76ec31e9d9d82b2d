"""Names of splits and entries of feature files, as different programs spell them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import DataError, closest, join_names, shown, shown_name

SPLIT_NAMES: Mapping[str, Sequence[str]] = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "dev", "validation", "development"),
    "test": ("test", "testing"),
}
"""Split -> the names under which it is read; upper and lower case are equal."""

CUTOFF = 0.72
"""Minimum similarity of two names of which one can be a misspelling of the other."""

_MAX_LENGTH = 120


def spelling(name: Any) -> str:
    """Returns a name without case, separators and plural: "audiolength".

    Args:
        name: Key of a dict; "" is returned for a key that is not a short string.
    """
    if isinstance(name, bytes):
        name = name.decode("latin1")
    if not isinstance(name, str) or len(name) > _MAX_LENGTH:
        return ""
    plain = "".join(c for c in name.casefold() if c not in "_- ")
    return plain.removesuffix("s")


def find_splits(where: str, names: Iterable[Any]) -> tuple[dict[str, Any], list[Any]]:
    """Returns split -> its name in a file, and the names that are not of a split.

    Args:
        where: The file, for error messages.
        names: Names in the file, such as "train", "dev" and "Test".

    Raises:
        DataError: Two names are of the same split.
    """
    found: dict[str, Any] = {}
    known = {spelling(one): split for split in SPLITS for one in SPLIT_NAMES[split]}
    names = list(names)
    for split in SPLITS:
        same = [one for one in names if known.get(spelling(one)) == split]
        # The exact name is preferred, and the other one reported as not read.
        same = [split] if split in same else same
        if len(same) > 1:
            raise DataError(
                "D71",
                f"{where} contains {join_names(same)}, which are all read as "
                f"{shown(split)}.",
                f"keep one of them, and name it {shown_name(split)}",
            )
        if same:
            found[split] = same[0]
    return found, [one for one in names if one not in found.values()]


def nearest(name: Any, known: Iterable[str], alike: Mapping[str, str]) -> str:
    """Returns the known name that a name could stand for; "" for none.

    Args:
        name: Name of an entry.
        known: Names that are read.
        alike: Other names -> known name, for those that are not spelled alike.
    """
    text = name.decode("latin1") if isinstance(name, bytes) else str(name)
    known = list(known)
    start, _, end = text.partition("_")
    for other, meant in alike.items():
        if spelling(other) == spelling(text) and meant in known:
            return meant
        # Such as "video_length" for "vision_lengths".
        if end and spelling(other) == spelling(start):
            return next((k for k in known if spelling(k) == spelling(meant + end)), "")
    return closest(text, known, CUTOFF)


def describe_unread(names: Iterable[Any], hints: Mapping[str, str]) -> str:
    """Returns names with their nearest known ones, such as "video (for vision?)"."""
    listed = []
    for name in names:
        hint = hints.get(str(name), "")
        suffix = f" (nearest known entry: {shown_name(hint)})" if hint else ""
        listed.append(f"{shown_name(name)}{suffix}")
    shown_first, rest = listed[:12], len(listed) - 12
    more = f" and {rest:d} more" if rest > 0 else ""
    return f"{', '.join(map(str, shown_first))}{more}"
