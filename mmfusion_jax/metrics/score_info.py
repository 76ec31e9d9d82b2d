"""A metric: its formula, and what is known about it; the interface of several."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from mmfusion_jax.errors import ConfigError, shown, type_name
from mmfusion_jax.results.experiment_result import MetricInfo

if TYPE_CHECKING:  # commands read what a metric is without JAX
    from mmfusion_jax.types import Array, Batch, Outputs

Collected: TypeAlias = Mapping[str, np.ndarray]
"""Arrays of a split, one row per example: "prediction" (n ...) and "truth" (n ...);
of models with unimodal predictions also "alone" (n m k) and "present" (n m)."""
Formula: TypeAlias = Callable[[Collected], float]


@dataclasses.dataclass(frozen=True)
class ScoreInfo:
    """A metric.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> bias = mmf.metrics.ScoreInfo(
        ...     "bias",
        ...     lambda collected: float(
        ...         np.mean(collected["prediction"] - collected["truth"])
        ...     ),
        ...     "Mean of prediction - label.",
        ...     unit="",
        ... )
        >>> bias.formula(
        ...     {"prediction": np.array([0.5, -1.0]), "truth": np.array([1.0, -1.0])}
        ... )
        -0.25

    Attributes:
        name: The key in results and in `config.train.selection_metric`.
        formula: Computes the metric of a split.
        definition: One sentence.
        label: The name in reports and plots; by default `name` with spaces.
        unit: "percent" for a fraction, which reports show as a percentage, or "".
        higher_is_better: The direction.
        headline: `data check` shows it for the constant baseline.
        needs: The collected arrays that `formula` reads.
    """

    name: str
    formula: Formula
    definition: str
    label: str = ""
    unit: Literal["", "percent"] = "percent"
    higher_is_better: bool = True
    headline: bool = False
    needs: tuple[str, ...] = ("prediction", "truth")

    def __post_init__(self):
        if self.unit not in ("", "percent"):
            raise ValueError(
                f"metric {shown(self.name)}: unit={shown(self.unit)} must be '' or "
                "'percent'."
            )
        if not self.label:
            object.__setattr__(self, "label", self.name.replace("_", " "))

    def compute(self, collected: Collected) -> float:
        """Returns the metric of a split.

        Raises:
            ConfigError: The formula does not return a number.
        """
        value = self.formula(collected)
        if hasattr(value, "__float__") and not np.ndim(value):
            return float(value)
        raise ConfigError(
            "C33",
            f"the formula of metric {shown(self.name)} returns {type_name(value)}, "
            "not a number.",
        )

    @property
    def shown(self) -> MetricInfo:
        """The metric as reports show it."""
        return MetricInfo(self.label, self.definition, self.unit, self.higher_is_better)


def _not_computed_from_predictions(collected: Collected) -> float:
    raise ValueError("the loss is computed by the evaluation step, not from collected")


LOSS = ScoreInfo(
    "loss",
    _not_computed_from_predictions,
    "Mean of the loss term `task` over the split.",
    unit="",
    higher_is_better=False,
    needs=(),
)
"""The loss of an evaluation, which every task has in addition to its metrics."""


def on_columns(score: Callable[[np.ndarray, np.ndarray], float]) -> Formula:
    """Returns the formula that applies `score` to flat float32 predictions and labels.

    Args:
        score: Maps predictions (n) and labels (n) to a number.
    """
    column = lambda x: np.asarray(x, np.float32).ravel()
    return lambda collected: score(
        column(collected["prediction"]), column(collected["truth"])
    )


def by_name(*infos: ScoreInfo) -> dict[str, ScoreInfo]:
    """Returns the metrics by name, in their order.

    Raises:
        ValueError: Two metrics have the same name.
    """
    found = {info.name: info for info in infos}
    if len(found) != len(infos):
        raise ValueError(
            f"metrics with the same name: {shown([i.name for i in infos])}"
        )
    return found


def with_loss(infos: Mapping[str, ScoreInfo]) -> dict[str, ScoreInfo]:
    """Returns everything an evaluation reports: the metrics and `LOSS`."""
    return {**infos, LOSS.name: LOSS}


def compute(infos: Iterable[ScoreInfo], collected: Collected) -> dict[str, float]:
    """Returns the metrics by name, without those whose arrays were not collected."""
    return {
        info.name: info.compute(collected)
        for info in infos
        if collected.keys() >= set(info.needs)
    }


class Metrics(Protocol):
    """The metrics of a label: collected on the device, computed on the host."""

    @property
    def infos(self) -> Mapping[str, ScoreInfo]:
        """The metrics by name, in the order of `scores`."""
        ...

    def collect(self, outputs: "Outputs", batch: "Batch") -> "dict[str, Array]":
        """Returns the arrays that the formulas read, (b ...)."""
        ...

    def scores(self, collected: Collected) -> dict[str, float]:
        """Returns the metrics of a split; those whose arrays are missing are left out.

        Args:
            collected: Arrays that `collect` returned, (n ...), of valid examples.
        """
        ...
