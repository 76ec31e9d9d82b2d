"""Fractions, speakers and the folds of the paper."""

import re
from collections import Counter

import numpy as np
import pytest

from mmfusion_jax.data.splits import (
    PROTOCOLS,
    cross_validation_split,
    random_splits,
)
from mmfusion_jax.errors import ConfigError, DataError

FRACTIONS = {"train": 0.7, "valid": 0.15, "test": 0.15}


def test_every_class_is_split_by_the_fractions():
    labels = ["a"] * 100 + ["b"] * 20 + ["c"] * 5 + ["d"] * 3
    splits = random_splits(labels, FRACTIONS, seed=0)
    count = Counter(zip(labels, splits, strict=True))
    of = lambda c: tuple(count[c, s] for s in FRACTIONS)
    assert of("a") == (70, 15, 15) and of("b") == (14, 3, 3)
    assert of("c") == (3, 1, 1) and of("d") == (1, 1, 1)


def test_the_seed_decides():
    labels = list("ab") * 50
    assert random_splits(labels, FRACTIONS, 1) == random_splits(labels, FRACTIONS, 1)
    assert random_splits(labels, FRACTIONS, 1) != random_splits(labels, FRACTIONS, 2)


def test_a_class_of_one_example_is_trained_on():
    assert random_splits(["a"], FRACTIONS, 0) == ["train"]


@pytest.mark.parametrize("seed", range(5))
def test_speakers_stay_together_and_fractions_are_near(seed):
    rng = np.random.default_rng(seed)
    speakers = [f"s{i}" for i in rng.integers(0, 20, 600)]
    labels = [f"c{i}" for i in rng.integers(0, 4, 600)]
    splits = random_splits(labels, FRACTIONS, seed, speakers)
    split_of = {}
    for speaker, split in zip(speakers, splits, strict=True):
        assert split_of.setdefault(speaker, split) == split
    for split, fraction in FRACTIONS.items():
        assert splits.count(split) / 600 == pytest.approx(fraction, abs=0.05)
        assert len({c for c, s in zip(labels, splits, strict=True) if s == split}) == 4


def test_three_speakers_fill_three_splits():
    splits = random_splits(
        list("abab") * 9, FRACTIONS, 0, ["x"] * 30 + ["y"] * 3 + ["z"] * 3
    )
    assert set(splits) == set(FRACTIONS) and splits[0] == "train"
    with pytest.raises(
        DataError, match="D45.*too few speakers: 2 .*train, valid, test"
    ):
        random_splits(["a", "b"], FRACTIONS, 0, ["x", "y"])


def test_the_folds_of_the_paper():
    actors = range(1, 25)
    validation = cross_validation_split(actors, 4, 5, "validation", 4)
    assert validation["test"] == (17, 18, 19, 20) and validation["valid"] == (
        1,
        2,
        3,
        4,
    )
    assert validation["train"] == (*range(5, 17), *range(21, 25))
    paper = cross_validation_split(actors, 0, 5, "as_published", 4)
    assert paper["test"] == (1, 2, 3, 4) and paper["train"] == tuple(range(5, 25))
    assert "valid" not in paper
    assert cross_validation_split(actors, 0, 5, "fixed_epochs", 4) == paper
    tested = [
        a
        for f in range(6)
        for a in cross_validation_split(actors, f, 6, "as_published", 4)["test"]
    ]
    assert tested == list(actors)


def test_unknown_folds_and_protocols_are_rejected():
    for folds in (7, 1):
        with pytest.raises(ConfigError, match=r"C06[\s\S]*folds=2 to 6"):
            cross_validation_split(range(24), 0, folds, "validation", 4)
    for fold in (5, -1):
        with pytest.raises(ConfigError, match=r"C06.*one of the 5[\s\S]*fold=0 to 4"):
            cross_validation_split(range(24), fold, 5, "validation", 4)
    message = (
        r"C03.*protocol='fair' is unknown\.\s+"
        "fix: known: as_published, fixed_epochs, validation"
    )
    with pytest.raises(ConfigError, match=message):
        cross_validation_split(range(24), 0, 5, "fair", 4)


@pytest.mark.parametrize("protocol", ["validation", "fixed_epochs", "as_published"])
@pytest.mark.parametrize("size", [None, 1, 2, 4])
@pytest.mark.parametrize("count", range(1, 10))
def test_numbers_of_folds_that_are_offered_work(count, size, protocol):
    works = lambda folds, protocol: not fix_of(range(count), folds, protocol, size)
    for folds in range(1, count + 3):
        if not (fix := fix_of(range(count), folds, protocol, size)):
            continue
        found = re.fullmatch(
            r"(?:--config.protocol=(\w+) )?--config.data.folds=(\d+)(?: to (\d+))?", fix
        )
        if found is None:
            assert fix.startswith("add data")
            assert not any(works(n, p) for n in range(count + 2) for p in PROTOCOLS)
            continue
        other, low, high = (
            found[1] or protocol,
            int(found[2]),
            int(found[3] or found[2]),
        )
        good = [n for n in range(count + 2) if works(n, other)]
        assert good == list(range(low, high + 1))


def fix_of(groups, folds, protocol, size):
    """Returns the fix of an error; "" if there is none."""
    try:
        cross_validation_split(groups, 0, folds, protocol, size)
    except ConfigError as error:
        return error.fix
    return ""
