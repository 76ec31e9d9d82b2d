"""Metrics of a classifier."""

import dataclasses

import numpy as np
from sklearn import metrics as sk

from mmfusion_jax.metrics.score_info import (
    Collected,
    Formula,
    ScoreInfo,
    by_name,
    compute,
)
from mmfusion_jax.types import Array, Batch, Outputs


def _accuracy(collected: Collected) -> float:
    y_true, y_pred = collected["truth"], collected["prediction"].argmax(-1)
    return float(np.mean(y_true == y_pred))


def _macro(index: int) -> Formula:
    """Returns the macro precision (0), recall (1) or F1 (2) of scikit-learn."""

    def formula(collected: Collected) -> float:
        y_true, y_pred = collected["truth"], collected["prediction"].argmax(-1)
        found = sk.precision_recall_fscore_support(
            # Without `labels`, classes that are predicted but do not occur would count
            # in the means, with 0.
            y_true, y_pred, labels=np.unique(y_true), average="macro",
            zero_division=0,  # pyright: ignore[reportArgumentType]
        )  # fmt: skip
        return float(found[index])  # pyright: ignore[reportArgumentType]

    return formula


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Accuracy, UAR and macro precision, recall and F1.

    Attributes:
        label: Name in `Batch.labels`, (b) int classes.
        num_classes: Number of classes, k.
    """

    label: str
    num_classes: int

    infos = by_name(
        ScoreInfo(
            "accuracy",
            _accuracy,
            "Fraction of examples whose highest logit is that of the true class.",
            headline=True,
        ),
        ScoreInfo(
            "uar",
            _macro(1),
            "Unweighted average recall: mean of the recall over classes that occur.",
            label="UAR",
        ),
        ScoreInfo(
            "macro_precision",
            _macro(0),
            "Mean of the precision over classes that occur; 0 for a class that is "
            "never predicted.",
        ),
        ScoreInfo(
            "macro_recall",
            _macro(1),
            "Mean of the recall over classes that occur (the same as UAR).",
        ),
        ScoreInfo(
            "macro_f1",
            _macro(2),
            "Mean of the F1 over classes that occur, not the F1 of the means.",
            label="macro F1",
            headline=True,
        ),
    )

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Returns the logits (b k) and the class (b) of every example."""
        return {"prediction": outputs.prediction, "truth": batch.labels[self.label]}

    def scores(self, collected: Collected) -> dict[str, float]:
        """Returns the metrics of a split.

        Args:
            collected: Arrays that `collect` returned, (n ...), of valid examples.
        """
        return compute(self.infos.values(), collected)

    def confusion(self, collected: Collected) -> np.ndarray:
        """Returns the number of examples by class, (k true, k predicted)."""
        k = self.num_classes
        pairs = collected["truth"] * k + collected["prediction"].argmax(-1)
        return np.bincount(pairs, minlength=k * k).reshape(k, k)
