"""Scores of a number of any range."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.metrics import functional
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class RegressionMetrics:
    """Error, correlation, and being on the right side of the neutral value.

    Attributes:
        label: name in `Batch.labels`, (b) float.
        neutral: the value between negative and positive.
    """

    label: str
    neutral: float = 0.0

    DEFINITIONS = {
        "mae": "mean |answer - label|",
        "corr": "Pearson's r of answer and label; 0 if one is constant",
        "acc2": "share on the same side: (answer > neutral) = (label > neutral)",
        "f1": "F1 of the two sides, weighted by how often each is true",
    }

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """The answer and the label of every example, (b) each."""
        return {"prediction": outputs.prediction, "truth": batch.labels[self.label]}

    def scores(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        said, truth = collected["prediction"], collected["truth"]
        above = [functional.column(x) > np.float32(self.neutral) for x in (said, truth)]
        return {
            "mae": functional.mae(said, truth),
            "corr": functional.corr(said, truth),
            "acc2": functional.accuracy(*above),
            "f1": functional.weighted_f1(*above),
        }
