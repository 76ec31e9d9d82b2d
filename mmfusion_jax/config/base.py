"""The fields that every config has: default, allowed values and meaning.

A config starts from `base_config()` and states only what differs.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from mmfusion_jax.config.load import Config
from mmfusion_jax.config.validate import Check, Choice, PartName, Range, check_type
from mmfusion_jax.errors import ConfigError

REQUIRED = object()
"""Default of a field that every config must state."""

COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of every config.

    Attributes:
        default: Its value in `base_config`; `REQUIRED` if there is none.
        help: What it means, in a sentence.
        check: Which values are allowed; None for every value of the type.
        type: Its type; None for the type of the default.
    """

    default: Any
    help: str
    check: Check | None = None
    type: Any = None

    @property
    def hint(self) -> Any:
        """The type of the value."""
        return self.type or type(self.default)


NAMES = tuple[str, ...]
FIELDS: Mapping[str, Field] = {
    "seed": Field(0, "Seed of the weights, the order and the augmentation.", Range(0)),
    "seeds": Field(1, "Number of runs, with seed, seed + 1, ...", Range(1)),
    "protocol": Field(
        "validation",
        "What selects the checkpoint: the validation split, a fixed number of epochs,"
        " or, as_published, what the paper's code does, which may be the test split.",
        Choice(("validation", "fixed_epochs", "as_published")),
    ),
    "parallel": Field("jit", "How devices share a batch.", Choice(("jit", "pmap"))),
    "compute_dtype": Field(
        "float32", "Type of the activations.", Choice(COMPUTE_DTYPES)
    ),
    "pretrain_unimodal": Field(
        (), "Modalities whose encoders are trained alone first.", type=NAMES
    ),
    "data.name": Field(REQUIRED, "The dataset.", PartName("dataset"), str),
    "data.label": Field(REQUIRED, "The label to predict.", type=str),
    "data.fold": Field("0", "The fold to run, or all."),
    "data.folds": Field(1, "Number of folds.", Range(1)),
    "data.batch_size": Field(32, "Examples in a step, on all devices.", Range(1)),
    "data.num_read_threads": Field(2, "Threads that read examples.", Range(0)),
    "model.name": Field(REQUIRED, "The model.", PartName("model"), str),
    "optim.name": Field("adam", "The optimizer.", PartName("optimizer")),
    "optim.learning_rate": Field(
        1e-3, "Learning rate before the schedule.", Range(0, exclusive=True)
    ),
    "optim.schedule.name": Field(
        "constant", "Learning rate over the steps.", PartName("schedule")
    ),
    "optim.clip_norm": Field(
        0.0, "Maximum norm of the gradient; 0 does not clip.", Range(0)
    ),
    "optim.weight_decay": Field(0.0, "Decoupled weight decay, of AdamW.", Range(0)),
    "optim.coupled_weight_decay": Field(
        0.0, "Weight decay that is added to the gradient (L2).", Range(0)
    ),
    "optim.decay_mask": Field(
        "all",
        "Parameters that coupled_weight_decay applies to.",
        Choice(("all", "kernels")),
    ),
    "optim.reduce_on_plateau.factor": Field(
        0.5, "Factor of the learning rate.", Range(0, 1, exclusive=True)
    ),
    "optim.reduce_on_plateau.patience": Field(
        0, "Evaluations without a better value before it applies; 0 never.", Range(0)
    ),
    "optim.reduce_on_plateau.monitor": Field(
        "selection_metric", "The value.", Choice(("selection_metric", "loss"))
    ),
    "optim.gradient_accumulation_steps": Field(
        1, "Parts of a batch whose gradients are added up.", Range(1)
    ),
    "train.epochs": Field(REQUIRED, "Passes over the training split.", Range(0), int),
    "train.selection_metric": Field(
        "accuracy", "Metric that selects the checkpoint, or loss."
    ),
    "train.patience": Field(
        0, "Epochs without a better value before training stops; 0 never.", Range(0)
    ),
    "train.log_every": Field(20, "Steps between two log entries.", Range(1)),
    "train.save_every": Field(
        0,
        "Steps between checkpoints within an epoch; 0 saves after epochs only.",
        Range(0),
    ),  # fmt: skip
    "train.max_nonfinite_steps": Field(
        3, "Consecutive non-finite steps that end the training.", Range(1)
    ),
    "distributed.coordinator": Field("", "HOST:PORT of process 0."),
    "distributed.num_processes": Field(1, "Number of processes.", Range(1)),
    "distributed.process_id": Field(0, "Number of this process, from 0.", Range(0)),
}
"""Full name -> field, of the fields that are single values."""

