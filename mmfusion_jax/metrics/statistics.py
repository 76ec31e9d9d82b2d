"""Uncertainty of metrics over runs and examples: intervals and paired tests."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from mmfusion_jax.errors import shown


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """A comparison of two systems over the same runs, such as folds and seeds.

    Attributes:
        difference: Mean of a - b.
        t: Student's t of the differences; NaN if all of them are equal.
        t_test: Two-sided p of the paired t-test; NaN if t is.
        wilcoxon: Two-sided p of the signed-rank test, exact without ties; 1 if all
            differences are 0.
    """

    difference: float
    t: float
    t_test: float
    wilcoxon: float


@dataclasses.dataclass(frozen=True)
class SignTest:
    """A comparison of two systems on the same examples.

    Attributes:
        better: Number of examples on which the first system is better.
        worse: Number of examples on which it is worse.
        p: Two-sided p of the exact binomial test; 1 without such examples.
    """

    better: int
    worse: int
    p: float


def bootstrap_interval(
    values: Sequence[float],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 9999,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean.

    Example:
        >>> import mmfusion_jax as mmf
        >>> low, high = mmf.metrics.bootstrap_interval([0.70, 0.74, 0.78], seed=0)
        >>> round(low, 2), round(high, 2)
        (0.7, 0.78)

    Args:
        values: A metric of every run, at least two.
        level: Fraction of the resampled means inside the interval, half of the rest
            on either side.
        seed: Seed of the resampling; the same seed gives the same interval.
        resamples: Number of samples, each with replacement and as large as `values`.

    Returns:
        The lower and the upper bound.

    Raises:
        ValueError: Fewer than two values, or a level outside (0, 1).

    Reference:
        Efron and Tibshirani 1993, Ch. 13.
    """
    found = np.asarray(values, np.float64)
    if found.ndim != 1 or len(found) < 2:
        raise ValueError(
            f"values has shape {found.shape}; at least two runs are required"
        )
    if not 0 < level < 1:
        raise ValueError(f"level={shown(level)} must be between 0 and 1")
    drawn = stats.bootstrap(
        (found,),
        np.mean,
        method="percentile",
        confidence_level=level,
        n_resamples=resamples,
        rng=seed,
    )
    low, high = drawn.confidence_interval
    return float(low), float(high)


def paired_test(a: Sequence[float], b: Sequence[float]) -> PairedTest:
    """Tests whether one system differs from another, run by run.

        t = mean(a - b) / (s / sqrt(n)),  n - 1 degrees of freedom

    Runs that share training data, such as folds, are not independent: the p of both
    tests is then too small.

    Example:
        >>> import mmfusion_jax as mmf
        >>> test = mmf.metrics.paired_test([0.71, 0.75, 0.74], [0.70, 0.71, 0.69])
        >>> round(test.difference, 3), round(test.t_test, 2)
        (0.033, 0.11)

    Args:
        a: A metric of the first system in every run.
        b: The metric of the second system in the same runs, in the same order.

    Raises:
        ValueError: Different numbers of runs, or fewer than two.

    Reference:
        Student 1908; Wilcoxon 1945. MEA and MCL-MCF report only p < .05 of a paired
        t-test.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            f"a and b have shapes {first.shape} and {second.shape}; "
            "they need the same runs, at least two"
        )
    differences = first - second
    t, p, signed = np.nan, np.nan, 1.0
    # Equal differences have no variance, and t would be infinite or NaN.
    if np.ptp(differences) > 0:
        student: Any = stats.ttest_1samp(differences, 0.0)
        t, p = float(student.statistic), float(student.pvalue)
    # Wilcoxon's procedure drops zeros; the exact distribution is that without them.
    if len(nonzero := differences[differences != 0]):
        ranks: Any = stats.wilcoxon(nonzero, method="exact")
        signed = float(ranks.pvalue)
    return PairedTest(float(differences.mean()), t, p, signed)


def paired_bootstrap(
    statistic: Callable[[Sequence[np.ndarray]], np.ndarray],
    sizes: Sequence[int],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 2000,
) -> np.ndarray:
    """Returns percentile bootstrap intervals of statistics of the same examples.

    All systems are computed on the same resampled examples, so that the interval of
    their difference does not contain the variance that they share.

    Args:
        statistic: Maps the indices of the resampled examples of every stratum, (n) each
            with repetitions, to statistics (m), such as differences of metrics.
        sizes: Number of examples of each stratum. Each is resampled separately, such as
            the test splits of cross-validation folds.
        level: Fraction of the resampled statistics inside the interval, half of the
            rest on either side.
        seed: Seed of the resampling; the same seed gives the same intervals.
        resamples: Number of samples.

    Returns:
        Lower and upper bounds, (m 2); NaN where a statistic is not defined on a sample.

    Reference:
        Efron and Tibshirani 1993, Ch. 13.
    """
    rng = np.random.default_rng(seed)
    draw = lambda: [rng.integers(0, size, size) for size in sizes]
    found = np.array([statistic(draw()) for _ in range(resamples)], np.float64)
    tail = (1 - level) / 2
    return np.quantile(found, [tail, 1 - tail], axis=0).T


def sign_test(a: np.ndarray, b: np.ndarray) -> SignTest:
    """Tests whether a system is better on more examples than it is worse.

    For one correct (1) or wrong (0) prediction of each example this is McNemar's exact
    test.

    Args:
        a: A score of the first system on every example, higher is better, (n).
        b: The score of the second system on the same examples, (n).

    Reference:
        McNemar 1947; Edwards 1948 on the exact test.
    """
    better, worse = int(np.sum(a > b)), int(np.sum(a < b))
    if not better + worse:
        return SignTest(0, 0, 1.0)
    return SignTest(
        better, worse, float(stats.binomtest(better, better + worse).pvalue)
    )


def signed_rank(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the two-sided p of Wilcoxon's signed-rank test; 1 if a and b are equal.

    Exact for up to 50 examples without ties, else by the normal distribution; equal
    pairs are dropped.

    Args:
        a: A value of the first system on every example, (n), such as its error.
        b: The value of the second system on the same examples, (n).

    Reference:
        Wilcoxon 1945.
    """
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    if not len(nonzero := differences[differences != 0]):
        return 1.0
    found: Any = stats.wilcoxon(nonzero)
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p values that are adjusted for the number of tests.

        p_(i)' = max_{j <= i} min(1, (m - j + 1) p_(j))       p_(1) <= ... <= p_(m)

    Args:
        p_values: p of m tests; NaN stays NaN and is not counted.

    Reference:
        Holm 1979.
    """
    defined = [i for i, p in enumerate(p_values) if not np.isnan(p)]
    adjusted, largest = [float("nan")] * len(p_values), 0.0
    for rank, i in enumerate(sorted(defined, key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(defined) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
