"""What a step logs beside the loss: means of what a model gives to be looked at."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import MSE
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_train_step
from mmfusion_jax.types import Batch, Outputs


class Watched(nn.Module):
    """Gives what it was given to be looked at, and what is nobody's business."""

    @nn.compact
    def __call__(self, batch, *, train):
        x = batch.inputs["sound"][:, 0]
        answer = nn.Dense(1)(jnp.nan_to_num(x))[:, 0]
        return Outputs(answer, {"log/sound": x[:, 0], "other": x[:, 0]})


@pytest.mark.parametrize(
    ("parallel", "accumulate"),
    [(p, n) for p in ("jit", "pmap", "shard_map") for n in (1, 2)],
)
def test_means_of_log_outputs_are_logged(parallel, accumulate):
    weight = np.array([1, 1, 1, 1, 1, 0, 0, 0], np.float32)
    sound = np.arange(16, dtype=np.float32).reshape(8, 1, 2)
    sound[5:] = np.nan
    batch = Batch(
        {"sound": sound},
        {"sound": np.ones((8, 1), bool)},
        {"label": np.zeros(8, np.float32)},
        weight,
    )
    objective, tx = Objective({"task": WeightedLoss(MSE("label"))}), optax.sgd(0.1)
    executor = Executor(parallel, devices=2)
    axis = executor.axis
    step = executor.compile(make_train_step(Watched(), objective, tx, axis, accumulate))
    state = create_state(Watched(), tx, batch, jax.random.key(0))
    # Donated: the new state takes the memory of the old one.
    first, metrics = step(executor.copy(state), executor.put(batch, train=True))
    after, _ = step(first, executor.put(batch, train=True))
    if parallel != "pmap" or jax.__version_info__ >= (0, 8):  # pmap donates since 0.8
        assert all(x.is_deleted() for x in jax.tree.leaves(first.params))
    assert int(after.step) == 2
    assert "other" not in metrics
    assert float(metrics["log/sound"]) == pytest.approx(sound[:5, 0, 0].mean())
    assert np.isfinite(metrics["loss"]) and "other" not in metrics


def test_a_batch_has_equal_parts():
    batch = Batch(
        {"sound": np.ones((4, 1, 2), np.float32)},
        {"sound": np.ones((4, 1), bool)},
        {"label": np.zeros(4, np.float32)},
    )
    objective, tx = Objective({"task": WeightedLoss(MSE("label"))}), optax.sgd(0.1)
    step = make_train_step(Watched(), objective, tx, None, 3)
    state = create_state(Watched(), tx, batch, jax.random.key(0))
    with pytest.raises(ConfigError, match="C05.*4 examples.*=3"):
        step(state, batch)


def test_a_penalty_is_logged_and_in_the_loss():
    """It is that of the parameters before the step, as the other terms are."""
    batch = Batch(
        {"sound": np.ones((4, 1, 2), np.float32)},
        {"sound": np.ones((4, 1), bool)},
        {"label": np.zeros(4, np.float32)},
    )
    objective, tx = Objective({"task": WeightedLoss(MSE("label"))}), optax.sgd(0.1)
    penalty = lambda params: 0.5 * optax.tree.norm(params, squared=True)
    state = create_state(Watched(), tx, batch, jax.random.key(0))
    step = jax.jit(make_train_step(Watched(), objective, tx, penalty=penalty))
    want = float(penalty(state.params))
    _, metrics = step(state, batch)
    assert float(metrics["loss/l2"]) == pytest.approx(want)
    total = float(metrics["loss/task"]) + want
    assert float(metrics["loss"]) == pytest.approx(total)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [({"parallel": "shardmap"}, "C03"), ({"devices": -1}, "C10")],
)
def test_an_executor_of_unknown_kind_is_an_error(arguments, code):
    with pytest.raises(ConfigError, match=code):
        Executor(**arguments)


def test_an_executor_has_no_more_devices_than_jax():
    with pytest.raises(ConfigError, match="C10.*devices=1000"):
        _ = Executor(devices=1000).mesh
