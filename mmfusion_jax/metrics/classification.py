"""Scores of a classifier, from one confusion matrix."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import metrics as sk

from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class ClassificationScores:
    """Accuracy, UAR and macro precision, recall and F1.

    Attributes:
        label: name in `Batch.labels`, (b) int classes.
        num_classes: k.
    """

    label: str
    num_classes: int

    DEFINITIONS: ClassVar[Mapping[str, str]] = {
        "accuracy": "share of examples whose highest logit is the true class",
        "uar": "unweighted average recall: mean over classes of the class's recall",
        "macro_precision": "mean over classes of precision; 0 for a class never said",
        "macro_recall": "mean over classes of recall (the same number as UAR)",
        "macro_f1": "mean over classes of the class's F1, not the F1 of the means",
    }

    def sums(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """The confusion matrix (k true, k said); rows of weight 0 count for nothing."""
        k = self.num_classes
        real = (batch.weight > 0).astype(jnp.int32)
        true = jax.nn.one_hot(batch.labels[self.label], k, dtype=jnp.int32)
        said = jax.nn.one_hot(jnp.argmax(outputs.prediction, -1), k, dtype=jnp.int32)
        return {"confusion": jnp.einsum("b,bi,bj->ij", real, true, said)}

    def scores(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """The scores of `DEFINITIONS`, each in 0..1, from scikit-learn."""
        confusion = np.asarray(sums["confusion"])
        true, said = (grid.ravel() for grid in np.indices(confusion.shape))
        weight = confusion.ravel()
        seen = np.flatnonzero(confusion.sum(1))
        precision, recall, f1, _ = sk.precision_recall_fscore_support(
            true, said, labels=seen, sample_weight=weight, average="macro",
            zero_division=0,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        return {
            "accuracy": float(sk.accuracy_score(true, said, sample_weight=weight)),
            "uar": float(recall),
            "macro_precision": float(precision),
            "macro_recall": float(recall),
            "macro_f1": float(f1),
        }


def majority(train: np.ndarray, test: np.ndarray) -> float:
    """Accuracy on `test` of always saying the commonest class of `train`."""
    return float(np.mean(test == np.bincount(train).argmax()))
