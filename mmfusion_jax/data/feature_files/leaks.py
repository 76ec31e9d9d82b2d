"""Finds examples that are in two splits: by id, by video, and by equal features."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfusion_jax.results.json_file import check

TEXTS = ("text", "pieces", "words")
"""Modalities in which two clips can be equal: people say the same words."""

MOST = 10
"""Number of examples that a message lists."""


@dataclass(frozen=True)
class EqualExamples:
    """Examples whose features are equal in all modalities, in more than one split.

    Attributes:
        splits: Split of each.
        indices: Position of each in its split.
    """

    splits: list[str]
    indices: list[int]

    def __post_init__(self) -> None:
        check(len(self.splits) == len(self.indices), "equal: not of the same length")
        check(len({*self.splits}) > 1, "equal: of one split only")
        check(min(self.indices) >= 0, "equal: negative position")


def digest(inputs: Mapping[str, np.ndarray]) -> str:
    """Returns a hash of the features of an example in all modalities.

    Args:
        inputs: Modality -> (t f) or (t).

    Returns:
        16 hex digits; "" for an example that may equal another by chance: one without
        audio and video, or with nothing but zeros there.
    """
    if not any(x.any() for name, x in inputs.items() if name not in TEXTS):
        return ""
    found = hashlib.blake2b(digest_size=8)
    for name in sorted(inputs):
        found.update(repr((name, inputs[name].shape)).encode())
        found.update(np.ascontiguousarray(inputs[name]).tobytes())
    return found.hexdigest()


def find_equal(digests: Mapping[str, Sequence[str]]) -> list[EqualExamples]:
    """Returns the examples with equal features that are in more than one split.

    Args:
        digests: Split -> `digest` of every example.
    """
    groups: dict[str, EqualExamples] = {}
    places: dict[str, list[tuple[str, int]]] = {}
    for split, part in digests.items():
        for index, one in enumerate(part):
            places.setdefault(one, []).append((split, index))
    for one, found in places.items():
        if one and len({split for split, _ in found}) > 1:
            splits, indices = zip(*found, strict=True)
            groups[one] = EqualExamples(list(splits), list(indices))
    return list(groups.values())


def in_several_splits(names: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Returns name -> its splits, for names that are in more than one split.

    Args:
        names: Split -> names, such as ids or videos; "" is not a name.
    """
    seen: dict[str, list[str]] = {}
    for split, part in names.items():
        for one in sorted(set(part) - {""}):
            seen.setdefault(one, []).append(split)
    return {one: where for one, where in seen.items() if len(where) > 1}
