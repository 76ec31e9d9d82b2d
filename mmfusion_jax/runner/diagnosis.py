"""Diagnoses the selected checkpoint of a run: streams, loss terms, modalities."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from mmfusion_jax.analysis.diagnosis import stream_moments, varying_energy
from mmfusion_jax.analysis.gradients import term_norms
from mmfusion_jax.config.build import TrainingComponents, build_model
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.losses.objective import CHANCE, TASK
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.model_result import Diagnosis, LossTermState
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.training.step import as_in_training
from mmfusion_jax.types import Batch, Model, PyTree

NUM_BATCHES = 4
"""Number of training batches over which loss terms and gradients are averaged."""


class Diagnoser:
    """Diagnoses checkpoints of one experiment; its programs are compiled once.

    Args:
        spec: The experiment.
        components: Its components.
    """

    def __init__(self, spec: ExperimentSpec, components: TrainingComponents):
        self._spec = spec
        self._components = components

    def diagnose(
        self,
        state: TrainState,
        pipeline: Pipeline,
        scores_without: Callable[[str], dict[str, Number]],
    ) -> Diagnosis:
        """Returns the diagnosis of a checkpoint.

        Args:
            state: The checkpoint.
            pipeline: The data of the run.
            scores_without: Maps a modality to the test scores if all examples lack it.
        """
        modalities = self._components.modalities
        several = modalities if len(modalities) > 1 else ()
        return Diagnosis(
            streams=self._streams(state, pipeline),
            terms=self._terms(state, pipeline),
            without={name: scores_without(name) for name in several},
        )

    @functools.cached_property
    def _model(self) -> Model:
        """The model without the axis of pmap: all programs here run under jit."""
        return build_model(self._spec, self._components.task, None)

    @functools.cached_property
    def _moments(self) -> Callable[[PyTree, Batch], PyTree]:
        """The compiled moments of the streams."""
        compute = functools.partial(stream_moments, self._model)
        return self._components.executor.compile_eval(compute)

    @functools.cached_property
    def _norms(self) -> Callable[[TrainState, Batch], PyTree]:
        """The compiled values and gradient norms of the loss terms."""
        parts, model = self._components, self._model

        def compute(state: TrainState, batch: Batch) -> PyTree:
            # A batch that is split to save memory does not fit at once here either.
            batch = jax.tree.map(lambda x: x[:: parts.accumulate], batch)
            batch = as_in_training(batch, state.step / parts.steps, parts.modalities)
            return term_norms(model, parts.objective, state, batch)

        return parts.executor.compile_eval(compute)

    def _put(self, batch: Batch) -> Any:
        """Transfers a batch to the devices."""
        return self._components.executor.put(batch, train=False)

    def _streams(self, state: TrainState, pipeline: Pipeline) -> dict[str, Number]:
        """Returns stream -> fraction of its energy that differs between examples."""
        batches = map(self._put, pipeline.evaluate("test"))
        found = [jax.device_get(self._moments(state.variables, b)) for b in batches]
        return {name: varying_energy([one[name] for one in found]) for name in found[0]}

    def _terms(self, state: TrainState, pipeline: Pipeline) -> dict[str, LossTermState]:
        """Returns the state of every loss term; empty if there is only one."""
        terms = self._components.objective.terms
        if len(terms) < 2:
            return {}
        start = int(state.step)
        ahead = pipeline.train(start, start + NUM_BATCHES)
        batches = map(self._put, itertools.islice(ahead, NUM_BATCHES))
        found = [jax.device_get(self._norms(state, batch)) for batch in batches]
        means = jax.tree.map(lambda *values: float(np.mean(values)), *found)
        task = _gradient(means[TASK]) if TASK in means else 0.0
        # jit sorts the terms by name.
        return {name: _state(means[name], task) for name in terms if name in means}


def _gradient(term: Mapping[str, float]) -> float:
    """Returns the norm of the weighted gradient of a term."""
    return abs(term["weight"]) * term["norm"]


def _state(term: Mapping[str, float], task: float) -> LossTermState:
    """Returns the state of a term.

    Args:
        term: Result of `term_norms`.
        task: Norm of the weighted gradient of the task.
    """
    relative = _gradient(term) / task if task > 0 else float("nan")
    return LossTermState(term["value"], term["weight"], relative, term.get(CHANCE))
