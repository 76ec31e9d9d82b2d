"""Metrics of sentiment from -3 to 3, as CMU-MOSI and CMU-MOSEI are evaluated."""

import dataclasses
from collections.abc import Callable
from typing import Any

from mmfusion_jax.metrics import as_published, functional
from mmfusion_jax.metrics.regression import CORR, MAE
from mmfusion_jax.metrics.score_info import (
    Collected,
    Formula,
    ScoreInfo,
    by_name,
    compute,
    on_columns,
)
from mmfusion_jax.types import Array, Batch, Outputs


def _rounded(limit: float) -> Formula:
    """Returns the accuracy of values clipped to -limit..limit and rounded."""
    return on_columns(lambda p, t: functional.rounded_accuracy(p, t, limit))


def _nonnegative(score: Callable[[Any, Any], float]) -> Formula:
    """Returns `score` of the classes x >= 0."""
    return on_columns(lambda p, t: score(p >= 0, t >= 0))


def _without_neutral(score: Callable[[Any, Any], float]) -> Formula:
    """Returns `score` of the classes x > 0, of the examples whose label is not 0."""
    return on_columns(lambda p, t: score(p[t != 0] > 0, t[t != 0] > 0))


@dataclasses.dataclass(frozen=True)
class SentimentMetrics:
    """The metrics that papers on CMU-MOSI and CMU-MOSEI report.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> collected = {
        ...     "prediction": np.array([0.5, -1.0]),
        ...     "truth": np.array([1.0, -1.0]),
        ... }
        >>> scores = mmf.metrics.SentimentMetrics("sentiment").scores(collected)
        >>> round(scores["acc7"], 2)
        0.5

    Attributes:
        label: Name in `Batch.labels`, (b) float, -3..3.

    Reference:
        MCL-MCF, Table 3; MEA, Tables II and III.
    """

    label: str

    infos = by_name(
        MAE,
        CORR,
        ScoreInfo(
            "acc7",
            _rounded(3.0),
            "Accuracy of values clipped to -3..3 and rounded half to even.",
            label="Acc-7",
            headline=True,
        ),
        ScoreInfo(
            "acc5",
            _rounded(2.0),
            "Accuracy of values clipped to -2..2 and rounded half to even.",
            label="Acc-5",
        ),
        ScoreInfo(
            "acc2_has0",
            _nonnegative(functional.accuracy),
            "Negative or non-negative, all examples: (prediction >= 0) = (label >= 0).",
            label="Acc-2 (with 0)",
            headline=True,
        ),
        ScoreInfo(
            "f1_has0",
            _nonnegative(functional.weighted_f1),
            "F1 of negative and non-negative, weighted by class frequency.",
            label="F1 (with 0)",
        ),
        ScoreInfo(
            "acc2_non0",
            _without_neutral(functional.accuracy),
            "Negative or positive, without examples whose label is 0.",
            label="Acc-2 (without 0)",
            headline=True,
        ),
        ScoreInfo(
            "f1_non0",
            _without_neutral(functional.weighted_f1),
            "F1 of negative and positive, without examples whose label is 0, weighted "
            "by class frequency.",
            label="F1 (without 0)",
            headline=True,
        ),
        ScoreInfo(
            "acc2_mult_all",
            on_columns(lambda p, t: functional.accuracy(p > 0, t > 0)),
            "Positive or not, all examples: (prediction > 0) = (label > 0).",
            label="Acc-2 (MulT)",
        ),
        ScoreInfo(
            "weighted_accuracy",
            on_columns(functional.weighted_accuracy),
            "Mean of the recall of labels > 0 and of the recall of other labels.",
        ),
        ScoreInfo(
            "f1_swapped_non0",
            _without_neutral(as_published.f1_swapped),
            "F1 (without 0) as the code of MulT and MISA computes it: weighted by "
            "predicted class frequency.",
            label="F1 (swapped weights)",
        ),
    )

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Returns the prediction (b) and the label (b) of every example."""
        return {"prediction": outputs.prediction, "truth": batch.label(self.label)}

    def scores(self, collected: Collected) -> dict[str, float]:
        """Returns the metrics of a split, from what `collect` returned, (n ...)."""
        return compute(self.infos.values(), collected)
