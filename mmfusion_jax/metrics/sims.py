"""Metrics of sentiment from -1 to 1, as CH-SIMS is evaluated."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mmfusion_jax.metrics import functional
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


def _clipped(score: Callable[[np.ndarray, np.ndarray], float]) -> Formula:
    """Returns `score` of values clipped to -1..1."""
    return on_columns(lambda p, t: score(np.clip(p, -1, 1), np.clip(t, -1, 1)))


def _binned(*edges: float) -> Formula:
    """Returns the accuracy of classes; an edge belongs to the class below it.

    Deviation:
        Edges are float32 as the values are: with float64 edges a value on an edge
        would change its class.
    """
    bins = lambda x: np.digitize(x, np.asarray(edges, np.float32), right=True)
    return _clipped(lambda p, t: functional.accuracy(bins(p), bins(t)))


@dataclasses.dataclass(frozen=True)
class SimsMetrics:
    """The metrics that papers on CH-SIMS report.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> collected = {
        ...     "prediction": np.array([0.5, -1.0]),
        ...     "truth": np.array([1.0, -1.0]),
        ... }
        >>> scores = mmf.metrics.SimsMetrics("sentiment").scores(collected)
        >>> round(scores["acc5"], 2)
        0.5

    Attributes:
        label: Name in `Batch.labels`, (b) float, -1..1.

    Reference:
        MCL-MCF, Table 4.
    """

    label: str

    infos = by_name(
        dataclasses.replace(
            MAE,
            formula=_clipped(functional.mae),
            definition="Mean of |prediction - label|, both clipped to -1..1.",
        ),
        dataclasses.replace(
            CORR,
            formula=_clipped(functional.corr),
            definition="Pearson's r of predictions and labels, both clipped to -1..1; "
            "not defined if one of them is constant.",
        ),
        ScoreInfo(
            "acc2",
            _binned(0.0),
            "Accuracy of the classes [-1, 0] and (0, 1].",
            label="Acc-2",
            headline=True,
        ),
        ScoreInfo(
            "acc3",
            _binned(-0.1, 0.1),
            "Accuracy of the classes [-1, -.1], (-.1, .1] and (.1, 1].",
            label="Acc-3",
        ),
        ScoreInfo(
            "acc5",
            _binned(-0.7, -0.1, 0.1, 0.7),
            "Accuracy of the five classes with the edges -.7, -.1, .1 and .7.",
            label="Acc-5",
        ),
        ScoreInfo(
            "f1",
            _clipped(lambda p, t: functional.weighted_f1(p > 0, t > 0)),
            "F1 of the two classes of Acc-2, weighted by class frequency.",
            label="F1",
            headline=True,
        ),
    )

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Returns the prediction (b) and the label (b) of every example."""
        return {"prediction": outputs.prediction, "truth": batch.label(self.label)}

    def scores(self, collected: Collected) -> dict[str, float]:
        """Returns the metrics of a split, from what `collect` returned, (n ...)."""
        return compute(self.infos.values(), collected)
