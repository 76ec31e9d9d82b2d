"""Scores of sentiment from -3 to 3, as CMU-MOSI and CMU-MOSEI are scored."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.metrics import as_published, functional
from mmfusion_jax.types import Array, Batch, Outputs


def sentiment_scores(said: Any, truth: Any) -> dict[str, float]:
    """The scores of `SentimentScores.DEFINITIONS`.

    Args:
        said: (n) answers.
        truth: (n) labels, -3..3.
    """
    p, t = functional.column(said), functional.column(truth)
    some = t != 0
    return {
        "mae": functional.mae(p, t),
        "corr": functional.corr(p, t),
        "acc7": functional.rounded_accuracy(p, t, 3.0),
        "acc5": functional.rounded_accuracy(p, t, 2.0),
        "acc2_has0": functional.accuracy(p >= 0, t >= 0),
        "f1_has0": functional.weighted_f1(p >= 0, t >= 0),
        "acc2_non0": functional.accuracy(p[some] > 0, t[some] > 0),
        "f1_non0": functional.weighted_f1(p[some] > 0, t[some] > 0),
        "acc2_mult_all": functional.accuracy(p > 0, t > 0),
        "weighted_accuracy": functional.weighted_accuracy(p, t),
        "f1_swapped_non0": as_published.f1_swapped(p[some] > 0, t[some] > 0),
    }


@dataclasses.dataclass(frozen=True)
class SentimentMetrics:
    """What the papers on CMU-MOSI and CMU-MOSEI print.

    Attributes:
        label: name in `Batch.labels`, (b) float, -3..3.

    Source:
        MCL-MCF, Table 3; MEA, Tables II and III.
    """

    label: str

    DEFINITIONS = {
        "mae": "mean |answer - label|",
        "corr": "Pearson's r of answer and label, unclipped; 0 if one is constant",
        "acc7": "both clipped to -3..3 and rounded half to even: share of equal ones",
        "acc5": "both clipped to -2..2 and rounded half to even: share of equal ones",
        "acc2_has0": "negative or not, all examples: (answer >= 0) = (label >= 0)",
        "f1_has0": "F1 of negative or not, weighted by how often each is true",
        "acc2_non0": "negative or positive, labels of 0 left out",
        "f1_non0": "F1 of negative or positive, labels of 0 left out, truth-weighted",
        "acc2_mult_all": "positive or not, all examples: (answer > 0) = (label > 0)",
        "weighted_accuracy": "mean of the shares found, of labels > 0 and of others",
        "f1_swapped_non0": "legacy: F1 (without 0) weighted by how often each is said",
    }

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """The answer and the label of every example, (b) each."""
        return {"prediction": outputs.prediction, "truth": batch.labels[self.label]}

    def scores(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        return sentiment_scores(collected["prediction"], collected["truth"])
