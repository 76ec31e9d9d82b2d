"""Shares are kept, nothing crosses, and folds are those of the paper."""

from collections import Counter

import numpy as np
import pytest

from mmfusion_jax.data.splits import cross_validation_split, random_splits
from mmfusion_jax.errors import ConfigError, DataError

SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}


def test_every_class_has_its_share_in_every_split():
    labels = ["a"] * 100 + ["b"] * 20 + ["c"] * 5 + ["d"] * 3
    splits = random_splits(labels, SHARES, seed=0)
    count = Counter(zip(labels, splits, strict=True))
    of = lambda c: tuple(count[c, s] for s in SHARES)
    assert of("a") == (70, 15, 15) and of("b") == (14, 3, 3)
    assert of("c") == (3, 1, 1) and of("d") == (1, 1, 1)


def test_the_seed_decides():
    labels = list("ab") * 50
    assert random_splits(labels, SHARES, 1) == random_splits(labels, SHARES, 1)
    assert random_splits(labels, SHARES, 1) != random_splits(labels, SHARES, 2)


def test_a_class_of_one_example_is_trained_on():
    assert random_splits(["a"], SHARES, 0) == ["train"]


@pytest.mark.parametrize("seed", range(5))
def test_speakers_stay_together_and_shares_are_near(seed):
    rng = np.random.default_rng(seed)
    speakers = [f"s{i}" for i in rng.integers(0, 20, 600)]
    labels = [f"c{i}" for i in rng.integers(0, 4, 600)]
    splits = random_splits(labels, SHARES, seed, speakers)
    home = {}
    for speaker, split in zip(speakers, splits, strict=True):
        assert home.setdefault(speaker, split) == split
    for split, share in SHARES.items():
        assert splits.count(split) / 600 == pytest.approx(share, abs=0.05)
        assert len({c for c, s in zip(labels, splits, strict=True) if s == split}) == 4


def test_three_speakers_fill_three_splits():
    splits = random_splits(
        list("abab") * 9, SHARES, 0, ["x"] * 30 + ["y"] * 3 + ["z"] * 3
    )
    assert set(splits) == set(SHARES) and splits[0] == "train"
    with pytest.raises(DataError, match="D45.*2 speakers.*train, valid, test"):
        random_splits(["a", "b"], SHARES, 0, ["x", "y"])


def test_the_folds_of_the_paper():
    actors = range(1, 25)
    honest = cross_validation_split(actors, 4, 5, "honest", 4)
    assert honest["test"] == (17, 18, 19, 20) and honest["valid"] == (1, 2, 3, 4)
    assert honest["train"] == (*range(5, 17), *range(21, 25))
    paper = cross_validation_split(actors, 0, 5, "paper", 4)
    assert paper["test"] == (1, 2, 3, 4) and paper["train"] == tuple(range(5, 25))
    assert "valid" not in paper
    assert cross_validation_split(actors, 0, 5, "fixed", 4) == paper
    tested = [
        a
        for f in range(6)
        for a in cross_validation_split(actors, f, 6, "paper", 4)["test"]
    ]
    assert tested == list(actors)


def test_folds_that_do_not_exist_are_refused():
    for fold, folds in ((5, 5), (-1, 5), (0, 7), (0, 1)):
        with pytest.raises(ConfigError, match=r"C06[\s\S]*folds=2 to 6"):
            cross_validation_split(range(24), fold, folds, "honest", 4)
    with pytest.raises(ConfigError, match="protocol='fair' is unknown; known: honest"):
        cross_validation_split(range(24), 0, 5, "fair", 4)
