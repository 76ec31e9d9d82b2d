"""Trains the seeds of a fold at once, where memory and the platform allow it."""

import contextlib
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from mmfusion_jax.analysis.cost import bytes_of
from mmfusion_jax.config import build_data
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import CheckpointError, ConfigError
from mmfusion_jax.results.json_file import as_read
from mmfusion_jax.results.model_result import Evaluation, ModelResult
from mmfusion_jax.results.run_identity import RunIdentity
from mmfusion_jax.runner.run_checkpoints import (
    log,
    open_checkpoints,
    require_saved,
)
from mmfusion_jax.runner.trainer import (
    FinalScores,
    PretrainedModel,
    Trainer,
    describe_start,
)
from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.evaluation import collect_seeds
from mmfusion_jax.training.seed_logs import SeedLogger, SeedsDisplay, describe_seeds
from mmfusion_jax.training.seeds import SeedGroup, SeedLoop, stack_trees
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.types import PyTree


@dataclasses.dataclass(frozen=True)
class SeedRun:
    """One seed of a group.

    Attributes:
        identity: The run.
        folder: Folder of the run.
        pretrained: Returns models to copy encoders from; called by a new run only.
    """

    identity: RunIdentity
    folder: Path
    pretrained: Callable[[], Sequence[PretrainedModel]] = tuple

    @property
    def seed(self) -> int:
        """Seed of the weights, the order and the augmentation."""
        return self.identity.seed


def train_seeds(
    trainer: Trainer,
    data: Dataset,
    runs: Sequence[SeedRun],
    title: str,
    shutdown: GracefulShutdown,
) -> list[ModelResult]:
    """Trains several seeds at once, or resumes, or returns results of finished runs.

    Every run ends with the files that `Trainer.train` writes.

    Args:
        trainer: Trainer of the model.
        data: The fold.
        runs: The seeds.
        title: Name of the model and the fold, for the progress.
        shutdown: Records signals of the user and the system.

    Raises:
        CheckpointError: The result or the checkpoints of an earlier training are
            corrupted.
        DivergedError: The steps of a seed were not finite; the results of the others
            are written.
    """
    results = {run.seed: trainer.finished(run.folder, run.identity) for run in runs}
    missing = [run for run in runs if results[run.seed] is None]
    for run in missing:
        trainer.prepare(run.folder, data, run.identity)
    if missing:
        results |= _train(trainer, data, missing, title, shutdown)
    return [found for run in runs if (found := results[run.seed]) is not None]


def _train(
    trainer: Trainer,
    data: Dataset,
    runs: Sequence[SeedRun],
    title: str,
    shutdown: GracefulShutdown,
) -> dict[int, ModelResult]:
    """Trains seeds without a result; returns the results by seed."""
    seeds = [run.seed for run in runs]
    title = f"{title} {describe_seeds(seeds)}"
    pipelines = [build_data.build_pipeline(trainer.spec, data, s) for s in seeds]
    pipeline = pipelines[0]  # for evaluations, which have the same data for all seeds
    with contextlib.ExitStack() as stack:
        display = stack.enter_context(SeedsDisplay(title, seeds))
        loops = [
            _loop(trainer, one, run, display, shutdown, stack)
            for one, run in zip(pipelines, runs, strict=True)
        ]
        steps = [int(loop.state.step) for loop in loops]
        for step in sorted(set(steps)):
            same = [s for s, at in zip(seeds, steps, strict=True) if at == step]
            part = "" if same == seeds else f"{describe_seeds(same)}: "
            log(f"{title}: {part}{describe_start(step, trainer.plan)}")
        display.logger.start(min(steps), trainer.plan.steps)
        group = SeedGroup(
            loops=loops,
            step=trainer.seeds_programs.train_step,
            evaluate=functools.partial(_evaluate, trainer, pipeline),
            executor=trainer.components.executor,
            shutdown=shutdown,
            gradients=trainer.seeds_programs.gradients,
            after_step=lambda _: display.flush(),
        )
        group.run()
        results = _results(trainer, pipelines, loops)
        for run, loop, (scores, result) in zip(runs, loops, results, strict=True):
            if loop.error is None:
                trainer.write(run.folder, data, scores, result)
    for loop in loops:
        if loop.error is not None:
            raise loop.error
    return {
        run.seed: as_read(result)
        for run, (_, result) in zip(runs, results, strict=True)
    }


def _loop(
    trainer: Trainer,
    pipeline: Pipeline,
    run: SeedRun,
    display: SeedsDisplay,
    shutdown: GracefulShutdown,
    stack: contextlib.ExitStack,
) -> SeedLoop:
    """Returns the loop of a seed, with its checkpoints and its logs open."""
    saver = open_checkpoints(run.folder, trainer.spec.distributed.save_timeout)
    stack.enter_context(saver)
    state, progress, recorded = trainer.restore_or_start(
        saver, run.identity, run.pretrained
    )
    logger = SeedLogger(run.folder, run.seed, int(state.step), display)
    return SeedLoop(
        plan=trainer.plan,
        step=trainer.seeds_programs.train_step,
        batches=pipeline.train,
        evaluate=lambda state: {},  # the group's
        state=state,
        saver=saver,
        logger=stack.enter_context(logger),
        shutdown=shutdown,
        progress=progress,
        identity=recorded,
        require_best=functools.partial(require_saved, saver),
        gradients=trainer.seeds_programs.gradients,
    )


