"""Metrics as published scripts compute them, for comparison with their results."""

from collections.abc import Callable
from typing import Any

import numpy as np

from mmfusion_jax.metrics import functional
from mmfusion_jax.metrics.score_info import Collected, Formula, ScoreInfo


def f1_swapped(y_pred: Any, y_true: Any) -> float:
    """Returns the weighted F1 with its arguments swapped.

    Its weights are the predicted class frequencies instead of the true ones.

    Reference:
        The code of MulT and of MISA.
    """
    return functional.weighted_f1(y_true, y_pred)


def _over_all_classes(
    of_class: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
) -> Formula:
    """Returns the mean of a score of each class over all C classes.

    Args:
        of_class: Maps the hits, predictions and examples of the classes to their
            scores, (k) each.
    """

    def formula(collected: Collected) -> float:
        logits, y_true = collected["prediction"], collected["truth"]
        if logits.ndim != 2 or y_true.ndim != 1:
            raise ValueError(f"logits {logits.shape} are not those of class labels")
        counts = functional.class_counts(logits.argmax(-1), y_true)
        # A class that neither occurs nor is predicted is not counted, and scores 0.
        return float(np.sum(of_class(*counts)) / logits.shape[-1])

    return formula


MACRO_PRECISION_ALL_CLASSES = ScoreInfo(
    "macro_precision_all_classes",
    _over_all_classes(lambda hits, predicted, true: hits / np.maximum(predicted, 1)),
    "Mean of the precision over all classes of the label (Hetero-Fusion-Net, Eq. 19); "
    "0 for a class that is never predicted.",
)
"""Macro precision over all classes, also those that do not occur in the split.

Reference:
    Hetero-Fusion-Net, Eq. 18-19.
Deviation:
    The paper does not define 0 / 0, which is 0 here.
"""

MACRO_RECALL_ALL_CLASSES = ScoreInfo(
    "macro_recall_all_classes",
    _over_all_classes(lambda hits, predicted, true: hits / np.maximum(true, 1)),
    "Mean of the recall over all classes of the label (Hetero-Fusion-Net, Eq. 21); 0 "
    "for a class that does not occur.",
)
"""Macro recall over all classes; Hetero-Fusion-Net, Eq. 20-21, with 0 / 0 = 0."""

MACRO_F1_ALL_CLASSES = ScoreInfo(
    "macro_f1_all_classes",
    _over_all_classes(lambda hits, predicted, true: 2 * hits / (predicted + true)),
    "Mean of the F1 over all classes of the label (Hetero-Fusion-Net, Eq. 23); 0 for a "
    "class without a hit.",
    label="macro F1 all classes",
)
"""Macro F1 over all classes; Hetero-Fusion-Net, Eq. 22-23, with 0 / 0 = 0."""
