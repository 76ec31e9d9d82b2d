"""The functions of a training that are compiled."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.analysis.gradients import make_gradient_stats
from mmfusion_jax.config import build
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.training.gradient_record import GradientRecorder
from mmfusion_jax.training.state import TrainState, create_state
from mmfusion_jax.training.step import as_in_training, make_eval_step
from mmfusion_jax.types import Batch, PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Programs:
    """Functions of an experiment, each compiled when it is used first and then kept.

    Attributes:
        spec: The experiment.
        components: Its model, loss, optimizer and executor.
        dummy_batch: A batch with the shapes of all.
        seeds: Steps are those of several seeds at once, with an axis of seeds in
            front.
    """

    spec: ExperimentSpec
    components: build.TrainingComponents
    dummy_batch: Batch
    seeds: bool = False

    @functools.cached_property
    def train_step(self) -> Callable[..., Any]:
        """The training step."""
        executor = self.components.executor
        step = self.components.train_step(executor.axis)
        return executor.compile(step, seeds=self.seeds)

    @functools.cached_property
    def eval_step(self) -> Callable[[PyTree, Batch], PyTree]:
        """The evaluation step."""
        parts = self.components
        step = make_eval_step(
            parts.model, parts.objective, parts.task.metrics(), parts.modalities
        )
        return parts.executor.compile_eval(step, seeds=self.seeds)

    @functools.cached_property
    def gradients(self) -> GradientRecorder:
        """What records the gradients of the loss terms."""
        parts, every = self.components, self.spec.training.gradient_stats_every
        if not every:
            return GradientRecorder()
        stats = make_gradient_stats(
            parts.model,
            parts.objective,
            parts.executor.axis,
            parts.accumulate,
            parts.steps,
            parts.modalities,
        )
        compute = parts.executor.compile(stats, seeds=self.seeds, donate=False)
        return GradientRecorder(every, parts.objective.active, compute)

    def init(self, seed: int) -> TrainState:
        """Returns the first state of `seed`; its program is the same for every seed."""
        return self._init(_key_data(seed))

    @functools.cached_property
    def _init(self) -> Callable[[np.ndarray], TrainState]:
        return self.components.executor.compile_init(self._create)

    @functools.cached_property
    def abstract_state(self) -> TrainState:
        """Shapes, types and shardings of the state of one seed."""
        # To restore a checkpoint, its arrays need not exist before.
        create = functools.partial(self._create, _key_data(0))
        return self.components.executor.abstract(create)

    def saved_arrays(self) -> PyTree:
        """Returns the shapes of what the forward pass keeps for the backward pass."""
        parts, state = self.components, self.abstract_state
        # As under jit: outside of pmap, its axis is not defined.
        model = build.build_model(self.spec, parts.task, None)
        zero = jnp.zeros((), jnp.int32)
        batch = as_in_training(self.dummy_batch, zero, parts.modalities)

        def forward(params: PyTree, stats: PyTree, batch: Batch, key: Any):
            def loss(params: PyTree):
                outputs, _ = model.apply(
                    {"params": params, "batch_stats": stats},
                    batch,
                    train=True,
                    mutable=["batch_stats"],
                    rngs={"dropout": key},
                )
                return parts.objective(outputs, batch, zero, None)[0]

            return jax.vjp(loss, params)[1]

        return jax.eval_shape(forward, state.params, state.stats, batch, state.key)

    def _create(self, key: Any) -> TrainState:
        """Returns the state that the data of a key creates."""
        key = jax.random.wrap_key_data(key)
        parts = self.components
        return create_state(parts.model, parts.tx, self.dummy_batch, key)


def _key_data(seed: int) -> np.ndarray:
    """Returns the data of the key of a seed, an array of the host.

    Every process can pass it to a compiled function, whose program is the same for
    every seed.
    """
    return np.asarray(jax.random.key_data(jax.random.key(seed)))