GROUPS: Mapping[str, str] = {
    "data.augmentations": "Modality -> augmentation of its training examples.",
    "data.modality_dropout": "Modality -> chance that a training example lacks it.",
    "model.encoders": "Modality -> encoder.",
    "losses": "Term -> loss and weight; the term task scores evaluations.",
    "metrics": "Name -> metric beside those of the label.",
    "optim.groups": "Name -> parameters with a learning rate of their own.",
}
"""Groups of fields whose keys a config chooses."""

MEMBERS: Mapping[str, Field] = {
    "data.augmentations.*.name": Field("", "", PartName("augmentation")),
    "data.modality_dropout.*": Field(0.0, "", Range(0, 1)),
    "model.encoders.*.name": Field("", "", PartName("encoder")),
    "losses.*.name": Field("", "", PartName("loss")),
    "metrics.*.name": Field("", "", PartName("metric")),
    "optim.groups.*.param_prefix": Field("", ""),
    "optim.groups.*.learning_rate": Field(0.0, "", Range(0, exclusive=True)),
    "optim.groups.*.frozen": Field(False, ""),
    "mis.consistency": Field("", "", Choice(("hard", "soft"))),
    "mis.confidence": Field("", "", Choice(("margin", "entropy"))),
}
"""Pattern of field names within groups -> what such a field may hold."""


def base_config() -> ConfigDict:
    """Returns a config with every field that has a default.

    The fields without a default are data.name, data.label, model.name and train.epochs;
    model.encoders and losses are empty. `FIELDS` describes every field.
    """
    config = ConfigDict()
    for name, field in FIELDS.items():
        if field.default is not REQUIRED:
            _set(config, name, field.default)
    for name in GROUPS:
        _set(config, name, ConfigDict())
    return config


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values against `FIELDS`, without importing what they name.

    Args:
        values: Full name of a field -> its value; None is not checked.

    Raises:
        ConfigError: A value has another type, or is not allowed.
    """
    for name, value in values.items():
        if value is None:
            continue
        if field := FIELDS.get(name) or _member(name):
            if field.default is not REQUIRED or field.type:
                check_type(f"--config.{name}", value, field.hint)
            if field.check:
                field.check.check(name, value)
    _check_processes(values)


def _member(name: str) -> Field | None:
    """Returns the description of a field within a group, None if there is none."""
    fits = (f for pattern, f in MEMBERS.items() if fnmatch.fnmatchcase(name, pattern))
    return next(fits, None)


def _check_processes(values: Mapping[str, Any]) -> None:
    """Raises ConfigError if the processes of a run could not find each other."""
    count = values.get("distributed.num_processes", 1)
    number = values.get("distributed.process_id", 0)
    if number >= count:
        raise ConfigError(
            "C10",
            f"--config.distributed.process_id={number} is out of range.",
            f"0 to {count - 1}: there are {count} processes",
        )
    if count > 1 and not values.get("distributed.coordinator"):
        raise ConfigError(
            "C12",
            f"--config.distributed.num_processes={count} requires a coordinator.",
            "--config.distributed.coordinator=HOST:PORT, the address of process 0",
        )


def _set(config: Config, name: str, value: Any) -> None:
    """Sets a field by its full name, with the groups that it is in."""
    *groups, last = name.split(".")
    for group in groups:
        if group not in config:
            config[group] = ConfigDict()
        config = config[group]
    config[last] = value
