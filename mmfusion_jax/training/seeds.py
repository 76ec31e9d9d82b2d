"""Trains several seeds at once: one compiled step for all, a loop for each."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.errors import CheckpointError, DivergedError, Interrupted
from mmfusion_jax.results.model_result import Evaluation
from mmfusion_jax.training.gradient_record import GradientRecorder
from mmfusion_jax.training.loop import Loop
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.training.step import Metrics, Step
from mmfusion_jax.training.timing import is_ready
from mmfusion_jax.types import Batch, PyTree

EvaluateSeeds: TypeAlias = Callable[[PyTree], Sequence[Mapping[str, Evaluation]]]
"""Variables with a leading axis of seeds -> for every seed, split -> scores."""


class SeedStates:
    """The states of several seeds, stacked along a leading axis.

    Args:
        states: State of every seed.
        executor: Compiles for the devices.
    """

    def __init__(self, states: Sequence[TrainState], executor: Executor):
        self.stacked = stack_trees(states, executor)
        self._programs = _programs(executor)

    def __getitem__(self, index: int) -> TrainState:
        return self._programs.take(self.stacked, index)

    def __setitem__(self, index: int, state: TrainState) -> None:
        self.stacked = self._programs.put(self.stacked, index, state)


def stack_trees(trees: Sequence[PyTree], executor: Executor) -> PyTree:
    """Returns trees of equal structure, stacked along a new leading axis."""
    # Leaf by leaf: one program for each shape is compiled faster than one program that
    # has every leaf of every seed as an argument.
    return jax.tree.map(_programs(executor).stack, *trees)


class _Programs(NamedTuple):
    """Compiled functions of stacked trees."""

    stack: Callable[..., Any]
    take: Callable[..., Any]
    put: Callable[..., Any]


@functools.cache
def _programs(executor: Executor) -> _Programs:
    """Returns the compiled functions, the same ones for all folds and stages."""
    compiled = functools.partial(jax.jit, out_shardings=executor.replicated)
    # The index is an argument, so one program serves all seeds.
    return _Programs(
        compiled(lambda *leaves: jnp.stack(leaves)),
        compiled(lambda tree, i: jax.tree.map(lambda x: x[i], tree)),
        compiled(
            lambda tree, i, new: jax.tree.map(lambda x, y: x.at[i].set(y), tree, new)
        ),
    )


def _begins(loop: "SeedLoop") -> bool:
    """Begins a loop; returns whether it has steps to train."""
    try:
        return loop.begin()
    except DivergedError as error:
        # That of an earlier process; the other seeds are trained.
        loop.error = error
        return False


class SeedLoop(Loop):
    """The loop of one seed of a group; reads its state when it needs it.

    Attributes:
        index: Index of the seed in the group.
        states: States of the group; None before the group is trained, and after this
            loop has ended.
        error: What ended this loop before its time.
    """

    index: int = 0
    states: SeedStates | None = None
    error: Exception | None = None

    @property
    def state(self) -> TrainState:  # pyright: ignore[reportIncompatibleVariableOverride]
        if self.states is not None and self._state is None:
            self._state = self.states[self.index]
        assert self._state is not None  # without a group, it was set
        return self._state

    @state.setter
    def state(self, state: TrainState) -> None:  # pyright: ignore
        self._state: TrainState | None = state
        if self.states is not None:
            self.states[self.index] = state

    def discard_state(self) -> None:
        """Forgets the state that was read: a step has made a new one."""
        self._state = None

    def leave_group(self) -> None:
        """Keeps the present state: later steps of the group do not change it."""
        self._state, self.states = self.state, None

    def fetch(self, metrics: Metrics) -> Metrics:
        """Returns the metrics of this seed, on the host."""
        # On the host: to slice every metric on the devices takes longer than a step of
        # a small model. JAX keeps the copy of an array that was fetched before.
        return {name: x[self.index] for name, x in jax.device_get(metrics).items()}


@dataclasses.dataclass
class SeedGroup:
    """Trains the loops of several seeds in step with each other.

    Every loop logs, evaluates, saves and stops as it does alone. A seed that has ended
    keeps its state and its place: the step computes it until the others have ended,
    and its results are not used. Seeds need not be at the same step, such as after a
    kill between two of their checkpoints.

    Attributes:
        loops: The loop of every seed; their batches are on the host.
        step: Compiled step of all seeds: stacked states and batches, to stacked states
            and metrics.
        evaluate: Scores of all seeds.
        executor: Compiled `step`.
        shutdown: Signals of the user and the system.
        gradients: Records the gradients of the loss terms of all seeds.
        after_step: Called after every step with the loops that took part, for display.
    """

    loops: Sequence[SeedLoop]
    step: Step
    evaluate: EvaluateSeeds
    executor: Executor
    shutdown: GracefulShutdown
    gradients: GradientRecorder = GradientRecorder()
    after_step: Callable[[Sequence[SeedLoop]], None] = lambda loops: None
    _scores: Sequence[Mapping[str, Evaluation]] | None = None

    def run(self) -> None:
        """Trains until every loop has ended.

        A seed whose steps are not finite ends alone, with `error` set.

        Raises:
            Interrupted: A signal arrived; all states are saved.
            CheckpointError: As above, but a state could not be saved.
        """
        started = time.perf_counter()
        states = SeedStates([loop.state for loop in self.loops], self.executor)
        for index, loop in enumerate(self.loops):
            loop.index, loop.states = index, states
            loop.evaluate = lambda _, index=index: self._evaluation(states)[index]
        running = [loop for loop in self.loops if _begins(loop)]
        try:
            if running:
                self._train(states, running)
        finally:
            self._share_times(time.perf_counter() - started)
        for loop in self.loops:
            if loop.states is not None:
                loop.leave_group()

    def _train(self, states: SeedStates, running: list[SeedLoop]) -> None:
        """Runs steps until no loop is left."""
        for loop in self.loops:
            if loop.error or not loop.is_running:
                loop.leave_group()
        batches = {
            loop.index: loop.batches(loop.done, loop.plan.steps) for loop in running
        }
        previous: Metrics | None = None
        since = time.perf_counter()
        while running:
            requested = time.perf_counter()
            rows = {loop.index: next(batches[loop.index]) for loop in running}
            batch = self._stack_batches(rows)
            stalled = is_ready(previous)
            waited = time.perf_counter() - requested if stalled else 0.0
            since += self._record_gradients(states, running, batch, previous)
            states.stacked, metrics = self.step(states.stacked, batch)
            self._scores = None
            compiled = running[0].clock.compile > 0
            jax.block_until_ready(previous if compiled else metrics)
            # Shared, so that the times of all seeds add up to those of the group.
            seconds = (time.perf_counter() - since) / len(running)
            for loop in running:
                loop.discard_state()
                loop.add_time(seconds, waited / len(running), previous)
            since = time.perf_counter()
            previous = metrics
            if self._after_step(running, metrics):
                # All steps have ended, and this time is not that of a step.
                previous, since = None, time.perf_counter()
            running = [loop for loop in running if loop.states is not None]

    def _record_gradients(
        self,
        states: SeedStates,
        running: Sequence[SeedLoop],
        batch: Batch,
        previous: Metrics | None,
    ) -> float:
        """Records the gradients of the seeds for which they are due; returns the time.

        Args:
            states: States before the step.
            running: The loops that take part in it.
            batch: Their batches.
            previous: Metrics of the step before, which may still run.
        """
        due = [loop for loop in running if self.gradients.is_due(loop.done + 1)]
        if not due:
            return 0.0
        jax.block_until_ready(previous)
        started = time.perf_counter()
        norms, cosines = self.gradients(states.stacked, batch)
        for loop in due:
            one = lambda tree, index=loop.index: {k: x[index] for k, x in tree.items()}
            loop.log_gradients(one(norms), one(cosines))
        return time.perf_counter() - started

    def _after_step(self, running: Sequence[SeedLoop], metrics: Metrics) -> bool:
        """Ends a step in every loop; returns whether anything was logged or saved."""
        stop = self.shutdown.signal is not None
        busy, interrupted = False, []
        for loop in running:
            try:
                busy = loop.after_step(metrics, stop=stop) or busy
            except (Interrupted, CheckpointError) as error:
                # The others save their states too.
                interrupted.append(error)
            except DivergedError as error:
                loop.error = error
            if loop.error or not loop.is_running:
                loop.leave_group()
        if busy:
            self.after_step(running)
        # What could not be saved counts for more than what was saved.
        interrupted.sort(key=lambda error: isinstance(error, Interrupted))
        if interrupted:
            raise interrupted[0]
        return busy

    def _stack_batches(self, rows: Mapping[int, Batch]) -> Batch:
        """Returns the batches of all seeds on the devices, stacked.

        A seed that has ended gets the batch of another.
        """
        other = next(iter(rows.values()))
        ordered = [rows.get(loop.index, other) for loop in self.loops]
        stacked = jax.tree.map(lambda *x: np.stack(x), *ordered)
        return self.executor.put(stacked, train=True, seeds=True)

    def _evaluation(self, states: SeedStates) -> Sequence[Mapping[str, Evaluation]]:
        """Returns the scores of all seeds after the present step, computed once."""
        if self._scores is None:
            self._scores = self.evaluate(states.stacked.variables)
        return self._scores

    def _share_times(self, total: float) -> None:
        """Divides the times of the group among its seeds."""
        clocks = [loop.clock for loop in self.loops]
        for name, seconds in {
            "evaluate": sum(clock.evaluate for clock in clocks),
            "save": sum(clock.save for clock in clocks),
            "total": total,
        }.items():
            for clock in clocks:
                setattr(clock, name, seconds / len(clocks))
