"""The fields that every config has: default, allowed values and meaning.

A config starts from `base_config()` and states only what differs.
"""

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from ml_collections import ConfigDict

from mmfusion_jax.config.load import Config
from mmfusion_jax.config.registry import TABLES
from mmfusion_jax.config.validate import PartName, check_type, choices
from mmfusion_jax.errors import ConfigError, join_names, shown, shown_name
from mmfusion_jax.option_types import (
    LearningRate,
    NonNegativeFloat,
    NonNegativeInt,
    Parallel,
    PositiveInt,
    Range,
    Seed,
    SelectionProtocol,
    Size,
    Weight,
)

# An object of its own, since None and "" are values of fields.
REQUIRED = object()
"""Default of a field that every config must state."""


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of every config.

    Attributes:
        default: Its value in `base_config`; `REQUIRED` if there is none.
        help: Meaning, one sentence.
        type: Its type, with bounds as in `option_types`, or the kind of part that it
            names; None for the type of the default.
    """

    default: Any
    help: str
    type: Any = None

    @property
    def description(self) -> str:
        """The meaning, with the names that it may have."""
        known = choices(self.hint)
        return f"{self.help[:-1]}: {join_names(known)}." if known else self.help

    @property
    def hint(self) -> Any:
        """The type of the value."""
        return self.type or type(self.default)


NAMES = tuple[str, ...]
Factor = Annotated[float, Range(0, 1, exclusive=True)]
# Larger ones would be lists, steps or threads that no machine holds.
MAX_SEED = 2**31 - 1
Count = Annotated[int, Range(1, 10_000)]
Epochs = Annotated[int, Range(0, 1_000_000)]
Threads = Annotated[int, Range(0, 1024)]
FIELDS: Mapping[str, Field] = {
    "seed": Field(0, "Seed of the weights, the order and the augmentation.", Seed),
    "seeds": Field(1, "Number of runs, with seed, seed + 1, ...", Count),
    "protocol": Field(
        "validation",
        "What selects the checkpoint; as_published does what the paper's code does, and"
        " may use the test split.",
        SelectionProtocol,
    ),
    "parallel": Field(
        "jit",
        "How devices share a batch: the compiler splits the step (jit), or every device"
        " runs the step of its rows (shard_map, pmap).",
        Parallel,
    ),
    "compute_dtype": Field(
        "float32", "Type of the activations.", Literal["float32", "bfloat16"]
    ),
    "matmul_precision": Field(
        "highest",
        "Precision of the model's float32 products on accelerators; losses and heads"
        " have the highest.",
        Literal["default", "high", "highest"],
    ),
    "pretrain_unimodal": Field(
        (), "Modalities whose encoders are pretrained alone.", NAMES
    ),
    "pretrain_epochs": Field(0, "Epochs of the pretraining; 0: train.epochs.", Epochs),
    "data.name": Field(REQUIRED, "The dataset.", PartName("dataset")),
    "data.label": Field(REQUIRED, "The label to predict.", str),
    "data.fold": Field("0", "Number of the fold to run, or all."),
    "data.folds": Field(1, "Number of folds.", Count),
    "data.batch_size": Field(32, "Examples per step, on all devices.", Size),
    "data.num_read_threads": Field(2, "Threads that read examples.", Threads),
    "model.name": Field(REQUIRED, "The model.", PartName("model")),
    "optim.name": Field("adam", "The optimizer.", PartName("optimizer")),
    "optim.learning_rate": Field(
        1e-3, "Learning rate before the schedule.", LearningRate
    ),
    "optim.schedule.name": Field(
        "constant", "Schedule of the learning rate.", PartName("schedule")
    ),
    "optim.clip_norm": Field(
        0.0, "Maximum norm of the gradient; 0 does not clip.", NonNegativeFloat
    ),
    "optim.weight_decay": Field(0.0, "Decoupled weight decay; requires adamw.", Weight),
    "optim.coupled_weight_decay": Field(
        0.0, "Weight decay that is added to the gradient (L2).", Weight
    ),
    "optim.decay_mask": Field(
        "all",
        "Parameters that coupled_weight_decay applies to.",
        Literal["all", "kernels"],
    ),
    "optim.reduce_on_plateau.factor": Field(
        0.5, "What the learning rate is multiplied by on a plateau.", Factor
    ),
    "optim.reduce_on_plateau.patience": Field(
        0,
        "Evaluations without improvement until then; 0: never.",
        NonNegativeInt,
    ),
    "optim.reduce_on_plateau.monitor": Field(
        "selection_metric",
        "What must improve.",
        Literal["selection_metric", "loss"],
    ),
    "optim.gradient_balance": Field(
        "none",
        "How the gradients of several loss terms are combined: added (none), without "
        "their conflicts (pcgrad), or with norms in proportion to the weights (norm).",
        Literal["none", "pcgrad", "norm"],
    ),
    "optim.gradient_accumulation_steps": Field(
        1, "Parts into which a batch is split, to save memory.", PositiveInt
    ),
    "train.epochs": Field(REQUIRED, "Passes over the training split.", Epochs),
    "train.selection_metric": Field(
        "accuracy", "Metric that selects the checkpoint, or loss."
    ),
    "train.patience": Field(
        0,
        "Epochs without improvement until training stops; 0: never.",
        NonNegativeInt,
    ),
    "train.log_every": Field(20, "Steps between two log entries.", PositiveInt),
    "train.gradient_stats_every": Field(
        0,
        "Steps between records of the gradients of all loss terms, by module; 0: none.",
        NonNegativeInt,
    ),
    "train.save_every": Field(
        0,
        "Steps between checkpoints within an epoch; 0 saves after epochs only.",
        NonNegativeInt,
    ),  # fmt: skip
    "train.parallel_seeds": Field(
        "auto",
        "Whether the seeds of a fold train at once; auto decides.",
        Literal["auto", "on", "off"],
    ),
    "train.max_nonfinite_steps": Field(
        3, "Consecutive non-finite steps that end the training.", PositiveInt
    ),
    "train.diagnosis": Field(
        True, "Examine streams, loss terms and missing modalities after training."
    ),
    "distributed.mode": Field(
        "manual",
        "How processes join: by the fields below (manual), as the cluster started them "
        "(auto), or not (off).",
        Literal["manual", "auto", "off"],
    ),
    "distributed.coordinator": Field("", "HOST:PORT of process 0."),
    "distributed.num_processes": Field(1, "Number of processes.", Count),
    "distributed.process_id": Field(
        0, "Index of this process, from 0.", NonNegativeInt
    ),
    "distributed.start_timeout": Field(
        60, "Seconds in which all processes must have started.", PositiveInt
    ),
    "distributed.heartbeat_timeout": Field(
        30,
        "Seconds without a sign of a process after which it counts as lost.",
        PositiveInt,
    ),
    "distributed.save_timeout": Field(
        600, "Seconds in which all processes must reach a save.", PositiveInt
    ),
    "distributed.stop_timeout": Field(
        60, "Seconds in which all processes must have ended.", PositiveInt
    ),
}
"""Full name -> field, of the fields that are single values."""

GROUPS: Mapping[str, str] = {
    "data.augmentations": "Modality -> augmentation of its training examples.",
    "data.modality_dropout": "Modality -> probability that it is dropped in training.",
    "model.encoders": "Modality -> encoder.",
    "losses": "Term -> loss and weight; one term is named task.",
    "metrics": "Name -> metric, in addition to those of the label.",
    "optim.groups": "Name -> parameters with a separate learning rate.",
}
"""Groups of fields whose keys a config chooses."""

MEMBERS: Mapping[str, Any] = {
    "data.augmentations.*.name": PartName("augmentation"),
    "model.encoders.*.name": PartName("encoder"),
    "model.encoders.*.weights": str,
    "model.fusion.name": PartName("fusion"),
    "losses.*.name": PartName("loss"),
    "losses.*.weight": Weight,
    "metrics.*.name": PartName("metric"),
}
"""Pattern of field names within groups -> the type of such a field."""


def base_config() -> ConfigDict:
    """Returns a config with every field that has a default.

    The fields without a default are data.name, data.label, model.name and train.epochs;
    model.encoders and losses are empty. `FIELDS` describes every field.

    Example:
        >>> import mmfusion_jax as mmf
        >>> config = mmf.base_config()
        >>> config.protocol, config.data.batch_size
        ('validation', 32)
    """
    config = ConfigDict()
    for name, field in FIELDS.items():
        if field.default is not REQUIRED:
            _set(config, name, field.default)
    for name in GROUPS:
        _set(config, name, ConfigDict())
    return config


def with_defaults(config: Mapping[str, Any]) -> ConfigDict:
    """Returns a stored config, with the defaults of fields that were added since.

    Example:
        >>> from mmfusion_jax.config.base import with_defaults
        >>> with_defaults({"train": {"epochs": 5}}).train.log_every
        20

    Args:
        config: The fields of an earlier config, as JSON values.
    """
    return ConfigDict(_merged(base_config().to_dict(), config))


def _merged(defaults: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Returns `stored` with the fields that only `defaults` has, group by group."""
    groups = {
        name: _merged(defaults[name], value)
        for name, value in stored.items()
        if isinstance(value, Mapping) and isinstance(defaults.get(name), Mapping)
    }
    return {**defaults, **stored, **groups}


