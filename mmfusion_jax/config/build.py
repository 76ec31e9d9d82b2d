"""From a config to objects: the only reader of a ConfigDict."""

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfusion_jax.config.instantiate import Config, call, check_options, choose, known
from mmfusion_jax.config.optimizer import build_optimizer
from mmfusion_jax.data.augment.modality_dropout import Compose, ModalityDropout
from mmfusion_jax.data.augment.registry import AUGMENTATIONS
from mmfusion_jax.data.dataset import Dataset, is_ids
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.data.registry import DATASETS, OUTLINES, has_files
from mmfusion_jax.encoders import ENCODERS
from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.losses import LOSSES
from mmfusion_jax.losses.objective import TASK, Objective, WeightedLoss
from mmfusion_jax.metrics.integration_score import IntegrationScoreSpec
from mmfusion_jax.models import MODELS
from mmfusion_jax.tasks import Classification, Multilabel, Regression, Task
from mmfusion_jax.train.parallelism import Executor
from mmfusion_jax.train.plan import TrainPlan
from mmfusion_jax.train.step import Step, make_train_step
from mmfusion_jax.types import Model
from mmfusion_jax.weights import WEIGHT_MAPPINGS, random_init_notices
from mmfusion_jax.weights.convert import WeightMapping

# What config.data holds beside the arguments of the data set itself.
PIPELINE_KEYS = frozenset(
    {
        "name",
        "batch_size",
        "threads",
        "label",
        "fold",
        "folds",
        "augmentations",
        "modality_dropout",
    }
)
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
        modalities: that the model reads.
    """

    model: Model
    task: Task
    objective: Objective
    tx: optax.GradientTransformation
    executor: Executor
    accumulate: int
    steps: int
    modalities: tuple[str, ...]

    def step(self, axis: str | None) -> Step:
        """The training step, not compiled, for a pmap axis or for jit (None)."""
        return make_train_step(
            self.model,
            self.objective,
            self.tx,
            axis,
            self.accumulate,
            self.steps,
            self.modalities,
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
    options = dataset_options(config, fold)
    return augmented(DATASETS[config.data.name](**options), config.data)


def described(config: Config, fold: int) -> Dataset:
    """The data set of `config.data`, or its shapes and classes where no file is there.

    One that has no outline is read.

    Args:
        config: the whole config.
        fold: number of the fold, for data sets that have folds.

    Raises:
        ConfigError: for an unknown name or argument.
        DataError: if files are there and broken, or if nothing is known without them.
    """
    name, options = config.data.name, dataset_options(config, fold)
    if name not in OUTLINES or has_files(name, options):
        return dataset(config, fold)
    return augmented(OUTLINES[name](**options), config.data)


def dataset_options(config: Config, fold: int) -> dict[str, Any]:
    """The arguments of the data set of `config.data`.

    Raises:
        ConfigError: for an unknown name or argument.
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
    check_options(build, options, "config.data")
    return options


def augmented(data: Dataset, options: Config) -> Dataset:
    """A data set with the changes of training examples that `config.data` asks for.

    They follow those of the data set itself; modalities are hidden last.
    """
    steps = [] if data.augment is None else [data.augment]
    for modality, spec in (options.get("augmentations") or {}).items():
        where = f"config.data.augmentations.{modality}"
        values = spec.to_dict()
        make = choose(AUGMENTATIONS, values.pop("name"), f"{where}.name")
        steps.append(call(make, {"modality": modality} | values, where))
    rates = {k: v for k, v in (options.get("modality_dropout") or {}).items() if v}
    if rates:
        steps.append(ModalityDropout(rates))
    if not steps:
        return data
    return dataclasses.replace(data, augment=Compose(tuple(steps)))


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
        num_read_threads=config.data.get("threads", 2),
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
        build_optimizer(config.optim, steps),
        executor,
        accumulate,
        max(steps, 1),
        tuple(sorted(config.model.encoders)),
    )


def build_task(config: Config, data: Dataset) -> Task:
    """What the label of `config.data.label` means in this data set."""
    label = config.data.label
    if label in data.classes:
        return Classification(label, tuple(data.classes[label]), integration(config))
    if "mis" in config:
        raise ConfigError(
            "C18",
            f"config.mis is a score of classes, and label {label!r} is none.",
            f"labels that are classes: {', '.join(data.classes) or 'none'}",
        )
    if label in data.values:
        return Regression(label, data.values[label])
    if label in data.flags:
        return Multilabel(label, tuple(data.flags[label]))
    raise ConfigError(
        "C07",
        f"config.data.label={label!r} is no label of {data.title}.",
        suggest(label, [*data.classes, *data.values, *data.flags]),
    )


