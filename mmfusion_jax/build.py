"""From a config to objects: the only reader of a ConfigDict."""

import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from mmfusion_jax.data import DATASETS
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.encoders import ENCODERS
from mmfusion_jax.errors import ConfigError, nearest
from mmfusion_jax.losses import LOSSES
from mmfusion_jax.losses.objective import TASK, Objective, Weighted
from mmfusion_jax.models import MODELS
from mmfusion_jax.tasks import Classification, Multilabel, Regression, Task
from mmfusion_jax.train.devices import Executor
from mmfusion_jax.train.loop import Plan
from mmfusion_jax.train.optimise import REST, brake, grouped, kernels
from mmfusion_jax.train.step import Step, make_train_step
from mmfusion_jax.types import Model
from mmfusion_jax.weights import TABLES, random_starts
from mmfusion_jax.weights.table import Table

Config: TypeAlias = Any
"""A ConfigDict; to a type checker its fields could be anything."""

# What config.data holds beside the arguments of the data set itself.
PIPELINE_KEYS = frozenset({"name", "batch_size", "threads", "label", "fold", "folds"})
OPTIMISERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": optax.sgd,
    "rmsprop": optax.rmsprop,
}
SCHEDULES = {
    "constant": lambda rate, steps, **options: optax.constant_schedule(rate),
    "cosine": lambda rate, steps, warmup_steps=0: optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else rate, rate, warmup_steps, max(steps, warmup_steps + 1)
    ),
    "exponential": lambda rate, steps, decay=0.1: optax.exponential_decay(
        rate, max(steps, 1), decay
    ),
}
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
LOWER_IS_BETTER = frozenset({"loss", "mae"})


@dataclasses.dataclass(frozen=True)
class Parts:
    """Everything a run is made of, but for its data, folder and seed.

    Attributes:
        model: maps a Batch to Outputs.
        task: what the label means.
        objective: of training.
        tx: the optimiser.
        executor: where steps run.
        accumulate: parts a batch is cut into.
        steps: of the whole run.
    """

    model: Model
    task: Task
    objective: Objective
    tx: optax.GradientTransformation
    executor: Executor
    accumulate: int
    steps: int

    def step(self, axis: str | None) -> Step:
        """The training step, not compiled, for a pmap axis or for jit (None)."""
        return make_train_step(
            self.model, self.objective, self.tx, axis, self.accumulate, self.steps
        )


def dataset(config: Config, fold: int) -> Dataset:
    """The data set of `config.data`, made ready if it is not.

    Args:
        config: the whole config.
        fold: number of the fold, for data sets that have folds.

    Raises:
        ConfigError: for an unknown name or argument.
        DataError: if the data is not there or broken.
    """
    build = choose(DATASETS, config.data.name, "config.data.name")
    options = {k: v for k, v in config.data.items() if k not in PIPELINE_KEYS}
    extra = {
        "fold": fold,
        "folds": config.data.get("folds", 1),
        "protocol": config.protocol,
        "seed": config.seed,
        "label": config.data.label,
    }
    takes = inspect.signature(build).parameters
    if "protocol" not in takes and config.protocol == "fixed":
        raise ConfigError(
            "C06",
            f"config.protocol='fixed' is not known to {config.data.name!r}: its "
            "validation split chooses the step.",
            "--config.protocol=honest",
        )
    options |= {k: v for k, v in extra.items() if k in takes}
    if "folder" in options and not options["folder"]:
        options.pop("folder")
    return call(build, options, "config.data")


def folds(config: Config) -> tuple[int, ...]:
    """The folds to run: all of them for "all", else the one that is named."""
    asked = str(config.data.get("fold", "0"))
    count = int(config.data.get("folds", 1))
    if asked == "all":
        return tuple(range(count))
    if asked.isdigit() and int(asked) < count:
        return (int(asked),)
    raise ConfigError(
        "C06",
        f"config.data.fold={asked!r} is not one of the {count} folds.",
        f"--config.data.fold=all, or 0 to {count - 1}",
    )


