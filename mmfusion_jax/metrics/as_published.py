"""Metrics as published scripts compute them, for comparison with their results."""

from typing import Any

from mmfusion_jax.metrics import functional


def f1_swapped(y_pred: Any, y_true: Any) -> float:
    """Returns the weighted F1 with its arguments swapped.

    Its weights are the predicted class frequencies instead of the true ones.

    Reference:
        The code of MulT and of MISA.
    """
    return functional.weighted_f1(y_true, y_pred)