def check_values(values: Mapping[str, Any]) -> None:
    """Checks values against `FIELDS`, without importing what they name.

    Args:
        values: Full name of a field -> its value; None is not checked.

    Raises:
        ConfigError: A value has another type, or is not allowed.
    """
    for name, value in values.items():
        if value is not None and (hint := _type_of(name)) is not None:
            check_type(f"--config.{name}", value, hint)
    _check_processes(values)
    _check_last_seed(values)


def part_kind(name: str) -> str:
    """Returns the kind of part that a field names; "" if it does not name one."""
    hint = _type_of(name)
    if not isinstance(hint, PartName):
        return ""
    # An option of an encoder that is a part, such as the encoder in "ctc_aligned".
    inner = name.split(".")[-2]
    return inner if inner in TABLES else hint.kind


def _type_of(name: str) -> Any:
    """Returns the type of a field, None if it depends on a part."""
    if name in FIELDS:
        return FIELDS[name].hint
    fits = (
        hint for pattern, hint in MEMBERS.items() if fnmatch.fnmatchcase(name, pattern)
    )
    return next(fits, None)


def _check_processes(values: Mapping[str, Any]) -> None:
    """Raises ConfigError if the processes of a run could not find each other."""
    count = values.get("distributed.num_processes", 1)
    number = values.get("distributed.process_id", 0)
    mode = values.get("distributed.mode", "manual")
    if mode != "manual" and (count > 1 or number):
        raise ConfigError(
            "C10",
            f"--config.distributed.mode={mode} does not read num_processes and "
            "process_id.",
            "leave these out, or --config.distributed.mode=manual",
        )
    if number >= count:
        raise ConfigError(
            "C10",
            f"--config.distributed.process_id={number} is out of range.",
            f"0 to {count - 1}: there are {count} processes",
        )
    _check_coordinator(values.get("distributed.coordinator", ""), mode, count)


