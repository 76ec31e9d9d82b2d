"""The metrics of a label with those that a config adds."""

import dataclasses
from collections.abc import Iterable

from mmfusion_jax.errors import (
    ConfigError,
    describe_exception,
    join_names,
    shown,
    shown_name,
)
from mmfusion_jax.metrics.score_info import (
    LOSS,
    Collected,
    Metrics,
    ScoreInfo,
    by_name,
    compute,
)
from mmfusion_jax.types import Array, Batch, Outputs


@dataclasses.dataclass(frozen=True)
class ExtendedMetrics:
    """The metrics of a label and extra ones.

    Attributes:
        family: The metrics of the label.
        extra: Metrics of the same collected arrays.
    """

    family: Metrics
    extra: tuple[ScoreInfo, ...]

    @property
    def infos(self) -> dict[str, ScoreInfo]:
        return by_name(*self.family.infos.values(), *self.extra)

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]:
        return self.family.collect(outputs, batch)

    def scores(self, collected: Collected) -> dict[str, float]:
        return compute(self.infos.values(), collected)


def check_extra_metrics(
    label: str, family: Metrics, extra: Iterable[ScoreInfo], example: Collected
) -> None:
    """Checks that extra metrics can be computed, before a run begins.

    Args:
        label: Name of the label, for messages.
        family: The metrics of the label.
        extra: The metrics to check.
        example: Collected arrays of two examples.

    Raises:
        ConfigError: A name is taken, or the formula fails on `example`.
    """
    taken = {*family.infos, LOSS.name}
    for info in extra:
        if info.name in taken:
            raise ConfigError(
                "C16",
                f"config.metrics adds {shown(info.name)}, but label {shown(label)} "
                "already has a metric of this name.",
                f"remove it; the metrics of the label: {join_names(family.infos)}",
            )
        taken.add(info.name)
        try:
            info.compute({name: example[name] for name in info.needs})
        except ConfigError:
            raise
        except Exception as error:
            raise ConfigError(
                "C16",
                f"config.metrics: {shown(info.name)} cannot be computed for label "
                f"{shown(label)}: {describe_exception(error)}.",
                "its formula gets, for two examples, arrays of the shapes "
                + ", ".join(
                    f"{shown_name(name)} {x.shape}" for name, x in example.items()
                ),
            ) from error


def extended(family: Metrics, extra: tuple[ScoreInfo, ...]) -> Metrics:
    """Returns the metrics of a label and extra ones."""
    return ExtendedMetrics(family, extra) if extra else family
