"""Multimodal fusion in JAX and Flax.

    import mmfusion_jax as mmf

    model = mmf.models.CFNSR(encoders, head_size=8)

Importing the package does not import JAX: a name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

__version__ = "0.1.0"

PUBLIC = by_name(
    (
        "mmfusion_jax.analysis",
        "mmfusion_jax.data",
        "mmfusion_jax.datasets",
        "mmfusion_jax.encoders",
        "mmfusion_jax.fusion",
        "mmfusion_jax.inference",
        "mmfusion_jax.layers",
        "mmfusion_jax.losses",
        "mmfusion_jax.metrics",
        "mmfusion_jax.models",
        "mmfusion_jax.ops",
        "mmfusion_jax.option_types",
        "mmfusion_jax.results",
        "mmfusion_jax.tasks",
        "mmfusion_jax.testing",
        "mmfusion_jax.weights",
        "mmfusion_jax.types:AUX",
        "mmfusion_jax.types:Batch",
        "mmfusion_jax.types:Outputs",
        "mmfusion_jax.types:Streams",
        "mmfusion_jax.types:Tokens",
        "mmfusion_jax.losses.objective:Objective",
        "mmfusion_jax.losses.objective:WeightedLoss",
        "mmfusion_jax.api:evaluate",
        "mmfusion_jax.api:train",
        "mmfusion_jax.config.base:base_config",
        "mmfusion_jax.config.load:load_config",
        "mmfusion_jax.config.resolve:resolve",
        "mmfusion_jax.analysis.gradients:gradient_similarity",
        "mmfusion_jax.analysis.gradients:term_gradients",
        "mmfusion_jax.results.experiment_result:ExperimentResult",
        "mmfusion_jax.results.experiment_result:read_result",
        "mmfusion_jax.inference.export_run:export",
        "mmfusion_jax.inference.predictor:load",
        "mmfusion_jax.errors:CheckpointError",
        "mmfusion_jax.errors:ConfigError",
        "mmfusion_jax.errors:DataError",
        "mmfusion_jax.errors:DivergedError",
        "mmfusion_jax.errors:Interrupted",
        "mmfusion_jax.errors:MissingDependencyError",
        "mmfusion_jax.errors:UserError",
        "mmfusion_jax.errors:WeightsError",
        "mmfusion_jax.training.accelerators:describe_devices",
        "mmfusion_jax.training.evaluation:collect",
        "mmfusion_jax.training.gradient_balance:normalize_gradients",
        "mmfusion_jax.training.gradient_balance:pcgrad",
        "mmfusion_jax.training.parallelism:Executor",
        "mmfusion_jax.training.state:TrainState",
        "mmfusion_jax.training.state:create_state",
        "mmfusion_jax.training.step:make_eval_step",
        "mmfusion_jax.training.step:make_train_step",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax import analysis as analysis
    from mmfusion_jax import data as data
    from mmfusion_jax import datasets as datasets
    from mmfusion_jax import encoders as encoders
    from mmfusion_jax import fusion as fusion
    from mmfusion_jax import inference as inference
    from mmfusion_jax import layers as layers
    from mmfusion_jax import losses as losses
    from mmfusion_jax import metrics as metrics
    from mmfusion_jax import models as models
    from mmfusion_jax import ops as ops
    from mmfusion_jax import option_types as option_types
    from mmfusion_jax import results as results
    from mmfusion_jax import tasks as tasks
    from mmfusion_jax import testing as testing
    from mmfusion_jax import weights as weights
    from mmfusion_jax.analysis.gradients import (
        gradient_similarity as gradient_similarity,
    )
    from mmfusion_jax.analysis.gradients import term_gradients as term_gradients
    from mmfusion_jax.api import evaluate as evaluate
    from mmfusion_jax.api import train as train
    from mmfusion_jax.config.base import base_config as base_config
    from mmfusion_jax.config.load import load_config as load_config
    from mmfusion_jax.config.resolve import resolve as resolve
    from mmfusion_jax.errors import CheckpointError as CheckpointError
    from mmfusion_jax.errors import ConfigError as ConfigError
    from mmfusion_jax.errors import DataError as DataError
    from mmfusion_jax.errors import DivergedError as DivergedError
    from mmfusion_jax.errors import Interrupted as Interrupted
    from mmfusion_jax.errors import MissingDependencyError as MissingDependencyError
    from mmfusion_jax.errors import UserError as UserError
    from mmfusion_jax.errors import WeightsError as WeightsError
    from mmfusion_jax.inference.export_run import export as export
    from mmfusion_jax.inference.predictor import load as load
    from mmfusion_jax.losses.objective import Objective as Objective
    from mmfusion_jax.losses.objective import WeightedLoss as WeightedLoss
    from mmfusion_jax.results.experiment_result import (
        ExperimentResult as ExperimentResult,
    )
    from mmfusion_jax.results.experiment_result import read_result as read_result
    from mmfusion_jax.training.accelerators import describe_devices as describe_devices
    from mmfusion_jax.training.evaluation import collect as collect
    from mmfusion_jax.training.gradient_balance import (
        normalize_gradients as normalize_gradients,
    )
    from mmfusion_jax.training.gradient_balance import pcgrad as pcgrad
    from mmfusion_jax.training.parallelism import Executor as Executor
    from mmfusion_jax.training.state import TrainState as TrainState
    from mmfusion_jax.training.state import create_state as create_state
    from mmfusion_jax.training.step import make_eval_step as make_eval_step
    from mmfusion_jax.training.step import make_train_step as make_train_step
    from mmfusion_jax.types import AUX as AUX
    from mmfusion_jax.types import Batch as Batch
    from mmfusion_jax.types import Outputs as Outputs
    from mmfusion_jax.types import Streams as Streams
    from mmfusion_jax.types import Tokens as Tokens
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