def _check_coordinator(address: str, mode: str, count: int) -> None:
    """Raises ConfigError if processes could not connect at an address."""
    if not address:
        if count > 1:
            raise ConfigError(
                "C12",
                f"--config.distributed.num_processes={count:d} requires a coordinator.",
                "--config.distributed.coordinator=HOST:PORT, the address of process 0",
            )
        return
    if mode != "manual":
        raise ConfigError(
            "C12",
            f"--config.distributed.coordinator={shown(address)} is not used with "
            f"mode={shown_name(mode)}.",
            "leave it out, or --config.distributed.mode=manual",
        )
    try:
        parts = urlsplit(f"//{address}")
        valid = bool(parts.hostname and parts.port) and parts.netloc == address
    except ValueError:  # the port
        valid = False
    if not valid:
        raise ConfigError(
            "C12",
            f"--config.distributed.coordinator={shown(address)} is not HOST:PORT.",
            "such as localhost:1234; a port is a number from 1 to 65535",
        )


def _check_last_seed(values: Mapping[str, Any]) -> None:
    """Raises ConfigError if the last of several seeds is too large for JAX."""
    first, count = values.get("seed") or 0, values.get("seeds") or 1
    if first + count - 1 > MAX_SEED:
        raise ConfigError(
            "C10",
            f"--config.seed={first:d} is out of range: the last of {count:d} seeds is "
            f"{first + count - 1:d}.",
            f"--config.seed=0, or up to {MAX_SEED - count + 1:d}",
        )


def _set(config: Config, name: str, value: Any) -> None:
    """Sets a field by its full name, with the groups that it is in."""
    *groups, last = name.split(".")
    for group in groups:
        if group not in config:
            config[group] = ConfigDict()
        config = config[group]
    config[last] = value
