"""Metrics of predictions and labels, in NumPy.

p are predictions, t are labels; both are flattened and compared in float32, as the
evaluation scripts of the field do.
"""

from typing import Any

import numpy as np

UNDEFINED = float("nan")
"""Value of a metric that the labels do not define, which is shown as "not defined"."""

MAX_CLASSES = 10_000
"""Highest class that is counted without sorting."""


def column(x: Any) -> np.ndarray:
    """Returns `x` as a flat float32 array."""
    return np.asarray(x, np.float32).ravel()


def mae(y_pred: Any, y_true: Any) -> float:
    """Returns the mean of |p - t|.

    Example:
        >>> import mmfusion_jax as mmf
        >>> round(mmf.metrics.mae([0.5, -1.0], [1.0, -1.0]), 2)
        0.25
    """
    return float(np.mean(np.abs(column(y_pred) - column(y_true)), dtype=np.float64))


def rmse(y_pred: Any, y_true: Any) -> float:
    """Returns the square root of the mean of (p - t)^2.

    Example:
        >>> import mmfusion_jax as mmf
        >>> round(mmf.metrics.rmse([1.0, -1.0], [1.0, 1.0]), 2)
        1.41

    Raises:
        ValueError: The numbers of predictions and of labels differ.
    """
    p, t = column(y_pred), column(y_true)
    if p.shape != t.shape:
        raise ValueError(f"{p.size} predicted values for {t.size} labels")
    return float(np.sqrt(np.mean(np.square(p - t), dtype=np.float64)))


def corr(y_pred: Any, y_true: Any) -> float:
    """Returns Pearson's r; NaN if the predictions or the labels are constant.

    Example:
        >>> import mmfusion_jax as mmf
        >>> round(mmf.metrics.corr([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), 2)
        1.0
    """
    p, t = column(y_pred).astype(float), column(y_true).astype(float)
    # Exact, unlike a variance, which rounding leaves above 0.
    if not p.size or np.ptp(p) == 0 or np.ptp(t) == 0:
        return UNDEFINED
    p, t = p - p.mean(), t - t.mean()
    return float(np.sum(p * t) / np.sqrt(np.sum(p * p) * np.sum(t * t)))


def rounded_accuracy(y_pred: Any, y_true: Any, limit: float) -> float:
    """Returns the accuracy of round(clip(p, -limit, limit)); half to even."""
    # Labels are clipped too: Acc-5 has labels of -3..3 in classes of -2..2.
    near = [np.round(np.clip(column(x), -limit, limit)) for x in (y_pred, y_true)]
    return accuracy(*near)


def accuracy(y_pred: Any, y_true: Any) -> float:
    """Returns the fraction of equal values, NaN if there are none.

    Example:
        >>> import mmfusion_jax as mmf
        >>> round(mmf.metrics.accuracy([0, 1, 1, 1], [0, 1, 0, 1]), 2)
        0.75
    """
    y_pred, y_true = np.ravel(y_pred), np.ravel(y_true)
    return float(np.mean(y_pred == y_true)) if len(y_true) else UNDEFINED


def weighted_f1(y_pred: Any, y_true: Any) -> float:
    """Returns the mean of the F1 of every class, weighted by class frequency.

    NaN without examples.

    Example:
        >>> import mmfusion_jax as mmf
        >>> round(mmf.metrics.weighted_f1([0, 1, 1, 1], [0, 1, 0, 1]), 2)
        0.73
    """
    hits, predicted, true = class_counts(y_pred, y_true)
    # Either occurs: no sum is 0.
    return (
        float(np.average(2 * hits / (predicted + true), weights=true))
        if sum(true)
        else UNDEFINED
    )


def class_counts(y_pred: Any, y_true: Any) -> tuple[np.ndarray, ...]:
    """Returns the hits, predictions and examples of every class that occurs, (k) each.

    Counts instead of functions of scikit-learn, whose checks of the arguments take a
    hundred times as long as the counts: a bootstrap computes a metric thousands of
    times.

    Args:
        y_pred: Predicted classes, (n).
        y_true: True classes, (n).
    """
    y_pred, y_true = np.ravel(y_pred), np.ravel(y_true)
    codes = np.concatenate([y_true, y_pred])
    # Sorting takes most of the time, and classes from 0 on need none.
    if codes.dtype == bool:
        codes = codes.astype(int)
    if (
        codes.dtype.kind not in "iu"
        or codes.min(initial=0) < 0
        or codes.max(initial=0) > MAX_CLASSES
    ):
        codes = np.unique(codes, return_inverse=True)[1]
    true, predicted = codes[: len(y_true)], codes[len(y_true) :]
    k = codes.max(initial=0) + 1
    counted = (true[true == predicted], predicted, true)
    counts = np.stack([np.bincount(x, minlength=k) for x in counted])
    return tuple(counts[:, counts[1:].any(axis=0)])


def weighted_accuracy(y_pred: Any, y_true: Any) -> float:
    """Returns (tp * n_neg / n_pos + tn) / (2 n_neg) of the signs; 0 is negative.

    NaN if the labels have only one of the two signs.

    Example:
        >>> import mmfusion_jax as mmf
        >>> round(mmf.metrics.weighted_accuracy([1, -1, 1, 1], [1, -1, -1, 1]), 2)
        0.75
    """
    p, t = np.ravel(y_pred) > 0, np.ravel(y_true) > 0
    positive, negative = int(np.sum(t)), int(np.sum(~t))
    if not positive or not negative:
        return UNDEFINED
    tp, tn = np.sum(p & t), np.sum(~p & ~t)
    return float((tp * negative / positive + tn) / (2 * negative))