def _results(
    trainer: Trainer, pipelines: Sequence[Pipeline], loops: Sequence[SeedLoop]
) -> list[tuple[FinalScores, ModelResult]]:
    """Returns the final scores and the result of every seed."""
    selected = []
    for loop in loops:
        saver = loop.saver
        assert isinstance(saver, CheckpointManager)  # made by `_loop`
        # The best step may be the last one, which is still being written.
        saver.wait()
        try:
            selected.append(trainer.selected(saver, loop))
        except CheckpointError as error:
            # The other seeds get their results before this one is reported.
            loop.error = loop.error or error
            selected.append(loop.state)
    executor = trainer.components.executor
    chosen = stack_trees([state.variables for state in selected], executor)
    last = stack_trees([loop.state.variables for loop in loops], executor)
    pipeline = pipelines[0]
    valid = [(None, {})] * len(loops)
    if "valid" in pipeline.dataset.sources:
        found = _collect(trainer, pipeline, chosen, "valid")
        valid = [(trainer.scores(*one), one[0]) for one in found]
    ended = _evaluate(trainer, pipeline, last, ("test",))
    collected = _collect(trainer, pipeline, chosen, "test")
    made = []
    for index, loop in enumerate(loops):
        scores = FinalScores(*valid[index], *collected[index], ended[index]["test"])
        result = trainer.result(loop, selected[index], pipelines[index], scores)
        made.append((scores, result))
    return made


def _evaluate(
    trainer: Trainer,
    pipeline: Pipeline,
    variables: PyTree,
    splits: Sequence[str] = ("valid", "test"),
) -> list[dict[str, Evaluation]]:
    """Returns, for every seed, the scores of each split that the dataset has."""
    collected = {
        split: _collect(trainer, pipeline, variables, split)
        for split in splits
        if split in pipeline.dataset.sources
    }
    return [
        {
            split: trainer.scores(*found)
            for split, found in zip(collected, row, strict=True)
        }
        for row in zip(*collected.values(), strict=True)
    ]


def _collect(
    trainer: Trainer, pipeline: Pipeline, variables: PyTree, split: str
) -> list[tuple[dict[str, np.ndarray], float]]:
    """Returns what the metrics need of every example of a split, for every seed."""
    return collect_seeds(
        trainer.seeds_programs.eval_step,
        trainer.with_prior(variables, pipeline.dataset),
        trainer.eval_batches(pipeline, split),
    )


MEMORY_FRACTION = 0.5
"""Fraction of the memory that the estimate for all seeds may take."""

MAX_CPU_MACS = 10_000_000
"""On CPU, MACs of the forward pass of a batch up to which seeds train at once."""

MIN_CPU_STEPS = 2_000
"""On CPU, number of training steps from which seeds train at once."""


def trains_at_once(trainer: Trainer, count: int) -> bool:
    """Returns whether several seeds train at once, and prints the reason in one line.

    `train.parallel_seeds` decides where it is "on" or "off". With "auto", seeds train
    at once unless

    - the run has several processes,
    - `count` times `estimate_memory` is above `MEMORY_FRACTION` of the memory of the
      device, or
    - the device is a CPU, and the forward pass of a batch has more than `MAX_CPU_MACS`
      multiply-accumulates, or the training has fewer than `MIN_CPU_STEPS` steps.

    A CPU is busy with the arithmetic of one seed of a large model, and seeds at once
    take as long as in turn, or, with convolutions, longer
    (experiments/bench/seeds.py). In small models it is busy with the overhead of the
    operations, which all seeds share; but the program for all seeds takes longer to
    compile, so a short training does not gain.

    Args:
        trainer: Trainer of the model.
        count: Number of seeds.

    Raises:
        ConfigError: Seeds must train at once, in several processes.
    """
    mode = trainer.spec.training.parallel_seeds
    if mode == "off":
        return False
    if jax.process_count() > 1:
        if mode == "on":
            raise ConfigError(
                "C10",
                "config.train.parallel_seeds='on' supports one process, not "
                f"{jax.process_count():d}.",
                "--config.train.parallel_seeds=off",
            )
        return False
    reason, at_once = (
        ("parallel_seeds=on", True) if mode == "on" else _auto(trainer, count)
    )
    how = "at once" if at_once else "in turn"
    log(f"{count:d} seeds {how}: {reason}")
    return at_once


def _auto(trainer: Trainer, count: int) -> tuple[str, bool]:
    """Returns what "auto" decides, with the reason."""
    if jax.default_backend() == "cpu":
        # None where a custom model cannot be counted.
        macs = (trainer.macs_per_example or math.inf) * trainer.spec.data.batch_size
        if macs > MAX_CPU_MACS:
            return (
                f"{macs / 1e6:.0f} million MACs per batch, on CPU no faster at once "
                f"(limit: {MAX_CPU_MACS / 1e6:.0f})",
                False,
            )
        if (steps := trainer.plan.steps) < MIN_CPU_STEPS:
            return (
                f"{steps} steps, on CPU too few for the longer compilation at once "
                f"(limit: {MIN_CPU_STEPS})",
                False,
            )
    needed, limit = count * estimate_memory(trainer), device_memory()
    what = f"about {needed / 2**30:.2f} of {limit / 2**30:.1f} GiB of memory"
    if needed > MEMORY_FRACTION * limit:
        return f"at once they need {what}", False
    return what, True


def estimate_memory(trainer: Trainer) -> int:
    """Returns an estimate of the memory of the training step of one seed, in bytes.

    Three times the state (old, new, and gradients with updates) and twice what the
    forward pass keeps for the backward pass (with the gradients of these arrays). XLA
    may need less, since it reuses memory.
    """
    state = trainer.programs.abstract_state
    return 3 * bytes_of(state) + 2 * bytes_of(trainer.programs.saved_arrays())


def device_memory() -> int:
    """Returns the memory of the first device, or of this machine, in bytes."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
