"""What the fields of a config may hold, checked before anything slow begins."""

import dataclasses
import fnmatch
import math
from collections.abc import Callable, Mapping
from typing import Any

from mmfusion_jax.config.registry import TABLES, choices
from mmfusion_jax.errors import ConfigError, nearest


@dataclasses.dataclass(frozen=True)
class OneOf:
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
                nearest(str(value), self.names()),
            )


@dataclasses.dataclass(frozen=True)
class Number:
    """A rule: the value is a finite number within bounds.

    Attributes:
        least: the smallest value.
        most: the largest value.
        open: `least` itself is too small.
    """

    least: float
    most: float = math.inf
    open: bool = False

    def check(self, field: str, value: Any) -> None:
        low = value > self.least if self.open else value >= self.least
        if low and value <= self.most and math.isfinite(value):
            return
        bound = f"above {self.least}" if self.open else f"at least {self.least}"
        if self.most < math.inf:
            bound += f" and at most {self.most}"
        raise ConfigError(
            "C10", f"--config.{field}={value} is out of range.", f"a number {bound}"
        )


def one_of(*names: str) -> OneOf:
    """A rule for names that stand here."""
    return OneOf(lambda: names)


def listed(kind: str, *more: str) -> OneOf:
    """A rule for the names of a table of `choices`."""
    return OneOf(lambda: (*choices(kind), *more))


def every_score() -> tuple[str, ...]:
    """The scores of every kind of label, and the loss."""
    kinds = (kind for kind in TABLES if kind.endswith("score"))
    names = (name for kind in kinds for name in choices(kind))
    return tuple(dict.fromkeys((*names, "loss")))


RULES = {
    "seeds": Number(1),
    "protocol": one_of("honest", "fixed", "paper"),
    "parallel": one_of("jit", "pmap"),
    "compute_dtype": listed("compute type"),
    "model.name": listed("model"),
    "model.encoders.*.name": listed("encoder"),
    "losses.*.name": listed("loss"),
    "optim.name": listed("optimiser"),
    "optim.schedule.name": listed("schedule"),
    "train.select": OneOf(every_score),
    "data.name": listed("data set"),
    "data.batch_size": Number(1),
    "data.threads": Number(0),
    "data.folds": Number(1),
    "optim.learning_rate": Number(0, open=True),
    "optim.clip_norm": Number(0),
    "optim.weight_decay": Number(0),
    "optim.l2": Number(0),
    "optim.l2_on": one_of("all", "kernels"),
    "optim.plateau.factor": Number(0, 1, open=True),
    "optim.plateau.patience": Number(0),
    "optim.plateau.watch": one_of("select", "loss"),
    "data.augmentations.*.name": listed("augmentation"),
    "data.modality_dropout.*": Number(0, 1),
    "mis.consistency": one_of("hard", "soft"),
    "mis.confidence": one_of("margin", "entropy"),
    "optim.accumulate": Number(1),
    "optim.schedule.warmup_steps": Number(0),
    "train.epochs": Number(0),
    "train.patience": Number(0),
    "train.log_every": Number(1),
    "train.save_every": Number(0),
    "train.max_bad_steps": Number(1),
    "distributed.num_processes": Number(1),
    "distributed.process_id": Number(0),
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
