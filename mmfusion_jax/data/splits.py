"""Who goes into which split: at random and stratified, by speaker, or by folds."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from mmfusion_jax.errors import ConfigError, DataError

SPLITS = ("train", "valid", "test")
PROTOCOLS = ("honest", "fixed", "paper")
Group = TypeVar("Group", bound=Hashable)


def random_splits(
    labels: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    speakers: Sequence[str] | None = None,
) -> list[str]:
    """Gives every example a split.

    Without speakers every class is divided by itself, so that each split has its share
    of each. With speakers whole speakers are divided, the largest first, each to the
    split in which the classes it brings are missed most.

    Args:
        labels: the class of each example.
        fractions: split -> share of the examples; shares add up to 1.
        seed: of the order in which examples or speakers are taken.
        speakers: of each example; None if nothing is known.

    Returns:
        The split of each example.

    Raises:
        DataError: there are fewer speakers than splits.
    """
    rng = np.random.default_rng(seed)
    if speakers is None:
        return _by_class(labels, fractions, rng)
    return _by_speaker(labels, speakers, fractions, rng)


def cross_validation_split(
    groups: Sequence[Group],
    fold: int,
    folds: int,
    protocol: str,
    size: int | None = None,
) -> dict[str, tuple[Group, ...]]:
    """The groups of each split in one fold of a cross-validation.

    Fold f tests groups f*size .. f*size + size-1, or, without a size, every folds-th
    group from the f-th on. The honest protocol chooses its step on the groups that the
    next fold tests, taken out of training. The other two train on all groups that are
    not tested: the fixed protocol chooses nothing and takes the last step, the protocol
    of the paper chooses on the test fold itself.

    Args:
        groups: all groups, in order; those after folds * size are never tested.
        fold: 0..folds-1.
        folds: how many there are.
        protocol: "honest", "fixed" or "paper".
        size: groups that a fold tests; None tests every group in some fold.

    Raises:
        ConfigError: the fold or the protocol is unknown, the folds do not fit, or they
            leave nothing to train on.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(
            "C03", f"protocol={protocol!r} is unknown; known: {', '.join(PROTOCOLS)}."
        )
    least = size or 1
    if not 0 <= fold < folds or folds < 2 or folds * least > len(groups):
        raise ConfigError(
            "C06",
            f"fold={fold} of folds={folds} does not fit {len(groups)} groups, "
            f"{least} for each fold.",
            f"folds=2 to {len(groups) // least}, fold below that",
        )

    def tested(number: int) -> tuple[Group, ...]:
        if size is None:
            return tuple(groups[number::folds])
        return tuple(groups[number * size : (number + 1) * size])

    splits = {"valid": tested((fold + 1) % folds)} if protocol == "honest" else {}
    splits["test"] = tested(fold)
    taken = {group for part in splits.values() for group in part}
    train = tuple(g for g in groups if g not in taken)
    if not train:
        raise ConfigError(
            "C06",
            f"protocol={protocol!r} leaves nothing to train on with folds={folds}.",
            "--config.data.folds=5",
        )
    return {"train": train, **splits}


def _by_class(
    labels: Sequence[str], fractions: Mapping[str, float], rng: np.random.Generator
) -> list[str]:
    """Divides each class by itself."""
    splits = [""] * len(labels)
    for label in sorted(set(labels)):
        members = rng.permutation([i for i, one in enumerate(labels) if one == label])
        names = np.repeat(list(fractions), _shares(len(members), fractions))
        for member, name in zip(members, names, strict=True):
            splits[member] = str(name)
    return splits


def _shares(count: int, fractions: Mapping[str, float]) -> list[int]:
    """Whole numbers near `fractions` of `count`; 0 only where nothing else is left.

    Examples are handed out one by one, each to the split that is furthest below its
    share: first one to each split in their order, then by what is missing.
    """
    shares = dict.fromkeys(fractions, 0)
    for _ in range(count):
        missing = {k: v * count - shares[k] for k, v in fractions.items()}
        empty = [k for k, v in shares.items() if not v and fractions[k]]
        name = empty[0] if empty else max(missing, key=lambda k: missing[k])
        shares[name] += 1
    return list(shares.values())


def _by_speaker(
    labels: Sequence[str],
    speakers: Sequence[str],
    fractions: Mapping[str, float],
    rng: np.random.Generator,
) -> list[str]:
    """Divides whole speakers."""
    brings: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for speaker, label in zip(speakers, labels, strict=True):
        brings[speaker][label] += 1
    wanted = [name for name, share in fractions.items() if share]
    if len(brings) < len(wanted):
        raise DataError(
            "D45",
            f"{len(brings)} speakers cannot be divided into the splits "
            f"{', '.join(wanted)}.",
            "add speakers, or a split column",
        )
    total = Counter(labels)
    missed = {k: {c: n * fractions[k] for c, n in total.items()} for k in wanted}
    order = sorted(rng.permutation(sorted(brings)), key=lambda s: -brings[s].total())
    home: dict[str, str] = {}
    for place, speaker in enumerate(order):
        empty = [k for k in wanted if k not in home.values()]
        open_to = empty if len(order) - place <= len(empty) else wanted
        need = lambda k, s=speaker: sum(
            n * missed[k][c] / total[c] for c, n in brings[s].items()
        )
        home[speaker] = max(open_to, key=need)
        for label, count in brings[speaker].items():
            missed[home[speaker]][label] -= count
    return [home[speaker] for speaker in speakers]
