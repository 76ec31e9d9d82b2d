"""Metrics of a regression target of any range."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from mmfusion_jax.metrics import functional
from mmfusion_jax.metrics.score_info import (
    Collected,
    Formula,
    ScoreInfo,
    by_name,
    compute,
    on_columns,
)
from mmfusion_jax.types import Array, Batch, Outputs

MAE = ScoreInfo(
    "mae",
    on_columns(functional.mae),
    "Mean of |prediction - label|.",
    label="MAE",
    unit="",
    higher_is_better=False,
    headline=True,
)
RMSE = ScoreInfo(
    "rmse",
    on_columns(functional.rmse),
    "Square root of the mean of (prediction - label)^2.",
    label="RMSE",
    unit="",
    higher_is_better=False,
)
CORR = ScoreInfo(
    "corr",
    on_columns(functional.corr),
    "Pearson's r of predictions and labels; not defined if one of them is constant.",
    label="Pearson r",
    unit="",
)


@dataclasses.dataclass(frozen=True)
class RegressionMetrics:
    """Error, correlation, and accuracy of being above the neutral value.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> collected = {
        ...     "prediction": np.array([0.5, -1.0]),
        ...     "truth": np.array([1.0, -1.0]),
        ... }
        >>> scores = mmf.metrics.RegressionMetrics("arousal").scores(collected)
        >>> round(scores["mae"], 2)
        0.25

    Attributes:
        label: Name in `Batch.labels`, (b) float.
        neutral: The value between negative and positive.
    """

    label: str
    neutral: float = 0.0

    @property
    def infos(self) -> dict[str, ScoreInfo]:
        return by_name(
            MAE,
            CORR,
            ScoreInfo(
                "acc2",
                self._above_neutral(functional.accuracy),
                "Fraction of examples where (prediction > neutral) = "
                f"(label > neutral); the neutral value is {self.neutral:g}.",
                label="Acc-2",
                headline=True,
            ),
            ScoreInfo(
                "f1",
                self._above_neutral(functional.weighted_f1),
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

    def _above_neutral(self, score: Callable[[Any, Any], float]) -> Formula:
        """Returns `score` of the classes x > neutral."""
        neutral = np.float32(self.neutral)
        return on_columns(lambda p, t: score(p > neutral, t > neutral))
