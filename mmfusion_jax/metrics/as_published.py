"""Metrics as published scripts compute them, for comparison with their results."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.metrics import functional


def f1_swapped(y_pred: Any, y_true: Any) -> float:
    """Returns the weighted F1 with its arguments swapped.

    Its weights are the predicted class frequencies instead of the true ones.

    Reference:
        The code of MulT and of MISA.
    """
    return functional.weighted_f1(y_true, y_pred)


def mmsa_classification_non0(logits: Any, y_true: Any) -> dict[str, float]:
    """Returns "accuracy" and weighted "f1" without the neutral class.

    Predictions are 0 or 1, the index of the higher of two logits; labels are the
    classes 0 or 2: a correctly predicted positive never counts as correct.

    Args:
        logits: Logits of negative, neutral, positive, (n 3).
        y_true: Classes 0, 1, 2, (n) int.

    Reference:
        The code of MMSA, mode "classification".
    """
    y_true = np.ravel(y_true)
    polar = y_true != 1
    y_pred = np.asarray(logits)[polar][:, [0, 2]].argmax(-1)
    return {
        "accuracy": functional.accuracy(y_pred, y_true[polar]),
        "f1": functional.weighted_f1(y_pred, y_true[polar]),
    }


def rounded4(scores: Mapping[str, float]) -> dict[str, float]:
    """Returns the scores rounded to 4 decimals, as MMSA stores them."""
    return {name: round(value, 4) for name, value in scores.items()}
