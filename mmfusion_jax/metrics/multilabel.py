"""Metrics of several binary labels at once, as for the four emotions of IEMOCAP."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from mmfusion_jax.errors import shown_name
from mmfusion_jax.metrics import functional
from mmfusion_jax.metrics.score_info import (
    Collected,
    Formula,
    ScoreInfo,
    by_name,
    compute,
)
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class MultilabelMetrics:
    """Accuracy and weighted F1 of every flag, and their means.

    Example:
        >>> import mmfusion_jax as mmf
        >>> family = mmf.metrics.MultilabelMetrics("emotions", ("happy", "sad"))
        >>> list(family.infos)
        ['accuracy', 'f1', 'happy_accuracy', 'happy_f1', 'sad_accuracy', 'sad_f1']

    Attributes:
        label: Name in `Batch.labels`, (b j) int 0 or 1.
        names: Names of the flags.

    Reference:
        MEA, Table IV.
    """

    label: str
    names: tuple[str, ...]

    @property
    def infos(self) -> dict[str, ScoreInfo]:
        flags = [
            info
            for index, name in enumerate(self.names)
            for info in (
                ScoreInfo(
                    f"{name}_accuracy",
                    _of_flag(index, functional.accuracy),
                    f"Fraction of examples whose flag {shown_name(name)} is "
                    "predicted correctly.",
                    label=f"{shown_name(name)} accuracy",
                ),
                ScoreInfo(
                    f"{name}_f1",
                    _of_flag(index, functional.weighted_f1),
                    f"F1 of the two values of {shown_name(name)}, "
                    "weighted by their frequency.",
                    label=f"{shown_name(name)} F1",
                ),
            )
        ]
        accuracies, f1s = flags[::2], flags[1::2]
        return by_name(
            ScoreInfo(
                "accuracy",
                _mean(accuracies),
                "Mean over the flags of the accuracy of a flag.",
                headline=True,
            ),
            ScoreInfo(
                "f1",
                _mean(f1s),
                "Mean over the flags of the F1 of 0 and 1, weighted by their "
                "frequency.",
                label="F1",
                headline=True,
            ),
            *flags,
        )

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        """Returns two logits per flag, (b 2j), and the flags, (b j)."""
        return {"prediction": outputs.prediction, "truth": batch.label(self.label)}

    def scores(self, collected: Collected) -> dict[str, float]:
        """Returns the metrics of a split, from what `collect` returned, (n ...)."""
        return compute(self.infos.values(), collected)


def _of_flag(index: int, score: Callable[[Any, Any], float]) -> Formula:
    """Returns `score` of one flag."""

    def formula(collected: Collected) -> float:
        y_true = np.asarray(collected["truth"]).astype(int)
        logits = np.asarray(collected["prediction"]).reshape(*y_true.shape, 2)
        return score(logits.argmax(-1)[:, index], y_true[:, index])

    return formula


def _mean(infos: list[ScoreInfo]) -> Formula:
    """Returns the mean of several metrics."""
    return lambda collected: float(np.mean([i.formula(collected) for i in infos]))
