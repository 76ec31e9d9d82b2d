"""The model, losses, optimizer and plan of an experiment, from its typed spec."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import optax

from mmfusion_jax.config.checked_model import checked_model
from mmfusion_jax.config.optimizer import build_optimizer, l2_penalty
from mmfusion_jax.config.registry import load_weight_mapping
from mmfusion_jax.config.spec import ExperimentSpec, Part
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.errors import (
    ConfigError,
    join_names,
    shown,
    shown_name,
    suggest,
    type_name,
)
from mmfusion_jax.losses.objective import TASK, Objective, WeightedLoss
from mmfusion_jax.metrics.integration_score import IntegrationScoreSpec
from mmfusion_jax.metrics.score_info import ScoreInfo, with_loss
from mmfusion_jax.models.encoder_aux import with_encoder_aux
from mmfusion_jax.models.matmul_precision import WithMatmulPrecision
from mmfusion_jax.paths import local_path
from mmfusion_jax.tasks import Classification, Multilabel, Regression, Task
from mmfusion_jax.training.gradient_balance import normalize_gradients, pcgrad
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.plan import TrainPlan
from mmfusion_jax.training.step import Step, make_train_step
from mmfusion_jax.types import Array, Model, PyTree
from mmfusion_jax.weights import RANDOM, REQUIRED, missing_weights
from mmfusion_jax.weights.convert import WeightMapping

MAX_STEPS = 2**31 - 1
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}


@dataclasses.dataclass(frozen=True)
class TrainingComponents:
    """Everything that a run needs besides data, folder and seed.

    Attributes:
        model: Maps a Batch to Outputs.
        task: Label type, metrics and constant baseline.
        objective: The training objective.
        tx: The optimizer.
        executor: Compiles steps for the devices.
        accumulate: Parts of a batch whose gradients are added up.
        steps: Total number of training steps.
        modalities: The modalities that the model reads.
        penalty: Loss term of which the optimizer's weight decay is the gradient.
        balance: Combines the gradients of the loss terms; None adds them.
        max_nonfinite_steps: Consecutive non-finite steps after which no step changes
            the weights; None for no limit.
    """

    model: Model
    task: Task
    objective: Objective
    tx: optax.GradientTransformation
    executor: Executor
    accumulate: int
    steps: int
    modalities: tuple[str, ...]
    penalty: Callable[[PyTree], Array] | None = None
    balance: optax.GradientTransformationExtraArgs | None = None
    max_nonfinite_steps: int | None = None

    def train_step(self, axis: str | None) -> Step:
        """Returns the training step, not compiled.

        Args:
            axis: Axis of pmap or shard_map; None under jit.
        """
        return make_train_step(
            self.model,
            self.objective,
            self.tx,
            axis,
            self.accumulate,
            self.steps,
            self.modalities,
            self.penalty,
            self.balance,
            self.max_nonfinite_steps,
        )


def build_components(
    spec: ExperimentSpec, data: Dataset, steps: int, executor: Executor | None = None
) -> TrainingComponents:
    """Returns the model, task, objective, optimizer and executor of an experiment.

    Args:
        spec: The experiment.
        data: Its dataset, for the classes of the label.
        steps: Total number of training steps, for schedules.
        executor: Compiles for other devices than those of this process; None for
            these.
    """
    check_steps(spec, steps)
    executor = executor or Executor(spec.parallel)
    accumulate = spec.optimizer.gradient_accumulation_steps
    executor.check_batch_size(spec.data.batch_size, accumulate)
    task = build_task(spec, data)
    check_selection_metric(spec.training.selection_metric, task)
    objective = build_objective(spec, task)
    return TrainingComponents(
        build_model(spec, task, executor.axis),
        task,
        objective,
        build_optimizer(spec.optimizer, steps),
        executor,
        accumulate,
        # Schedules and `Batch.train_fraction` divide by it; an untrained model has 0
        # steps.
        max(steps, 1),
        spec.model.modalities,
        l2_penalty(spec.optimizer),
        build_balance(spec.optimizer.gradient_balance, objective),
        spec.training.max_nonfinite_steps,
    )


def build_task(spec: ExperimentSpec, data: Dataset) -> Task:
    """Returns the task of the label in this dataset, with its metrics.

    Raises:
        ConfigError: The dataset does not have the label, or the label does not have
            the metrics that the config names.
    """
    label = spec.data.label
    extra = build_metrics(spec)
    if label in data.classes:
        classes = tuple(data.classes[label])
        return Classification(label, classes, _integration(spec), extra_metrics=extra)
    if spec.integration is not None:
        raise ConfigError(
            "C18",
            f"config.mis needs a class label, and {shown(label)} is not a class label.",
            f"class labels: {join_names(data.classes)}",
        )
    if label in data.values:
        return Regression(label, data.values[label], extra_metrics=extra)
    if label in data.flags:
        return Multilabel(label, tuple(data.flags[label]), extra_metrics=extra)
    raise ConfigError(
        "C07",
        f"config.data.label={shown(label)}: {data.title} does not have this label.",
        suggest(label, [*data.classes, *data.values, *data.flags]),
    )


def build_metrics(spec: ExperimentSpec) -> tuple[ScoreInfo, ...]:
    """Returns the metrics of `config.metrics`.

    Raises:
        ConfigError: A target is not a metric.
    """
    made = []
    for name, part in spec.metrics.items():
        metric = part.build() if callable(part.target) else part.target
        if not isinstance(metric, ScoreInfo):
            raise part.error(f"is {type_name(metric)}, not a metric (ScoreInfo)")
        made.append(dataclasses.replace(metric, name=name))
    return tuple(made)


def _integration(spec: ExperimentSpec) -> IntegrationScoreSpec | None:
    """Returns what MIS is made of; None where the config does not have it."""
    if spec.integration is None:
        return None
    return spec.integration.build(modalities=spec.model.modalities)


def check_steps(spec: ExperimentSpec, steps: int) -> None:
    """Raises ConfigError if the number of steps is too large for an int32."""
    if steps > MAX_STEPS:
        per_epoch = steps // spec.training.epochs
        raise ConfigError(
            "C10",
            f"config.train.epochs={spec.training.epochs:d} of {per_epoch:d} steps are "
            f"more than {MAX_STEPS:d} steps.",
            f"--config.train.epochs={MAX_STEPS // per_epoch:d} or less",
        )


def check_selection_metric(name: str, task: Task) -> None:
    """Raises ConfigError if the label does not have the metric `name`."""
    known = with_loss(task.metrics().infos)
    if name not in known:
        raise ConfigError(
            "C16",
            f"config.train.selection_metric={shown(name)} is not a metric of label "
            f"{shown(task.label)}.",
            suggest(name, known),
        )


def build_model(spec: ExperimentSpec, task: Task, axis: str | None) -> Model:
    """Returns the model with its encoders.

    Args:
        spec: The experiment.
        task: Gives the size of the head.
        axis: Axis of pmap or shard_map; None under jit.
    """
    common = {"axis": axis, "dtype": DTYPES[spec.compute_dtype]}
    encoders = {
        m: _build_block("encoder", part, **common, modality=m)
        for m, part in spec.model.encoders.items()
    }
    names = spec.model.modalities
    part, blocks = _with_blocks(
        spec.model.model, **common, modality_order=names, modalities=names
    )
    model = part.build(
        **common,
        encoders=encoders,
        head_size=task.head_size,
        flags=isinstance(task, Multilabel),
    )
    # Models of this package are tested; the check of others is done while tracing and
    # costs a compiled step nothing.
    if not part.is_builtin:
        model = checked_model(model, part, task.head_size)
    model = with_encoder_aux(model, {**encoders, **blocks})
    return WithMatmulPrecision(model, spec.matmul_precision)


BLOCK_CALLS = {"encoder": ("values", "mask"), "fusion": ("streams",)}
"""Kind of an inner part -> positional arguments with which it is called."""


def _build_block(kind: str, part: Part, **offered: Any) -> Any:
    """Returns an encoder or a fusion block, with the parts that it is made of."""
    part, _ = _with_blocks(part, **offered)
    return part.check_call(part.build(**offered), *BLOCK_CALLS[kind], train=True)


def _with_blocks(part: Part, **offered: Any) -> tuple[Part, dict[str, Any]]:
    """Returns a part whose options that are parts are built, and these by option."""
    blocks = {
        kind: _build_block(kind, inner, **offered)
        for kind, inner in part.options.items()
        if isinstance(inner, Part)
    }
    options = {**part.options, **blocks}
    return dataclasses.replace(part, options=options), blocks


def pretrained_weights(spec: ExperimentSpec) -> dict[str, tuple[WeightMapping, Path]]:
    """Returns, by modality, the mapping and the file of its pretrained weights."""
    found = {}
    for modality, file in spec.model.weights.items():
        name = spec.model.encoders[modality].name
        where = f"config.model.encoders.{shown_name(modality)}.weights: encoder"
        mapping = load_weight_mapping(name, where)
        if file == REQUIRED:
            raise missing_weights(modality, name, mapping.export)
        if file != RANDOM:
            found[modality] = mapping, local_path("weights", file)
    return found


def random_encoders(spec: ExperimentSpec) -> list[str]:
    """Returns a sentence for every encoder that could be pretrained and is not."""
    files = spec.model.weights
    return [
        f"{shown_name(modality)}: encoder {shown(part.name)} is randomly initialized: "
        + (f"weights={RANDOM}" if modality in files else "no weights file given")
        for modality, part in sorted(spec.model.encoders.items())
        if files.get(modality, RANDOM) == RANDOM
        and load_weight_mapping(part.name, part.where) is not None
    ]


def build_objective(spec: ExperimentSpec, task: Task) -> Objective:
    """Returns the weighted loss terms."""
    return Objective(
        {
            name: WeightedLoss(
                loss.term.check_call(
                    loss.term.build(label=task.label), "outputs", "batch"
                ),
                loss.weight,
            )
            for name, loss in spec.losses.items()
        }
    )


def build_balance(
    name: str, objective: Objective
) -> optax.GradientTransformationExtraArgs | None:
    """Returns what combines the gradients of the loss terms; None adds them.

    Args:
        name: `config.optim.gradient_balance`.
        objective: The loss terms.

    Raises:
        ConfigError: The task, whose gradient keeps its norm, has weight 0.
    """
    if name == "pcgrad":
        return pcgrad()
    if name == "none":
        return None
    if TASK not in objective.active:
        raise ConfigError(
            "C10",
            "config.optim.gradient_balance='norm' scales gradients to the norm of that "
            f"of {shown(TASK)}, whose weight is 0.",
            f"--config.losses.{TASK}.weight=1.0",
        )
    return normalize_gradients(objective.active.index(TASK))


def build_plan(spec: ExperimentSpec, task: Task, steps_per_epoch: int) -> TrainPlan:
    """Returns how long to train, and when to evaluate, save and stop.

    Args:
        spec: The experiment.
        task: Knows which direction of the selection metric is better.
        steps_per_epoch: Number of steps of an epoch.
    """
    training, plateau = spec.training, spec.optimizer.reduce_on_plateau
    name = training.selection_metric
    info = with_loss(task.metrics().infos)[name]
    return TrainPlan(
        steps=training.epochs * steps_per_epoch,
        steps_per_epoch=steps_per_epoch,
        selection_split="test" if spec.protocol == "as_published" else "valid",
        selection_metric=name,
        lower_is_better=not info.higher_is_better,
        patience=training.patience,
        lr_patience=plateau.patience,
        lr_factor=plateau.factor,
        log_every=training.log_every,
        save_every=training.save_every,
        max_nonfinite_steps=training.max_nonfinite_steps,
        batch_size=spec.data.batch_size,
        lr_monitors_loss=plateau.monitor == "loss",
    )
