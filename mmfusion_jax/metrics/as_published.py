"""Scores as published scripts compute them: to compare with their figures alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.metrics import functional


def f1_swapped(said: Any, truth: Any) -> float:
    """The weighted F1 with its arguments swapped: weighted by how often it is said.

    Source:
        The code of MulT and of MISA.
    """
    return functional.weighted_f1(truth, said)


def mmsa_classification_non0(logits: Any, truth: Any) -> dict[str, float]:
    """Accuracy and weighted F1 without the neutral class, "accuracy" and "f1".

    What is said is 0 or 1, the place of the higher of two logits; what is true is 0 or
    2, the class: a positive that is found never counts as right.

    Args:
        logits: (n 3) of negative, neutral, positive.
        truth: (n) int classes 0, 1, 2.

    Source:
        The code of MMSA, mode "classification".
    """
    truth = np.ravel(truth)
    some = truth != 1
    said = np.asarray(logits)[some][:, [0, 2]].argmax(-1)
    return {
        "accuracy": functional.accuracy(said, truth[some]),
        "f1": functional.weighted_f1(said, truth[some]),
    }


def rounded4(scores: Mapping[str, float]) -> dict[str, float]:
    """Every score with 4 decimals, as MMSA keeps them, means over seeds included."""
    return {name: round(value, 4) for name, value in scores.items()}
