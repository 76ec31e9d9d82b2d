"""Intervals and tests over runs and examples, by hand and against SciPy."""

import numpy as np
import pytest
from scipy import stats

from mmfusion_jax.metrics.statistics import (
    SignTest,
    bootstrap_interval,
    holm,
    paired_bootstrap,
    paired_test,
    sign_test,
    signed_rank,
)


def test_interval_by_hand():
    """Means of two draws from 0 and 1 are 0, 1/2 and 1, with 1/4, 1/2 and 1/4."""
    assert bootstrap_interval([0, 1]) == (0, 1)
    assert bootstrap_interval([0, 1], level=0.4) == (0.5, 0.5)
    assert bootstrap_interval([0.7, 0.7, 0.7]) == pytest.approx((0.7, 0.7))


def test_interval_depends_on_its_seed_alone():
    values = np.random.default_rng(1).normal(0.8, 0.02, 12)
    low, high = bootstrap_interval(values)
    assert low < values.mean() < high
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)


def test_paired_by_hand():
    """Differences 1, 2, 3: t = 2 / (1 / sqrt 3); one of 2^3 signs is as far, twice."""
    found = paired_test([2, 4, 6], [1, 2, 3])
    assert found.difference == 2
    assert found.t == pytest.approx(2 * np.sqrt(3))
    assert found.t_test == pytest.approx(0.0741799, abs=1e-6)
    assert found.wilcoxon == pytest.approx(2 / 8)
    turned = paired_test([1, 2, 3], [2, 4, 6])
    assert (turned.t, turned.t_test) == pytest.approx((-found.t, found.t_test))


def test_paired_is_that_of_scipy():
    a, b = np.random.default_rng(2).normal(size=(2, 9))
    found = paired_test(a, b)
    want = stats.ttest_rel(a, b)
    assert (found.t, found.t_test) == pytest.approx((want.statistic, want.pvalue))
    assert found.wilcoxon == pytest.approx(stats.wilcoxon(a, b).pvalue)


def test_differences_without_spread():
    same = paired_test([0.5, 0.75], [0.5, 0.75])
    assert (same.difference, same.wilcoxon) == (0, 1) and np.isnan(same.t_test)
    shifted = paired_test([0.5, 0.75], [0.25, 0.5])
    assert np.isnan(shifted.t) and shifted.wilcoxon == pytest.approx(0.5)


def test_says_what_is_wrong():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        paired_test([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="two runs"):
        bootstrap_interval([0.5])
    with pytest.raises(ValueError, match="level=95"):
        bootstrap_interval([0.5, 0.6], level=95)


def test_the_paired_bootstrap_is_that_of_scipy():
    a, b = np.random.default_rng(3).normal(size=(2, 40))
    b = a + 0.2 * b
    statistic = lambda rows: np.array([np.mean(a[rows[0]] - b[rows[0]]), rows[0].size])
    (low, high), (smallest, largest) = paired_bootstrap(statistic, [40], seed=1)
    want = stats.bootstrap(
        (a, b),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        paired=True,
        method="percentile",
        rng=0,
    ).confidence_interval
    assert (low, high) == pytest.approx(want, abs=0.015)
    assert smallest == largest == 40
    assert (paired_bootstrap(statistic, [40], seed=1)[0] == (low, high)).all()


def test_strata_are_resampled_separately():
    """The mean over strata of constants does not vary; two draws from 0, 1 do."""
    values = [np.array([3.0, 3.0]), np.array([0.0, 1.0])]
    mean = lambda rows, i: values[i][rows[i]].mean()
    statistic = lambda rows: np.array([mean(rows, 0), mean(rows, 1)])
    found = paired_bootstrap(statistic, [2, 2], resamples=200)
    np.testing.assert_array_equal(found, [[3, 3], [0, 1]])
    undefined = paired_bootstrap(lambda rows: np.array([np.nan]), [2], resamples=9)
    assert np.isnan(undefined).all()


def test_mcnemar_by_hand():
    """8 of 8 discordant examples are better: p = 2 / 2^8; 3 of 4: 2 (4 + 1) / 2^4."""
    a, b = np.ones(20), np.r_[np.zeros(8), np.ones(12)]
    assert sign_test(a, b) == SignTest(8, 0, 2 / 256)
    assert sign_test(b, a) == SignTest(0, 8, 2 / 256)
    found = sign_test(np.array([1, 1, 1, 0, 1]), np.array([0, 0, 0, 1, 1]))
    assert (found.better, found.worse) == (3, 1)
    assert found.p == pytest.approx(2 * (4 + 1) / 16)
    assert sign_test(a, a) == SignTest(0, 0, 1.0)


def test_signed_rank_by_hand():
    """Three differences of one sign: one of 2^3 signs is as far, on either side."""
    assert signed_rank(np.array([1, 2, 3]), np.zeros(3)) == pytest.approx(2 / 8)
    assert signed_rank(np.arange(3.0), np.arange(3.0)) == 1
    a, b = np.random.default_rng(4).normal(size=(2, 300))
    assert signed_rank(a, b) == pytest.approx(stats.wilcoxon(a, b).pvalue)


def test_holm_by_hand():
    """.01 x 3, .02 x 2, and .03, which is not below the one before it."""
    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    found = holm([0.6, np.nan, 0.7])
    assert (found[0], found[2]) == (1, 1) and np.isnan(found[1])
    assert holm([]) == []
