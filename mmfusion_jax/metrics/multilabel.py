"""Scores of several yes or no at once, as IEMOCAP's four emotions are scored."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.metrics import functional
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class MultilabelMetrics:
    """Accuracy and weighted F1 of every flag, and their means.

    Attributes:
        label: name in `Batch.labels`, (b j) int 0 or 1.
        names: of the flags.

    Source:
        MEA, Table IV.
    """

    label: str
    names: tuple[str, ...]

    DEFINITIONS = {
        "accuracy": "mean over the flags of the share of right answers",
        "f1": "mean over the flags of F1 of yes and no, weighted by the truth",
    }

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Two logits a flag, (b 2j), and the flags, (b j)."""
        return {"prediction": outputs.prediction, "truth": batch.labels[self.label]}

    def scores(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The scores of `DEFINITIONS`, and both of every flag, "<flag>_accuracy"."""
        truth = np.asarray(collected["truth"]).astype(int)
        said = np.asarray(collected["prediction"]).reshape(*truth.shape, 2).argmax(-1)
        found = {}
        for name, p, t in zip(self.names, said.T, truth.T, strict=True):
            found[f"{name}_accuracy"] = functional.accuracy(p, t)
            found[f"{name}_f1"] = functional.weighted_f1(p, t)
        mean = lambda kind: float(np.mean([found[f"{n}_{kind}"] for n in self.names]))
        return {"accuracy": mean("accuracy"), "f1": mean("f1"), **found}
