"""What the fields of a config may hold, checked before anything slow begins."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any

from mmfusion_jax.config.registry import TABLES, choices
from mmfusion_jax.errors import ConfigError, suggest


@dataclasses.dataclass(frozen=True)
class Choice:
    """A rule: the value is one of some names.

    Attributes:
        names: gives them.
    """

    names: Callable[[], tuple[str, ...]]

    def check(self, field: str, value: Any) -> None:
        if value not in self.names():
            raise ConfigError(
                "C03",
                f"--config.{field}={value!r} is unknown.",
                suggest(str(value), self.names()),
            )


@dataclasses.dataclass(frozen=True)
class Range:
    """A rule: the value is a finite number within bounds.

    Attributes:
        minimum: the smallest value.
        maximum: the largest value.
        exclusive: `minimum` itself is too small.
    """

    minimum: float
    maximum: float = math.inf
    exclusive: bool = False

    def check(self, field: str, value: Any) -> None:
        low = value > self.minimum if self.exclusive else value >= self.minimum
        if low and value <= self.maximum and math.isfinite(value):
            return
        bound = (
            f"above {self.minimum}" if self.exclusive else f"at least {self.minimum}"
        )
        if self.maximum < math.inf:
            bound += f" and at most {self.maximum}"
        raise ConfigError(
            "C10", f"--config.{field}={value} is out of range.", f"a number {bound}"
        )


def one_of(*names: str) -> Choice:
    """A rule for names that stand here."""
    return Choice(lambda: names)


def listed(kind: str, *more: str) -> Choice:
    """A rule for the names of a table of `choices`."""
    return Choice(lambda: (*choices(kind), *more))


def every_score() -> tuple[str, ...]:
    """The scores of every kind of label, and the loss."""
    kinds = (kind for kind in TABLES if kind.endswith("score"))
    names = (name for kind in kinds for name in choices(kind))
    return tuple(dict.fromkeys((*names, "loss")))


RULES = {
    "seeds": Range(1),
    "protocol": one_of("honest", "fixed", "paper"),
    "parallel": one_of("jit", "pmap"),
    "compute_dtype": listed("compute type"),
    "model.name": listed("model"),
    "model.encoders.*.name": listed("encoder"),
    "losses.*.name": listed("loss"),
    "optim.name": listed("optimiser"),
    "optim.schedule.name": listed("schedule"),
    "train.select": Choice(every_score),
    "data.name": listed("data set"),
    "data.batch_size": Range(1),
    "data.threads": Range(0),
    "data.folds": Range(1),
    "optim.learning_rate": Range(0, exclusive=True),
    "optim.clip_norm": Range(0),
    "optim.weight_decay": Range(0),
    "optim.l2": Range(0),
    "optim.l2_on": one_of("all", "kernels"),
    "optim.plateau.factor": Range(0, 1, exclusive=True),
    "optim.plateau.patience": Range(0),
    "optim.plateau.watch": one_of("select", "loss"),
    "data.augmentations.*.name": listed("augmentation"),
    "data.modality_dropout.*": Range(0, 1),
    "mis.consistency": one_of("hard", "soft"),
    "mis.confidence": one_of("margin", "entropy"),
    "optim.accumulate": Range(1),
    "optim.schedule.warmup_steps": Range(0),
    "train.epochs": Range(0),
    "train.patience": Range(0),
    "train.log_every": Range(1),
    "train.save_every": Range(0),
    "train.max_bad_steps": Range(1),
    "distributed.num_processes": Range(1),
    "distributed.process_id": Range(0),
}
"""Pattern of field names -> what such a field may hold."""


def check_config(values: Mapping[str, Any]) -> None:
    """Raises ConfigError for the first value that no run can use.

    Args:
        values: full name of a field -> its value.
    """
    for field, value in values.items():
        for pattern, rule in RULES.items():
            if value is not None and fnmatch.fnmatchcase(field, pattern):
                rule.check(field, value)
    check_processes(values)


def check_processes(values: Mapping[str, Any]) -> None:
    """Raises ConfigError if the processes of a run could not find each other."""
    count = values.get("distributed.num_processes", 1)
    number = values.get("distributed.process_id", 0)
    if number >= count:
        raise ConfigError(
            "C10",
            f"--config.distributed.process_id={number} is out of range.",
            f"0 to {count - 1}, for there are {count} processes",
        )
    if count > 1 and not values.get("distributed.coordinator"):
        raise ConfigError(
            "C12",
            f"--config.distributed.num_processes={count} needs a meeting place.",
            "--config.distributed.coordinator=HOST:PORT, that of process 0",
        )
