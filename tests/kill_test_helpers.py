"""Run of the children of the kill tests: tiny, with everything that a real one has.

Shuffled data with augmentation, padding of steps and rows, BatchNorm, dropout, Adam, an
evaluation every epoch, an asynchronous checkpoint every second step, two devices.
"""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from save_trials import fingerprint

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.cli.flags import ParsedCommand
from mmfusion_jax.data.dataset import Dataset, Example
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import CrossEntropy
from mmfusion_jax.metrics.nonfinite import compute_scores
from mmfusion_jax.ops.masking import masked_mean
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.tasks import Classification
from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.evaluation import collect
from mmfusion_jax.training.loop import Loop
from mmfusion_jax.training.metrics_log import MetricsLogger
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.plan import SelectionState, TrainPlan
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_eval_step, make_train_step
from mmfusion_jax.types import Outputs

EPOCHS = 4
TASK = Classification("label", ("a", "b", "c"))


class Tiny(nn.Module):
    """One layer, its norm, dropout and a head."""

    @nn.compact
    def __call__(self, batch, *, train):
        mask = batch.valid_mask("audio")
        x = nn.Dense(16)(batch.inputs["audio"])
        x = nn.relu(BatchNorm()(x, mask, train=train))
        x = nn.Dropout(0.3, deterministic=not train)(masked_mean(x, mask, axis=1))
        return Outputs(nn.Dense(3)(x))


class Made:
    """Clips of noise around the mean of their class; the same index, the same clip."""

    def __init__(self, size: int, first: int):
        self._size, self._first = size, first

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        rng = np.random.default_rng(self._first + index)
        label = index % 3
        return {
            "inputs": {"audio": rng.normal(label / 2, 1, (9, 5)).astype(np.float32)},
            "masks": {"audio": np.arange(9) < rng.integers(3, 10)},
            "labels": {"label": np.int32(label)},
            "weight": np.float32(1),
        }


def shaken(example: Example, rng: np.random.Generator) -> Example:
    noise = rng.normal(0, 0.1, (9, 5)).astype(np.float32)
    return {**example, "inputs": {"audio": example["inputs"]["audio"] + noise}}


def train(folder: str) -> dict[str, Any]:
    """Trains, or resumes, as a command does; returns the result of the run.

    Exits as the command would if it is interrupted.
    """
    ended: list[dict[str, Any]] = []
    command = Command(
        "kill_test_helpers",
        "A tiny run.",
        lambda request: ended.append(_train(request)),
        needs_config=False,
    )
    if code := run_command(command, [f"--workdir={folder}"]):
        sys.exit(code)
    return ended[0]


def _train(request: ParsedCommand) -> dict[str, Any]:
    folder = request.workdir
    sources = {"train": Made(45, 0), "valid": Made(30, 1000)}
    data = Dataset("made", "made", sources, {"label": TASK.classes}, shaken)
    reader = Pipeline(data, batch_size=8, seed=3)
    executor = Executor("jit")
    model, tx = Tiny(), optax.adam(1e-2)
    objective = Objective({"task": WeightedLoss(CrossEntropy(TASK.label))})
    step = executor.compile(make_train_step(model, objective, tx))
    scores = TASK.metrics()
    eval_step = executor.compile_eval(make_eval_step(model, objective, scores))
    init = lambda: create_state(model, tx, reader.dummy_batch(), jax.random.key(7))

    def evaluate(state):
        put = lambda batch: executor.put(batch, train=False)
        batches = map(put, reader.evaluate("valid"))
        collected, loss = collect(eval_step, state.variables, batches)
        return {"valid": compute_scores(scores, collected, loss)}

    with (
        GracefulShutdown() as shutdown,
        CheckpointManager(folder / "checkpoints", log=print) as checkpoints,
    ):
        found = checkpoints.restore_latest(executor.abstract(init))
        state = executor.create(init) if found is None else found[0]
        with MetricsLogger(folder, "tiny", int(state.step)) as logger:
            loop = Loop(
                plan=TrainPlan(
                    steps=EPOCHS * reader.steps_per_epoch,
                    steps_per_epoch=reader.steps_per_epoch,
                    log_every=3,
                    save_every=2,
                ),
                step=step,
                batches=lambda start, stop: (
                    executor.put(batch, train=True)
                    for batch in reader.train(start, stop)
                ),
                evaluate=evaluate,
                state=state,
                saver=checkpoints,
                logger=logger,
                shutdown=shutdown,
                progress=SelectionState.restore(found[1]["progress"])
                if found
                else SelectionState(),
            )
            state = loop.run()
        return {
            "state": fingerprint(state),
            "best": checkpoints.best_step,
            "best_state": fingerprint(checkpoints.restore_best(state)[0]),
            "progress": json.loads(json.dumps(dataclasses.asdict(loop.progress))),
            "metrics": _metrics(folder),
        }


def _metrics(folder: Path) -> list[list[Any]]:
    """Returns the content of metrics.jsonl without times."""
    names = ("loss", "grad_norm", "valid/loss", "valid/accuracy")
    return [
        [line.step, line.kind, *(line.values.get(name) for name in names)]
        for line in read_metrics(folder)
    ]
