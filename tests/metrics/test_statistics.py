"""Intervals and tests over runs: values worked out by hand, and SciPy's."""

import numpy as np
import pytest
from scipy import stats

from mmfusion_jax.metrics.statistics import bootstrap_interval, paired_test


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