def pipeline(config: Config, data: Dataset, seed: int) -> Pipeline:
    """The batches of a run, for this process."""
    return Pipeline(
        data,
        batch_size=config.data.batch_size,
        seed=seed,
        threads=config.data.get("threads", 2),
        process=(jax.process_index(), jax.process_count()),
    )


def parts(config: Config, data: Dataset, steps: int) -> Parts:
    """Model, task, objective, optimiser and executor of a config.

    Args:
        config: the whole config.
        data: its data set, for the classes of the label.
        steps: of the whole run, for schedules.
    """
    executor = Executor(config.parallel)
    accumulate = config.optim.get("accumulate", 1)
    executor.check_batch_size(config.data.batch_size, accumulate)
    task = build_task(config, data)
    check_select(config.train.select, task)
    return Parts(
        build_model(config, task, executor.axis),
        task,
        build_objective(config, task),
        optimiser(config.optim, steps),
        executor,
        accumulate,
        max(steps, 1),
    )


def build_task(config: Config, data: Dataset) -> Task:
    """What the label of `config.data.label` means in this data set."""
    label = config.data.label
    if label in data.classes:
        return Classification(label, tuple(data.classes[label]))
    if label in data.values:
        return Regression(label, data.values[label])
    if label in data.flags:
        return Multilabel(label, tuple(data.flags[label]))
    raise ConfigError(
        "C07",
        f"config.data.label={label!r} is no label of {data.title}.",
        nearest(label, [*data.classes, *data.values, *data.flags]),
    )


def check_select(select: str, task: Task) -> None:
    """Raises ConfigError if the label has no such score."""
    known = [*task.scores().DEFINITIONS, "loss"]
    if select not in known:
        raise ConfigError(
            "C16",
            f"config.train.select={select!r} is no score of label {task.label!r}.",
            f"--config.train.select={known[0]} (its scores: {', '.join(known)})",
        )


def build_model(config: Config, task: Task, axis: str | None) -> Model:
    """The model of `config.model` with its encoders."""
    options = config.model.to_dict()
    make = choose(MODELS, options.pop("name"), "config.model.name")
    common = {"axis": axis, "dtype": DTYPES[config.compute_dtype]}
    encoders = {}
    for modality, spec in options.pop("encoders").items():
        where = f"config.model.encoders.{modality}"
        encoder = choose(ENCODERS, spec.pop("name"), f"{where}.name")
        spec.pop("weights", None)
        encoders[modality] = call(encoder, _known(encoder, common) | spec, where)
    options |= _known(make, common)
    options |= {"encoders": encoders, "head_size": task.head_size}
    return call(make, options, "config.model")


def weights(config: Config) -> dict[str, tuple[Table, Path]]:
    """Modality -> the table and the file of its encoder's pretrained weights."""
    found = {}
    for modality, spec in config.model.encoders.items():
        if file := spec.get("weights", ""):
            where = f"config.model.encoders.{modality}"
            table = choose(TABLES, spec.name, f"{where}.weights: encoder")
            found[modality] = table, Path(file).expanduser()
    return found


def random_encoders(config: Config) -> list[str]:
    """A sentence for every encoder that could be pretrained and is not."""
    encoders = config.model.encoders
    return random_starts(
        {name: spec.name for name, spec in encoders.items()},
        {name: spec.get("weights", "") for name, spec in encoders.items()},
    )


def build_objective(config: Config, task: Task) -> Objective:
    """The weighted loss terms of `config.losses`."""
    terms = {}
    for name, spec in config.losses.to_dict().items():
        where = f"config.losses.{name}"
        make = choose(LOSSES, spec.pop("name"), f"{where}.name")
        weight = spec.pop("weight", 1.0)
        options = _known(make, {"label": task.label}) | spec
        terms[name] = Weighted(call(make, options, where), weight)
    if TASK not in terms:
        raise ConfigError(
            "C14",
            f"config.losses has no term called {TASK!r}, which scores evaluations.",
            f"its terms are {', '.join(terms) or 'none'}",
        )
    return Objective(terms)


