"""Uncertainty of metrics over runs: confidence intervals and paired tests."""

import dataclasses
from collections.abc import Sequence
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


def bootstrap_interval(
    values: Sequence[float],
    level: float = 0.95,
    seed: int = 0,
    resamples: int = 9999,
) -> tuple[float, float]:
    """Returns the percentile bootstrap interval of a mean.

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
