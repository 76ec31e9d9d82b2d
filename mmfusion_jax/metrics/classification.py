"""Metrics of a classifier."""

import dataclasses
from collections.abc import Callable

import numpy as np

from mmfusion_jax.metrics import functional
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


def _macro(
    of_class: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Formula:
    """Returns the mean over the classes that occur of a score of each class.

    Args:
        of_class: Maps the hits, predictions and examples of the classes to their
            scores, (k) each.
    """

    def formula(collected: Collected) -> float:
        y_pred = collected["prediction"].argmax(-1)
        counts = functional.class_counts(y_pred, collected["truth"])
        # Classes that are predicted but do not occur would count with 0.
        occurs = counts[2] > 0
        return float(np.mean(of_class(*(count[occurs] for count in counts))))

    return formula


_precision = _macro(lambda hits, predicted, true: hits / np.maximum(predicted, 1))
_recall = _macro(lambda hits, predicted, true: hits / true)
_f1 = _macro(lambda hits, predicted, true: 2 * hits / (predicted + true))


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Accuracy, UAR and macro precision, recall and F1.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> collected = {
        ...     "prediction": np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]),
        ...     "truth": np.array([0, 1, 1]),
        ... }
        >>> scores = mmf.metrics.ClassificationMetrics("emotion", 2).scores(collected)
        >>> round(scores["accuracy"], 2)
        0.67

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
            _recall,
            "Unweighted average recall: mean of the recall over classes that occur.",
            label="UAR",
        ),
        ScoreInfo(
            "macro_precision",
            _precision,
            "Mean of the precision over classes that occur; 0 for a class that is "
            "never predicted.",
        ),
        ScoreInfo(
            "macro_recall",
            _recall,
            "Mean of the recall over classes that occur (the same as UAR).",
        ),
        ScoreInfo(
            "macro_f1",
            _f1,
            "Mean of the F1 over classes that occur, not the F1 of the means.",
            label="macro F1",
            headline=True,
        ),
    )

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Returns the logits (b k) and the class (b) of every example."""
        return {"prediction": outputs.prediction, "truth": batch.label(self.label)}

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
