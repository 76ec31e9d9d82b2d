"""The training loop with a fake saver and optimizer."""

import io
import itertools

import jax.numpy as jnp
import optax
import pytest

from mmfusion_jax.errors import CheckpointError, Interrupted
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
