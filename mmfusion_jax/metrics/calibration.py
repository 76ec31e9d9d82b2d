"""Temperature scaling, conformal prediction and expected calibration error.

Logits are (n m k): m answers of an example, one for a class label and one for each flag
of a multilabel task, with k choices each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from mmfusion_jax.results.calibration_file import (
    Calibration,
    CalibrationTest,
    Coverage,
    ReliabilityBin,
)
from mmfusion_jax.results.model_result import TaskInfo

NUM_BINS = 10
COVERAGES = (0.8, 0.9, 0.95)
"""Nominal coverages that are measured on the test split."""

MAX_LOG_TEMPERATURE = 5.0
"""The temperature is within 1/148..148: labels without any correct prediction have no
largest one."""


def answers(prediction: np.ndarray, task: TaskInfo) -> np.ndarray:
    """Returns the logits of a model by answer, (n m k).

    Args:
        prediction: (n k) logits of classes, or (n 2m) of flags.
        task: A classification or multilabel task.
    """
    return prediction.reshape(len(prediction), len(task.flags) or 1, -1)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature that maximizes the likelihood of some labels.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> logits = np.array([[[4.0, 0.0]], [[4.0, 0.0]], [[0.0, 4.0]]])
        >>> round(mmf.metrics.fit_temperature(logits, np.array([[0], [1], [1]])), 2)
        5.77

    Args:
        logits: (n m k).
        labels: (n m) index of the true choice.

    Reference:
        Guo et al. 2017, "On Calibration of Modern Neural Networks", Sec. 4.2.
    Deviation:
        If every prediction is correct, the likelihood grows without bound as the
        temperature approaches 0, which would make every probability 1: the temperature
        is 1 then.
    """
    logits = np.asarray(logits, np.float64)
    if (logits.argmax(axis=-1) == labels).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits / np.exp(log_temperature), axis=-1)
        return -float(np.take_along_axis(scaled, labels[..., None], axis=-1).mean())

    limits = (-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE)
    found = minimize_scalar(loss, bounds=limits, method="bounded")
    return float(np.exp(found.x))


def probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Returns the calibrated probabilities of logits (n m k)."""
    return softmax(np.asarray(logits, np.float64) / temperature, axis=-1)


def conformal_threshold(nonconformity: Sequence[float], coverage: float) -> float:
    """Returns the score up to which a label belongs to the set of an example.

    A new example of the same distribution has its label in the set with a probability
    of at least `coverage`.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.metrics.conformal_threshold([0.1, 0.2, 0.3, 0.4], coverage=0.8)
        0.4

    Args:
        nonconformity: Scores of calibration examples, ascending.
        coverage: 0..1.

    Returns:
        The threshold; infinity if there are too few examples for this coverage.

    Reference:
        Vovk et al. 2005; Angelopoulos and Bates 2023, "Conformal Prediction: A Gentle
        Introduction", Sec. 1.
    """
    count = len(nonconformity)
    # Rounded first: (9 + 1) * 0.7 is 7.000000000000001 in float64.
    rank = int(np.ceil(round((count + 1) * coverage, 9)))
    return nonconformity[max(rank, 1) - 1] if rank <= count else float("inf")


def in_set(probability: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Returns which choices belong to the conformal set of every answer.

    The most probable choice always does.

    Args:
        probability: (n m k).
        thresholds: Result of `conformal_threshold` for each answer, (m).

    Returns:
        (n m k) bool.

    Reference:
        Sadinle et al. 2019, "Least Ambiguous Set-Valued Classifiers".
    """
    likely = 1 - probability <= np.asarray(thresholds)[:, None]
    return likely | (probability == probability.max(axis=-1, keepdims=True))


