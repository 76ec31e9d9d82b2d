"""Data splits: stratified random, by speaker, and cross-validation folds."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    join_names,
    shown,
    shown_name,
    suggest,
)

SPLITS = ("train", "valid", "test")
PROTOCOLS = ("validation", "fixed_epochs", "as_published")
Group = TypeVar("Group", bound=Hashable)


def random_splits(
    labels: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    speakers: Sequence[str] | None = None,
) -> list[str]:
    """Assigns every example to a split.

    Without speakers every class is split separately (stratified). With speakers each
    speaker goes entirely into one split, the largest first, into the split that lacks
    its classes most.

    Args:
        labels: Class of each example.
        fractions: Split -> fraction of the examples; they add up to 1.
        seed: Seed of the order in which examples or speakers are assigned.
        speakers: Speaker of each example; None if unknown.

    Returns:
        The split of each example.

    Raises:
        DataError: There are fewer speakers than splits.
    """
    rng = np.random.default_rng(seed)
    if speakers is None:
        return _by_class(labels, fractions, rng)
    return _by_speaker(labels, speakers, fractions, rng)


def check_protocol(protocol: str) -> None:
    """Raises ConfigError if `config.protocol` is not one of `PROTOCOLS`."""
    if protocol not in PROTOCOLS:
        raise ConfigError(
            "C03",
            f"config.protocol={shown(protocol)} is unknown.",
            suggest(protocol, PROTOCOLS),
        )


def cross_validation_split(
    groups: Sequence[Group],
    fold: int,
    folds: int,
    protocol: str,
    size: int | None = None,
) -> dict[str, tuple[Group, ...]]:
    """Returns the groups of each split in one fold of a cross-validation.

    Fold f tests groups f*size .. f*size + size-1, or, without a size, every folds-th
    group from the f-th on. Protocol "validation" selects the checkpoint on the test
    groups of the next fold, which are held out from training. The other two train on
    all groups that are not tested: "fixed_epochs" takes the last step, "as_published"
    selects the checkpoint on the test fold itself.

    Args:
        groups: All groups, in order; those after folds * size are never tested.
        fold: Index of the fold, 0..folds-1.
        folds: Number of folds.
        protocol: One of `PROTOCOLS`.
        size: Number of groups that a fold tests; None tests every group in some fold.

    Raises:
        ConfigError: The fold or the protocol is unknown, there are too many folds, or
            the training split is empty.
    """
    check_protocol(protocol)
    tested_groups = size or 1
    fix = _working_folds(len(groups), protocol, size)
    if folds < 2 or folds > len(groups) // tested_groups:
        raise ConfigError(
            "C06",
            f"config.data.folds={folds} does not work with {len(groups)} groups of "
            f"which every fold tests {tested_groups:d}.",
            fix,
        )
    if not 0 <= fold < folds:
        raise ConfigError(
            "C06",
            f"config.data.fold={fold} is not one of the {folds} folds.",
            f"--config.data.fold=0 to {folds - 1}",
        )

    def tested(number: int) -> tuple[Group, ...]:
        if size is None:
            return tuple(groups[number::folds])
        return tuple(groups[number * size : (number + 1) * size])

    splits = {"valid": tested((fold + 1) % folds)} if protocol == "validation" else {}
    splits["test"] = tested(fold)
    taken = {group for part in splits.values() for group in part}
    train = tuple(g for g in groups if g not in taken)
    if not train:
        raise ConfigError(
            "C06",
            f"config.protocol={shown(protocol)} leaves an empty training split with "
            f"config.data.folds={folds}.",
            fix,
        )
    return {"train": train, **splits}


def _working_folds(count: int, protocol: str, size: int | None) -> str:
    """Returns the numbers of folds that leave training data, as a flag.

    Args:
        count: Number of groups.
        protocol: One of `PROTOCOLS`.
        size: Number of groups that a fold tests; None tests every group in some fold.
    """
    for other in dict.fromkeys((protocol, "fixed_epochs")):
        held_out = 2 if other == "validation" else 1
        # Without a size, a fold fewer than the groups are divided into is not tested.
        least = held_out + 1 if size is None else 2
        most = count // (size or 1)
        if least > most or (size is not None and held_out * size >= count):
            continue
        what = f"--config.data.folds={least:d}"
        what += f" to {most:d}" if most > least else ""
        if other == protocol:
            return what
        return f"--config.protocol={shown_name(other)} {what}"
    return f"add data: {count:d} groups are too few to train on some and test others"


def _by_class(
    labels: Sequence[str], fractions: Mapping[str, float], rng: np.random.Generator
) -> list[str]:
    """Splits each class separately."""
    splits = [""] * len(labels)
    for label in sorted(set(labels)):
        members = rng.permutation([i for i, one in enumerate(labels) if one == label])
        names = np.repeat(list(fractions), _split_sizes(len(members), fractions))
        for member, name in zip(members, names, strict=True):
            splits[member] = str(name)
    return splits


def _split_sizes(count: int, fractions: Mapping[str, float]) -> list[int]:
    """Integer sizes near `fractions` of `count`; 0 only if there are too few examples.

    Examples are assigned one by one: first one to each split in order, then each to
    the split that is furthest below its fraction.
    """
    sizes = dict.fromkeys(fractions, 0)
    for _ in range(count):
        missing = {k: v * count - sizes[k] for k, v in fractions.items()}
        empty = [k for k, v in sizes.items() if not v and fractions[k]]
        name = empty[0] if empty else max(missing, key=lambda k: missing[k])
        sizes[name] += 1
    return list(sizes.values())


def _by_speaker(
    labels: Sequence[str],
    speakers: Sequence[str],
    fractions: Mapping[str, float],
    rng: np.random.Generator,
) -> list[str]:
    """Assigns every speaker entirely to one split."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for speaker, label in zip(speakers, labels, strict=True):
        counts[speaker][label] += 1
    wanted = [name for name, fraction in fractions.items() if fraction]
    if len(counts) < len(wanted):
        raise DataError(
            "D45",
            f"too few speakers: {len(counts)} for the splits {join_names(wanted)}.",
            f"{len(wanted):d} speakers at least, or fewer splits",
        )
    total = Counter(labels)
    missing = {k: {c: n * fractions[k] for c, n in total.items()} for k in wanted}
    # The largest speakers first, as they fit into the fewest splits; the order of
    # equally large ones is random, and sorted first so that the seed alone determines
    # it.
    order = sorted(rng.permutation(sorted(counts)), key=lambda s: -counts[s].total())
    split_of: dict[str, str] = {}
    for i, speaker in enumerate(order):
        empty = [k for k in wanted if k not in split_of.values()]
        # The last speakers go to splits that are still empty.
        candidates = empty if len(order) - i <= len(empty) else wanted
        need = lambda k, s=speaker: sum(
            n * missing[k][c] / total[c] for c, n in counts[s].items()
        )
        split_of[speaker] = max(candidates, key=need)
        for label, count in counts[speaker].items():
            missing[split_of[speaker]][label] -= count
    return [split_of[speaker] for speaker in speakers]
