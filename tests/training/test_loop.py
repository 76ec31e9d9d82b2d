"""The training loop with a fake saver and optimizer."""

import io
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfusion_jax.errors import CheckpointError, DivergedError, Interrupted
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import MSE
from mmfusion_jax.results.model_result import Evaluation
from mmfusion_jax.training.loop import Loop
from mmfusion_jax.training.metrics_log import MetricsLogger
from mmfusion_jax.training.optimizer import scale_by_lr_multiplier
from mmfusion_jax.training.plan import TrainPlan
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.training.state import TrainState, create_state
from mmfusion_jax.training.step import make_train_step
from mmfusion_jax.types import Batch, Outputs


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
        skipped_steps={"consecutive": jnp.zeros((), jnp.int32)},
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


class Line(nn.Module):
    """One weight."""

    @nn.compact
    def __call__(self, batch, *, train):
        return Outputs(nn.Dense(1)(batch.inputs["x"][:, 0])[:, 0], {})


def real(plan: TrainPlan, bad: set[int]) -> tuple[Loop, list[TrainState]]:
    """A loop with the training step; the inputs of `bad` steps are NaN."""

    def batch(number: int) -> Batch:
        x = np.full((2, 1, 1), np.nan if number in bad else number, np.float32)
        mask, label = np.ones((2, 1), bool), np.ones(2, np.float32)
        return Batch({"x": x}, {"x": mask}, {"y": label}, np.ones(2, np.float32))

    tx = optax.chain(optax.sgd(1e-3), scale_by_lr_multiplier())
    objective = Objective({"task": WeightedLoss(MSE("y"))})
    limit = plan.max_nonfinite_steps
    step = jax.jit(make_train_step(Line(), objective, tx, max_nonfinite_steps=limit))
    made, states = loop(plan), []
    made.state = create_state(Line(), tx, batch(1), jax.random.key(0))
    made.batches = lambda start, stop: map(batch, range(start + 1, stop + 1))

    def recorded(state, batch):
        state, metrics = step(state, batch)
        states.append(state)
        return state, metrics

    made.step = recorded
    return made, states


def weights(state: TrainState) -> float:
    return float(state.params["Dense_0"]["kernel"][0, 0])


@pytest.mark.parametrize("log_every", [1, 4, 20, 100])
def test_how_often_is_logged_does_not_change_what_a_diverged_run_ends_with(log_every):
    """Finite steps after the bad ones, before the host notices, change nothing."""
    plan = TrainPlan(40, 40, log_every=log_every, max_nonfinite_steps=3)
    made, states = real(plan, {2, 5, 6, 7})
    with pytest.raises(DivergedError, match="3 consecutive steps") as caught:
        made.run()
    assert "weights from before them are kept" in str(caught.value)
    before, last = states[3], states[-1]
    assert weights(states[2]) != weights(before) == weights(last)
    assert 7 <= len(states) <= 10
    # The same command with the same folder ends at the same step, for the same reason.
    again, steps = real(plan, set())
    again.state = last
    with pytest.raises(DivergedError, match="3 consecutive steps"):
        again.run()
    assert not steps


def test_fewer_bad_steps_than_the_limit_do_not_end_a_run():
    plan = TrainPlan(20, 20, log_every=20, max_nonfinite_steps=3)
    made, states = real(plan, {2, 3, 5, 6, 9})
    made.run()
    assert int(states[-1].skipped_steps["total"]) == 5
    assert weights(states[8]) == weights(states[7]) != weights(states[9])
