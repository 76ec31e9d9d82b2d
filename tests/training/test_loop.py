"""The training loop with a fake saver and optimizer."""

import io
import itertools

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfusion_jax.errors import CheckpointError, DivergedError, Interrupted
from mmfusion_jax.results.model_result import Evaluation
from mmfusion_jax.training.loop import Loop
from mmfusion_jax.training.metrics_log import MetricsLogger
from mmfusion_jax.training.optimizer import scale_by_lr_multiplier
from mmfusion_jax.training.plan import TrainPlan
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import TrainState


class Disk:
    """A saver that works or does not."""

    def __init__(self, works: bool):
        self.works = works

    def save(self, step, state, meta, score=None, *, wait=False) -> bool:
        return self.works


def loop(plan: TrainPlan, scores=(), *, disk: bool = True, signal: int | None = None):
    """A loop whose steps do nothing; `scores` are those of its evaluations."""
    values = itertools.chain(scores, itertools.repeat(0.0))
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params={},
        stats={},
        opt_state=optax.chain(scale_by_lr_multiplier()).init({}),
        key=jnp.zeros(2),
        skipped_steps={},
    )
    metrics = {
        "loss": jnp.ones(()),
        "nonfinite/consecutive_steps": jnp.zeros((), jnp.int32),
    }
    shutdown = GracefulShutdown()
    shutdown.signal = signal
    return Loop(
        plan=plan,
        step=lambda state, batch: (state.replace(step=state.step + 1), metrics),
        batches=lambda start, stop: iter(range(start, stop)),
        evaluate=lambda state: {
            "valid": Evaluation({"accuracy": next(values), "loss": 0.0})
        },
        state=state,
        saver=Disk(disk),
        logger=MetricsLogger(None, "loop", out=io.StringIO()),
        shutdown=shutdown,
    )


def step_size(made: Loop) -> float:
    return float(optax.tree.get(made.state.opt_state, "step_size"))


@pytest.mark.parametrize("disk", [True, False])
def test_a_signal_says_saved_only_of_what_is(disk):
    made = loop(TrainPlan(steps=10, steps_per_epoch=5), disk=disk, signal=15)
    with pytest.raises(Interrupted if disk else CheckpointError) as caught:
        made.run()
    assert caught.value.exit_code == (143 if disk else 5)
    assert ("could not be saved" in str(caught.value)) == (not disk)


def test_the_learning_rate_is_reduced_on_a_plateau_of_the_score():
    plan = TrainPlan(steps=8, steps_per_epoch=1, lr_patience=2, lr_factor=0.5)
    made = loop(plan, [0.1, 0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4])
    made.run()
    assert (
        step_size(made) == 0.25
    )  # after epochs 5 and 8: more than 2 without improvement
    assert made.progress.evals_since_best == 6


def test_without_patience_the_learning_rate_stays():
    made = loop(TrainPlan(steps=8, steps_per_epoch=1))
    made.run()
    assert step_size(made) == 1.0


def test_the_learning_rate_is_reduced_on_a_plateau_of_the_loss():
    plan = TrainPlan(8, 1, lr_patience=2, lr_factor=0.5, lr_monitors_loss=True)
    made = loop(plan, [n / 10 for n in range(8)])  # the loss stays at 0
    made.run()
    assert step_size(made) == 0.25  # after epochs 4 and 7
    assert made.progress.evals_since_best == 0


SKIPPED = "nonfinite/consecutive_steps"


class Number:
    """A metric on a device: counts how often it is copied to the host."""

    shape, dtype = (), np.dtype(np.int32)

    def __init__(self, value: int):
        self.value, self.copies = value, 0

    def __array__(self, *args, **kwargs):
        self.copies += 1
        return np.asarray(self.value, np.int32)


def numbers_of_a_run(skipped, plan: TrainPlan):
    """The metrics of every step of a run; `skipped` are the consecutive bad steps."""
    made, steps = loop(plan), []

    def step(state, batch):
        names = ("loss", SKIPPED)
        values = 1, skipped(len(steps) + 1)
        steps.append({k: Number(value) for k, value in zip(names, values, strict=True)})
        return state.replace(step=state.step + 1), steps[-1]

    made.step = step
    return made, steps


def test_between_log_entries_the_host_reads_one_number_in_n_steps():
    plan = TrainPlan(40, 40, log_every=20, max_nonfinite_steps=5)
    made, steps = numbers_of_a_run(lambda number: 0, plan)
    seen = []
    plain = made.after_step

    def after_step(metrics, *, stop):
        logged = plain(metrics, stop=stop)
        if made.done == 19:  # nothing is logged so far
            seen.extend([i for i, m in enumerate(steps, 1) if m[SKIPPED].copies])
            assert not any(m["loss"].copies for m in steps)
        return logged

    made.after_step = after_step
    made.run()
    assert seen == [5, 10, 15]
    assert all(m["loss"].copies for m in steps)  # each is checked when it is logged


@pytest.mark.parametrize("first", range(1, 6))
def test_steps_that_are_not_finite_end_a_run_soon(first):
    plan = TrainPlan(40, 40, log_every=40, max_nonfinite_steps=3)
    made, steps = numbers_of_a_run(lambda number: max(number - first + 1, 0), plan)
    with pytest.raises(DivergedError):
        made.run()
    assert 3 <= len(steps) - first + 1 <= 6