def optimiser(options: Config, steps: int) -> optax.GradientTransformation:
    """The optimiser of `config.optim`.

    Clipping, then L2 decay, then the rule with its schedule, for every group of
    parameters with its own rate, then the brake of a plateau.
    """
    values = options.to_dict()
    parts = []
    if clip := values.pop("clip_norm", 0.0):
        parts.append(optax.clip_by_global_norm(clip))
    kernels_only = values.pop("l2_on", "all") == "kernels"
    if decay := values.pop("l2", 0.0):
        mask = kernels if kernels_only else None
        parts.append(optax.add_decayed_weights(decay, mask))
    plateau, groups = values.pop("plateau", None), values.pop("groups", None)
    values.pop("accumulate", 1)
    rule = functools.partial(_rule, values, steps)
    if groups:
        where = "config.optim.groups"
        prefixes = {k: call(_prefix, g, f"{where}.{k}") for k, g in groups.items()}
        rules = {name: rule(**group) for name, group in groups.items()}
        parts.append(grouped(rules | {REST: rule()}, prefixes))
    else:
        parts.append(rule())
    if plateau and plateau["patience"]:
        parts.append(brake())
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


def _prefix(
    match: str, learning_rate: float | None = None, frozen: bool = False
) -> str:
    """How the parameters of a group begin; the signature tells a group's fields."""
    return match


def _rule(
    values: Mapping[str, Any],
    steps: int,
    match: str = "",
    learning_rate: float | None = None,
    frozen: bool = False,
) -> optax.GradientTransformation:
    """The update rule with its schedule, for all parameters or for a group."""
    if frozen:
        return optax.set_to_zero()
    values = copy.deepcopy(dict(values))
    make = choose(OPTIMISERS, values.pop("name"), "config.optim.name")
    schedule = values.pop("schedule", {"name": "constant"})
    shape = choose(SCHEDULES, schedule.pop("name"), "config.optim.schedule.name")
    rate = values.pop("learning_rate") if learning_rate is None else learning_rate
    values.pop("learning_rate", None)
    decay = values.pop("weight_decay", 0.0)
    if decay:
        if make is not optax.adamw:
            raise ConfigError(
                "C08",
                f"config.optim.weight_decay={decay} needs an optimiser that decays.",
                "--config.optim.name=adamw",
            )
        values["weight_decay"] = decay
    curve = call(
        lambda **kw: shape(rate, steps, **kw), schedule, "config.optim.schedule"
    )
    return call(lambda **kw: make(curve, **kw), values, "config.optim")


def plan(config: Config, per_epoch: int) -> Plan:
    """How long to train and how often to look up."""
    train = config.train
    plateau = config.optim.get("plateau") or {"factor": 1.0, "patience": 0}
    return Plan(
        steps=train.epochs * per_epoch,
        steps_per_epoch=per_epoch,
        choose="test" if config.protocol == "paper" else "valid",
        select=train.select,
        lower_is_better=train.select in LOWER_IS_BETTER,
        patience=train.patience,
        slow_after=plateau["patience"],
        slow_factor=plateau["factor"],
        log_every=train.log_every,
        save_every=train.save_every,
        max_bad_steps=train.max_bad_steps,
        batch_size=config.data.batch_size,
    )


def choose(table: Mapping[str, Any], name: str, where: str) -> Any:
    """The entry `name` of a table; ConfigError with the nearest name if unknown."""
    if name not in table:
        raise ConfigError("C03", f"{where}={name!r} is unknown; {nearest(name, table)}")
    return table[name]


def call(make: Callable[..., Any], options: Mapping[str, Any], where: str) -> Any:
    """`make(**options)`; an option that it does not have is a ConfigError."""
    takes = inspect.signature(make).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        for key in options:
            if key not in takes:
                names = [n for n in takes if n not in ("parent", "name")]
                raise ConfigError(
                    "C02", f"{where}.{key} is unknown; {nearest(key, names)}"
                )
    return make(**options)


def _known(make: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `options` that `make` takes."""
    takes = inspect.signature(make).parameters
    return {k: v for k, v in options.items() if k in takes}


def path(value: str) -> Path:
    """A path as the user wrote it, ~ included."""
    return Path(value).expanduser()
