"""Scores of a classifier."""

import dataclasses
from collections.abc import Mapping

import numpy as np
from sklearn import metrics as sk

from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Accuracy, UAR and macro precision, recall and F1.

    Attributes:
        label: name in `Batch.labels`, (b) int classes.
        num_classes: k.
    """

    label: str
    num_classes: int

    DEFINITIONS = {
        "accuracy": "share of examples whose highest logit is the true class",
        "uar": "unweighted average recall: mean of recall over classes that occur",
        "macro_precision": "mean of precision over classes that occur; 0 if never said",
        "macro_recall": "mean of recall over classes that occur (the same as UAR)",
        "macro_f1": "mean of F1 over classes that occur, not the F1 of the means",
    }

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """What the scores need of every example: logits (b k) and class (b)."""
        return {"prediction": outputs.prediction, "truth": batch.labels[self.label]}

    def scores(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The scores of `DEFINITIONS`, each in 0..1, from scikit-learn.

        Args:
            collected: what `collect` gave for every real example, (n ...).
        """
        truth, said = collected["truth"], collected["prediction"].argmax(-1)
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            truth, said, labels=np.unique(truth), average="macro",
            zero_division=0,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        return {
            "accuracy": float(np.mean(truth == said)),
            "uar": float(recall),
            "macro_precision": float(precision),
            "macro_recall": float(recall),
            "macro_f1": float(f1),
        }

    def confusion(self, collected: Mapping[str, np.ndarray]) -> np.ndarray:
        """How often each class was taken for each, (k true, k said)."""
        k = self.num_classes
        pairs = collected["truth"] * k + collected["prediction"].argmax(-1)
        return np.bincount(pairs, minlength=k * k).reshape(k, k)


def majority(train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on `test` of always saying the commonest class of `train`."""
    return float(np.mean(test == np.bincount(train).argmax()))