def integration(config: Config) -> IntegrationScoreSpec | None:
    """What the score MIS is made of; None where config.mis is left out."""
    if "mis" not in config:
        return None
    modalities = {"modalities": tuple(sorted(config.model.encoders))}
    return call(IntegrationScoreSpec, modalities | config.mis.to_dict(), "config.mis")


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
    flags = {"flags": isinstance(task, Multilabel)}
    encoders = {}
    for modality, spec in options.pop("encoders").items():
        where = f"config.model.encoders.{modality}"
        encoder = choose(ENCODERS, spec.pop("name"), f"{where}.name")
        spec.pop("weights", None)
        encoders[modality] = call(encoder, known(encoder, common) | spec, where)
    options |= known(make, common | flags)
    options |= {"encoders": encoders, "head_size": task.head_size}
    return call(make, options, "config.model")


def weights(config: Config) -> dict[str, tuple[WeightMapping, Path]]:
    """Modality -> the table and the file of its encoder's pretrained weights."""
    found = {}
    for modality, spec in config.model.encoders.items():
        if file := spec.get("weights", ""):
            where = f"config.model.encoders.{modality}"
            table = choose(WEIGHT_MAPPINGS, spec.name, f"{where}.weights: encoder")
            found[modality] = table, Path(file).expanduser()
    return found


def random_encoders(config: Config) -> list[str]:
    """A sentence for every encoder that could be pretrained and is not."""
    encoders = config.model.encoders
    return random_init_notices(
        {name: spec.name for name, spec in encoders.items()},
        {name: spec.get("weights", "") for name, spec in encoders.items()},
    )


def check_ids(config: Config, data: Dataset) -> None:
    """Raises ConfigError if the data has ids that an encoder has no vector for.

    Such an id would be answered with NaN, and only where it occurs.
    """
    for modality, spec in config.model.encoders.items():
        inputs = data.source("train")[0]["inputs"]
        size = spec.get("vocabulary", getattr(ENCODERS[spec.name], "vocabulary", 0))
        if modality not in inputs or not size or not is_ids(inputs[modality]):
            continue
        low, high = data.id_range(modality)
        if low < 0 or high >= size:
            raise ConfigError(
                "C30",
                f"config.model.encoders.{modality}.vocabulary={size}: {data.title} has "
                f"ids from {low} to {high}.",
                f"--config.model.encoders.{modality}.vocabulary={high + 1}"
                if low >= 0
                else "ids count from 0: repair the data",
            )


def build_objective(config: Config, task: Task) -> Objective:
    """The weighted loss terms of `config.losses`."""
    terms = {}
    for name, spec in config.losses.to_dict().items():
        where = f"config.losses.{name}"
        make = choose(LOSSES, spec.pop("name"), f"{where}.name")
        weight = spec.pop("weight", 1.0)
        options = known(make, {"label": task.label}) | spec
        terms[name] = WeightedLoss(call(make, options, where), weight)
    if TASK not in terms:
        raise ConfigError(
            "C14",
            f"config.losses has no term called {TASK!r}, which scores evaluations.",
            f"its terms are {', '.join(terms) or 'none'}",
        )
    return Objective(terms)


def plan(config: Config, per_epoch: int) -> TrainPlan:
    """How long to train and how often to look up."""
    train = config.train
    plateau = config.optim.get("plateau") or {"factor": 1.0, "patience": 0}
    return TrainPlan(
        steps=train.epochs * per_epoch,
        steps_per_epoch=per_epoch,
        selection_split="test" if config.protocol == "paper" else "valid",
        selection_metric=train.select,
        lower_is_better=train.select in LOWER_IS_BETTER,
        patience=train.patience,
        lr_patience=plateau["patience"],
        lr_factor=plateau["factor"],
        log_every=train.log_every,
        save_every=train.save_every,
        max_nonfinite_steps=train.max_bad_steps,
        batch_size=config.data.batch_size,
        lr_monitors_loss=plateau.get("watch", "select") == "loss",
    )


def path(value: str) -> Path:
    """A path as the user wrote it, ~ included."""
    return Path(value).expanduser()