def reliability(confidence: np.ndarray, correct: np.ndarray) -> list[ReliabilityBin]:
    """Returns bins of equal width with the accuracy of their predictions.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> bins = mmf.metrics.reliability(np.full(4, 0.9), np.array([1, 1, 1, 0]) > 0)
        >>> bins[8].count, bins[8].accuracy
        (4, 0.75)

    Args:
        confidence: Probability of the predicted choice, (n), 0..1.
        correct: Whether it is the true one, (n) bool.
    """
    edges = np.linspace(0, 1, NUM_BINS + 1)
    index = np.clip(np.digitize(confidence, edges[1:-1], right=True), 0, NUM_BINS - 1)
    bins = []
    for i in range(NUM_BINS):
        rows = index == i
        mean = lambda x, rows=rows: float(x[rows].mean()) if rows.any() else None
        bins.append(
            ReliabilityBin(
                float(edges[i]),
                float(edges[i + 1]),
                int(rows.sum()),
                mean(confidence),
                mean(correct),
            )
        )
    return bins


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Returns the mean difference of confidence and accuracy, weighted by count.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> bins = mmf.metrics.reliability(np.full(4, 0.9), np.array([1, 1, 1, 0]) > 0)
        >>> round(mmf.metrics.expected_calibration_error(bins), 2)
        0.15

    Args:
        bins: Result of `reliability`.

    Reference:
        Guo et al. 2017, Eq. 3.
    """
    total = sum(one.count for one in bins)
    gaps = [
        one.count * abs(one.confidence - one.accuracy)
        for one in bins
        if one.confidence is not None and one.accuracy is not None
    ]
    return sum(gaps) / total if total else float("nan")


def calibrate(
    task: TaskInfo,
    valid: Mapping[str, np.ndarray],
    test: Mapping[str, np.ndarray] | None = None,
) -> Calibration | None:
    """Fits the calibration of a model to its validation split.

    Args:
        task: The label.
        valid: "truth" and "prediction" of the validation split, (n ...); {} without it.
        test: Those of the test split, to measure the calibration on; None for none.

    Returns:
        The calibration; None if a prediction is not finite or the split is empty.
    """
    parts = [part for part in (valid, test) if part]
    finite = all(np.isfinite(part["prediction"]).all() for part in parts)
    if not valid or not finite or not len(valid["truth"]):
        return None
    if task.kind == "regression":
        fitted = Calibration(
            len(valid["truth"]), None, [np.sort(_absolute_error(valid)).tolist()], None
        )
    else:
        logits, labels = _logits_and_labels(task, valid)
        temperature = fit_temperature(logits, labels)
        scores = _nonconformity(probabilities(logits, temperature), labels)
        rows = np.sort(scores, axis=0).T.tolist()
        fitted = Calibration(len(labels), temperature, rows, None)
    measured = None if test is None else measure_calibration(task, test, fitted)
    return replace(fitted, test=measured)


def measure_calibration(
    task: TaskInfo, part: Mapping[str, np.ndarray], calibration: Calibration
) -> CalibrationTest | None:
    """Returns how far a calibration holds for other examples.

    Args:
        task: The label.
        part: "truth" and "prediction" of the examples, (n ...), finite.
        calibration: That of the run.

    Returns:
        The measures; None without examples.
    """
    if not len(part["truth"]):
        return None
    if task.kind == "regression":
        return _measure_intervals(part, calibration.nonconformity[0])
    temperature = calibration.temperature or 1.0
    return _measure_sets(task, part, temperature, calibration.nonconformity)


def _logits_and_labels(
    task: TaskInfo, part: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits (n m k) and labels (n m)."""
    logits = answers(part["prediction"], task)
    return logits, part["truth"].astype(int).reshape(len(logits), -1)


def _nonconformity(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns 1 - probability of the label, (n m)."""
    return 1 - np.take_along_axis(probability, labels[..., None], axis=-1)[..., 0]


def _measure_sets(
    task: TaskInfo,
    part: Mapping[str, np.ndarray],
    temperature: float,
    nonconformity: Sequence[Sequence[float]],
) -> CalibrationTest:
    """Returns the calibration of probabilities and sets."""
    logits, labels = _logits_and_labels(task, part)
    correct = logits.argmax(axis=-1) == labels
    bins = {}
    for name, one in (("model", 1.0), ("calibrated", temperature)):
        confidence = probabilities(logits, one).max(axis=-1)
        bins[name] = reliability(confidence.ravel(), correct.ravel())
    probability = probabilities(logits, temperature)
    coverage = []
    for nominal in COVERAGES:
        thresholds = [conformal_threshold(row, nominal) for row in nonconformity]
        chosen = in_set(probability, thresholds)
        contained = np.take_along_axis(chosen, labels[..., None], axis=-1)
        size = float(chosen.sum(axis=-1).mean())
        coverage.append(Coverage(nominal, float(contained.mean()), size))
    return CalibrationTest(
        len(labels),
        expected_calibration_error(bins["calibrated"]),
        expected_calibration_error(bins["model"]),
        bins["calibrated"],
        coverage,
        bins["model"],
    )


def _measure_intervals(
    part: Mapping[str, np.ndarray], nonconformity: Sequence[float]
) -> CalibrationTest:
    """Returns the calibration of the intervals of a regression."""
    error, coverage = _absolute_error(part), []
    for nominal in COVERAGES:
        width = conformal_threshold(nonconformity, nominal)
        size = 2 * width if np.isfinite(width) else None
        coverage.append(Coverage(nominal, float(np.mean(error <= width)), size))
    return CalibrationTest(len(error), None, None, [], coverage)


def _absolute_error(part: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the absolute errors of scores, (n) float64."""
    truth = np.asarray(part["truth"], np.float64)
    return np.abs(truth - np.asarray(part["prediction"]).reshape(-1))
