"""Finds class names that are spelled in two ways, missing values, and scores."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mmfusion_jax.errors import closest, join_names, shown

MISSING_VALUES = frozenset(
    ("NA", "N/A", "#N/A", "<NA>", "nan", "NaN", "NAN", "null", "NULL", "None")
)
"""Cells that pandas, R or Excel write for a missing value."""

_SEPARATORS = re.compile(r"\s*[|;/+]\s*")


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
    """Returns class names in order: numbers by their value, other names by alphabet.

    Example:
        >>> from mmfusion_jax.data.media.class_names import sorted_classes
        >>> sorted_classes(["10", "9", "-1"]), sorted_classes(["b", "10", "9"])
        (('-1', '9', '10'), ('10', '9', 'b'))
    """
    distinct = sorted(set(names))
    values = [_number(name) for name in distinct]
    if any(value is None for value in values):
        return tuple(distinct)
    pairs = zip(values, distinct, strict=True)
    return tuple(name for _, name in sorted(pairs))  # pyright: ignore


def spelling(name: str) -> str:
    """Returns what two spellings of a name share.

    Spellings differ in upper and lower case, spaces, hyphens, accents or the format of
    a number.

    Example:
        >>> from mmfusion_jax.data.media.class_names import spelling
        >>> spelling("Très  haut") == spelling("tres_haut"), spelling("1.0")
        (True, '1')
    """
    number = _number(name)
    if number is not None:
        return f"{number:.12g}"
    letters = unicodedata.normalize("NFKD", name.casefold())
    kept = [c for c in letters if not unicodedata.combining(c)]
    joined = re.sub(r"[\s_\-\u200b\ufeff]+", "", "".join(kept))
    # A name of separators and accents only is itself.
    return joined or name


def same_spelling(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Returns the groups of names that differ in spelling only."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault(spelling(name), []).append(name)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def likely_typos(counts: Mapping[str, int]) -> dict[str, str]:
    """Returns class that occurs once -> similar class that occurs often."""
    common = [name for name, count in counts.items() if count > 3]
    rare = [name for name, count in counts.items() if count == 1]
    # Numbers are similar by chance.
    pairs = {
        name: closest(name, common, cutoff=0.65)
        for name in rare
        if _number(name) is None
    }
    return {name: near for name, near in pairs.items() if near}


def why_scores(labels: Sequence[str]) -> str:
    """Returns why labels are scores and not classes; "" if they can be classes."""
    values = [_number(label) for label in labels]
    if any(value is None for value in values):
        return ""
    distinct = len(set(values))
    fractions = any(value and not value.is_integer() for value in values)
    if distinct > max(2, len(labels) // 2) and (fractions or distinct > 20):
        return f"has {distinct:d} different numbers in {len(labels)} rows"
    return ""


def class_remarks(labels: Sequence[str]) -> Iterator[str]:
    """Yields what is unusual about class names that can be used."""
    counts = Counter(labels)
    values = [_number(name) for name in counts]
    if all(value is not None for value in values) and (
        any(value and not value.is_integer() for value in values) or len(counts) > 20
    ):
        yield (
            f"the {len(counts)} classes of column `label` are numbers; if they are "
            "scores, name the column `score`"
        )
    several = [
        name
        for name in counts
        if len(parts := _SEPARATORS.split(name)) > 1
        and all(parts)
        and any(part in counts for part in parts)
    ]
    if several:
        yield (
            f"classes {join_names(map(shown, several))} seem to be several classes in "
            "one cell; each is one class of its own"
        )


def _number(text: str) -> float | None:
    """Returns the number that a text is; None for other texts."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
