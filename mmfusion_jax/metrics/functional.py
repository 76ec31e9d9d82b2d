"""Scores of two columns: what was said and what is true. Plain NumPy, for everyone.

p are answers, t are labels; both are flattened and compared in float32, as the field's
evaluation scripts do.
"""

from typing import Any

import numpy as np
from sklearn import metrics as sk


def column(x: Any) -> np.ndarray:
    """`x` as one float32 column."""
    return np.asarray(x, np.float32).ravel()


def mae(said: Any, truth: Any) -> float:
    """The mean of |p - t|."""
    return float(np.mean(np.abs(column(said) - column(truth)), dtype=np.float64))


def corr(said: Any, truth: Any, *, nan_corr: bool = False) -> float:
    """Pearson's r; where p or t is constant 0, or NaN if `nan_corr`."""
    p, t = column(said).astype(float), column(truth).astype(float)
    if np.ptp(p) == 0 or np.ptp(t) == 0:
        return float("nan") if nan_corr else 0.0
    p, t = p - p.mean(), t - t.mean()
    return float(np.sum(p * t) / np.sqrt(np.sum(p * p) * np.sum(t * t)))


def rounded_accuracy(said: Any, truth: Any, limit: float) -> float:
    """The share of p whose round(clip(p, -limit, limit)) is that of t; half to even."""
    near = [np.round(np.clip(column(x), -limit, limit)) for x in (said, truth)]
    return accuracy(*near)


def accuracy(said: Any, truth: Any) -> float:
    """The share of equal answers, 0 where there is none to count."""
    said, truth = np.ravel(said), np.ravel(truth)
    return float(np.mean(said == truth)) if len(truth) else 0.0


def weighted_f1(said: Any, truth: Any) -> float:
    """F1 of every class, weighted by how often the class is true."""
    said, truth = np.ravel(said), np.ravel(truth)
    if not len(truth):
        return 0.0
    return float(
        sk.f1_score(
            truth,
            said,
            average="weighted",
            zero_division=0,  # pyright: ignore[reportArgumentType]
        )
    )


def weighted_accuracy(said: Any, truth: Any) -> float:
    """(tp * n_neg / n_pos + tn) / (2 n_neg) of the signs; 0 counts as negative.

    0 where one of the two signs never is true.
    """
    p, t = np.ravel(said) > 0, np.ravel(truth) > 0
    positive, negative = int(np.sum(t)), int(np.sum(~t))
    if not positive or not negative:
        return 0.0
    tp, tn = np.sum(p & t), np.sum(~p & ~t)
    return float((tp * negative / positive + tn) / (2 * negative))
