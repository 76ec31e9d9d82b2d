"""Scores of sentiment from -1 to 1, as CH-SIMS is scored."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.metrics import functional
from mmfusion_jax.types import Array, Batch, Outputs

EDGES = {"acc2": (0.0,), "acc3": (-0.1, 0.1), "acc5": (-0.7, -0.1, 0.1, 0.7)}
"""Score -> where its classes part; an edge belongs to the class below it."""


def sims_scores(said: Any, truth: Any) -> dict[str, float]:
    """The scores of `SimsScores.DEFINITIONS`.

    Args:
        said: (n) answers.
        truth: (n) labels, -1..1.

    Reading:
        Edges are float32 as the values are: with float64 edges a value on an edge
        would change its class.
    """
    p, t = (np.clip(functional.column(x), -1, 1) for x in (said, truth))
    classes = lambda x, edges: np.digitize(x, np.float32(edges), right=True)
    found = {
        name: functional.accuracy(classes(p, edges), classes(t, edges))
        for name, edges in EDGES.items()
    }
    return {
        "mae": functional.mae(p, t),
        "corr": functional.corr(p, t),
        **found,
        "f1": functional.weighted_f1(p > 0, t > 0),
    }


@dataclasses.dataclass(frozen=True)
class SimsMetrics:
    """What the papers on CH-SIMS print.

    Attributes:
        label: name in `Batch.labels`, (b) float, -1..1.

    Source:
        MCL-MCF, Table 4.
    """

    label: str

    DEFINITIONS = {
        "mae": "mean |answer - label|, both clipped to -1..1",
        "corr": "Pearson's r, both clipped to -1..1; 0 if one is constant",
        "acc2": "share in the same of [-1, 0], (0, 1]",
        "acc3": "share in the same of [-1, -.1], (-.1, .1], (.1, 1]",
        "acc5": "share in the same of the ranges that part at -.7, -.1, .1 and .7",
        "f1": "F1 of the two ranges of acc2, weighted by how often each is true",
    }

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """The answer and the label of every example, (b) each."""
        return {"prediction": outputs.prediction, "truth": batch.labels[self.label]}

    def scores(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        return sims_scores(collected["prediction"], collected["truth"])
