"""Temperature, conformal sets and calibration error against their definitions."""

import math

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from mmfusion_jax.metrics.calibration import (
    calibrate,
    conformal_threshold,
    expected_calibration_error,
    fit_temperature,
    in_set,
    reliability,
)
from mmfusion_jax.results.model_result import TaskInfo

CLASSES = TaskInfo("label", "classification", classes=list("abcd"))
FLAGS = TaskInfo("label", "multilabel", flags=["x", "y"])
SCORE = TaskInfo("label", "regression", range=(-3.0, 3.0))


def drawn(task: TaskInfo, count: int, seed: int) -> dict[str, np.ndarray]:
    """Examples whose labels follow a third of the logits."""
    rng = np.random.default_rng(seed)
    if task.kind == "regression":
        truth = rng.normal(size=count)
        return {"truth": truth, "prediction": truth + rng.normal(size=count)}
    shape = (count, len(task.flags) or 1, 2 if task.flags else len(task.classes))
    logits = 1.5 * rng.normal(size=shape)
    noise = rng.gumbel(size=shape)
    truth = (logits + noise).argmax(axis=-1)
    truth = truth if task.flags else truth[:, 0]
    return {"truth": truth, "prediction": 3 * logits.reshape(count, -1)}


@pytest.mark.parametrize("task", [CLASSES, FLAGS, SCORE], ids=lambda task: task.kind)
def test_the_measured_coverage_is_the_nominal_one(task):
    found = calibrate(task, drawn(task, 4000, 0), drawn(task, 4000, 1))
    assert found is not None and found.test is not None
    for one in found.test.coverage:
        # The standard error of both splits together is below .01.
        assert one.measured == pytest.approx(one.nominal, abs=0.03) or (
            # A set always has the most probable choice, which may suffice.
            one.measured > one.nominal and task.kind == "multilabel"
        )
    sizes = [one.size for one in found.test.coverage]
    assert sizes == sorted(sizes)
    assert (found.temperature is None) == (task.kind == "regression")
    if found.temperature is not None:
        assert found.temperature == pytest.approx(3, rel=0.1)
        assert found.test.ece is not None and found.test.ece_uncalibrated is not None
        assert found.test.ece < 0.03 < found.test.ece_uncalibrated


def test_a_set_has_what_is_above_the_threshold_and_the_most_probable_choice():
    p = np.array([[[0.6, 0.3, 0.1]], [[0.4, 0.35, 0.25]]])
    assert in_set(p, [0.72])[:, 0].tolist() == [
        [True, True, False],
        [True, True, False],
    ]
    assert in_set(p, [0.1])[:, 0].tolist() == [[True, False, False]] * 2
    assert in_set(p, [math.inf]).all()


@pytest.mark.parametrize(
    ("coverage", "threshold"), [(0.5, 0.3), (0.8, 0.4), (0.81, math.inf), (0.1, 0.1)]
)
def test_the_threshold_is_the_quantile_of_one_more_example(coverage, threshold):
    # ceil(5 coverage) of four scores: 3, 4, 5 and 1.
    assert conformal_threshold([0.1, 0.2, 0.3, 0.4], coverage) == threshold
    assert conformal_threshold([0.1 * i for i in range(1, 10)], 0.7) == 0.1 * 7


def test_the_temperature_maximizes_the_likelihood():
    part = drawn(CLASSES, 500, 2)
    logits, labels = part["prediction"][:, None], part["truth"][:, None]
    best = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        p = softmax(logits / temperature, axis=-1)
        return -np.log(np.take_along_axis(p, labels[..., None], -1)).mean()

    assert loss(best) <= min(loss(best * 1.05), loss(best / 1.05))


def test_predictions_that_are_all_correct_are_not_made_certain():
    logits = np.array([[[1.0, 0.0]], [[0.0, 2.0]]])
    assert fit_temperature(logits, np.array([[0], [1]])) == 1
    assert fit_temperature(logits, np.array([[1], [0]])) > 100


def test_bins_are_those_of_scikit_learn():
    rng = np.random.default_rng(3)
    confidence = rng.random(1000)
    correct = rng.random(1000) < confidence
    bins = [one for one in reliability(confidence, correct) if one.count]
    accuracy, mean = calibration_curve(correct, confidence, n_bins=10)
    np.testing.assert_allclose([one.accuracy for one in bins], accuracy)
    np.testing.assert_allclose([one.confidence for one in bins], mean)
    counts = np.array([one.count for one in bins])
    want = np.sum(counts * np.abs(accuracy - mean)) / 1000
    assert expected_calibration_error(bins) == pytest.approx(want)


def test_without_usable_validation_data_there_is_no_calibration():
    part = drawn(CLASSES, 5, 4)
    broken = {**part, "prediction": np.full((5, 4), np.nan)}
    assert calibrate(CLASSES, {}, part) is None
    assert calibrate(CLASSES, broken, part) is None
    assert calibrate(CLASSES, part, broken) is None
    few = calibrate(CLASSES, part, part)
    assert few is not None and few.test is not None
    # Five examples cannot give a coverage of .95: every class is in the set.
    assert few.test.coverage[-1].size == 4
