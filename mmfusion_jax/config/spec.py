"""A config as typed values: what everything after `resolve` works with."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

from mmfusion_jax.config.instantiate import accepted
from mmfusion_jax.config.registry import package_of
from mmfusion_jax.errors import (
    ConfigError,
    describe_exception,
    shorten,
    shown,
    type_name,
)
from mmfusion_jax.option_types import LearningRate, SelectionProtocol


@dataclasses.dataclass(frozen=True)
class Part:
    """An exchangeable part of an experiment: what to call, and with which options.

    Attributes:
        name: The name in the config: a short name or an import path.
        target: The class or function of that name.
        options: Arguments from the config, checked against those of the target.
        where: The group of fields of the config, for messages.
    """

    name: str
    target: Callable[..., Any]
    options: Mapping[str, Any]
    where: str

    def build(self, **offered: Any) -> Any:
        """Calls the target.

        Args:
            **offered: Values that the target gets if it has arguments of these names
                and the config does not set them.

        Raises:
            ConfigError: A target of another package rejects its arguments.
        """
        arguments = accepted(self.target, offered) | {**self.options}
        try:
            return self.target(**arguments)
        except (TypeError, ValueError) as error:
            if isinstance(error, ConfigError) or self.is_builtin:
                raise
            raise self.error(f"raises {describe_exception(error)}") from error

    def check_call(self, function: Any, *args: str, **kwargs: Any) -> Any:
        """Returns what `build` returned, checked to be a function of some arguments.

        Args:
            function: The result of `build`.
            *args: Names of its positional arguments, for the message.
            **kwargs: Its keyword arguments.

        Raises:
            ConfigError: It cannot be called with these arguments.
        """
        if self.is_builtin:
            return function
        call = ", ".join(
            [*args, *(f"{name}={value}" for name, value in kwargs.items())]
        )
        if not callable(function):
            raise self.error(f"is {type_name(function)}, not a function of ({call})")
        try:
            inspect.signature(function).bind(*args, **kwargs)
        except TypeError as error:
            raise self.error(
                f"is not a function of ({call}): {shorten(error)}"
            ) from error
        except ValueError:  # a function without a signature, such as one written in C
            pass
        return function

    @property
    def is_builtin(self) -> bool:
        """True if the name is a short name for a part of this package."""
        package = package_of(getattr(self.target, "__module__", ""))
        return ":" not in self.name and package == "mmfusion_jax"

    def error(self, problem: str) -> ConfigError:
        """Returns the error for a part that is not what a part of its kind must be."""
        listed = ", ".join(f"{k}={shown(v)}" for k, v in self.options.items())
        return ConfigError(
            "C33",
            f"{self.where}.name={shown(self.name)} {problem}.",
            "correct this part; CONTRIBUTING.md has an example of each kind"
            + (f" (options: {listed})" if listed else ""),
        )

    def default(self, name: str, missing: Any = None) -> Any:
        """Returns an option, or the default that the target has for it."""
        if name in self.options:
            return self.options[name]
        return getattr(self.target, name, missing)


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The dataset and how its examples become batches.

    Attributes:
        dataset: Returns a `Dataset`.
        label: Name of the label to predict.
        fold: Number of the fold to run, or "all".
        folds: Number of folds.
        batch_size: Examples in a step, on all devices.
        num_read_threads: Threads that read examples.
        augmentations: Modality -> augmentation of training examples.
        modality_dropout: Modality -> probability that a training example lacks it.
    """

    dataset: Part
    label: str
    fold: str
    folds: int
    batch_size: int
    num_read_threads: int
    augmentations: Mapping[str, Part]
    modality_dropout: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """The model and its encoders.

    Attributes:
        model: Returns a `Model`.
        encoders: Modality -> encoder.
        weights: Modality -> file of pretrained weights, where one is given.
    """

    model: Part
    encoders: Mapping[str, Part]
    weights: Mapping[str, str]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model reads, sorted."""
        return tuple(sorted(self.encoders))


@dataclasses.dataclass(frozen=True)
class LossSpec:
    """A loss term and its weight."""

    term: Part
    weight: float


@dataclasses.dataclass(frozen=True)
class ReduceOnPlateauSpec:
    """When the learning rate is reduced.

    Attributes:
        factor: Factor of the learning rate.
        patience: Evaluations without a better value before it applies; 0 never.
        monitor: "selection_metric" or "loss".
    """

    factor: float
    patience: int
    monitor: str


@dataclasses.dataclass(frozen=True)
class ParameterGroupSpec:
    """Parameters with a learning rate of their own.

    Attributes:
        param_prefix: Beginning of their paths, such as "encoders_text".
        learning_rate: Before the schedule; None is that of all parameters.
        frozen: They are not trained.
    """

    param_prefix: str
    learning_rate: LearningRate | None = None
    frozen: bool = False


@dataclasses.dataclass(frozen=True)
class OptimizerSpec:
    """The optimizer.

    Attributes:
        optimizer: Returns an optax transformation for a learning rate.
        schedule: Returns an optax schedule for a learning rate and a number of steps.
        learning_rate: Before the schedule.
        clip_norm: Maximum global norm of the gradient; 0 does not clip.
        weight_decay: Decoupled weight decay; the optimizer must have it.
        coupled_weight_decay: Weight decay that is added to the gradient (L2).
        decay_mask: "all" or "kernels": what `coupled_weight_decay` applies to.
        reduce_on_plateau: When the learning rate is reduced.
        groups: Name -> parameters with a learning rate of their own.
        gradient_accumulation_steps: Parts of a batch whose gradients are added up.
        gradient_balance: "none", "pcgrad" or "norm": how the gradients of several loss
            terms are combined.
    """

    optimizer: Part
    schedule: Part
    learning_rate: float
    clip_norm: float
    weight_decay: float
    coupled_weight_decay: float
    decay_mask: str
    reduce_on_plateau: ReduceOnPlateauSpec
    groups: Mapping[str, ParameterGroupSpec]
    gradient_accumulation_steps: int
    gradient_balance: str


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """Length of the training, and selection of the checkpoint.

    Attributes:
        epochs: Passes over the training split.
        selection_metric: Name of a metric of the label, or "loss".
        patience: Epochs without a better value before training stops; 0 never.
        log_every: Steps between two log entries.
        gradient_stats_every: Steps between records of the gradients of all loss terms;
            0 for none.
        save_every: Steps between checkpoints within an epoch; 0 for none.
        parallel_seeds: Whether the seeds of a fold train at once: "auto", "on", "off".
        max_nonfinite_steps: Consecutive non-finite steps that end the training.
        diagnosis: Examine streams, loss terms and missing modalities after training.
    """

    epochs: int
    selection_metric: str
    patience: int
    log_every: int
    gradient_stats_every: int
    save_every: int
    parallel_seeds: str
    max_nonfinite_steps: int
    diagnosis: bool


@dataclasses.dataclass(frozen=True)
class DistributedSpec:
    """The processes of a run.

    Attributes:
        coordinator: "host:port" of process 0; "" for a single process.
        num_processes: Their number.
        process_id: Number of this process, from 0.
        mode: "manual" joins them by these values, "auto" as the cluster that started
            them describes itself to JAX; "off" trains in each process by itself.
        start_timeout: Seconds in which all must have started.
        heartbeat_timeout: Seconds without a sign of a process after which it counts
            as lost.
        save_timeout: Seconds in which all must reach a save.
        stop_timeout: Seconds in which all must have ended.
    """

    coordinator: str = ""
    num_processes: int = 1
    process_id: int = 0
    mode: Literal["manual", "auto", "off"] = "manual"
    start_timeout: int = 60
    heartbeat_timeout: int = 30
    save_timeout: int = 600
    stop_timeout: int = 60

    @property
    def joins(self) -> bool:
        """Whether this process is one of several of the run."""
        return self.mode == "auto" or self.num_processes > 1


@dataclasses.dataclass(frozen=True)
class ExperimentSpec:
    """A resolved config.

    Attributes:
        seed: Seed of the first run.
        seeds: Number of runs.
        protocol: "validation", "fixed_epochs" or "as_published".
        parallel: "jit", "pmap" or "shard_map", see `Executor`.
        compute_dtype: "float32" or "bfloat16".
        matmul_precision: "default", "high" or "highest", see `jax.lax.Precision`.
        pretrain_unimodal: Modalities whose encoders are trained alone first.
        pretrain_epochs: Epochs of each of them; 0 for as many as those of the model.
        data: The dataset and its batches.
        model: The model and its encoders.
        losses: Term -> loss and weight.
        metrics: Name -> metric beside those of the label.
        integration: The Multimodal Integration Score; None where there is none.
        optimizer: The optimizer.
        training: Length of the training, and selection of the checkpoint.
        distributed: The processes.
        source: The config itself, as JSON values: what a work folder records.
    """

    seed: int
    seeds: int
    protocol: SelectionProtocol
    parallel: str
    compute_dtype: str
    matmul_precision: str
    pretrain_unimodal: tuple[str, ...]
    pretrain_epochs: int
    data: DataSpec
    model: ModelSpec
    losses: Mapping[str, LossSpec]
    metrics: Mapping[str, Part]
    integration: Part | None
    optimizer: OptimizerSpec
    training: TrainingSpec
    distributed: DistributedSpec
    source: Mapping[str, Any] = dataclasses.field(repr=False)
