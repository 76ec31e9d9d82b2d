"""Gradients of the loss terms in a training step: they are those that it applies."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from groups import in_ci

from mmfusion_jax.analysis.gradients import ALL_MODULES, make_gradient_stats
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import MSE
from mmfusion_jax.training.gradient_record import gradient_scalars
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_train_step
from mmfusion_jax.types import Batch, Outputs


class Small(nn.Module):
    """A layer, its norm, dropout and a head."""

    axis: str | None = None
    dropout: float = 0.5

    @nn.compact
    def __call__(self, batch, *, train):
        x, mask = batch.inputs["audio"], batch.valid_mask("audio")
        x = nn.Dense(4, use_bias=False, name="layer")(x)
        x = nn.relu(BatchNorm(self.axis, name="norm")(x, mask, train=train))
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(axis=1))
        return Outputs(nn.Dense(1, name="head")(x)[:, 0], {"x": x})


@dataclasses.dataclass(frozen=True)
class Large:
    """A loss of the features: the head has no gradient of it."""

    def __call__(self, outputs, batch):
        return -jnp.sum(jnp.square(outputs.aux["x"]), axis=-1)


OBJECTIVE = Objective(
    {
        "off": WeightedLoss(MSE("other"), 0),
        "task": WeightedLoss(MSE("label"), 2.0),
        "opposite": WeightedLoss(MSE("other"), lambda step: 0.5 + 0.0 * step),
        "large": WeightedLoss(Large(), 0.3),
    }
)


def batch() -> Batch:
    rng = np.random.default_rng(0)
    label = rng.normal(size=8).astype(np.float32)
    weight = np.ones(8, np.float32)
    weight[-1] = 0
    return Batch(
        {"audio": rng.normal(size=(8, 5, 2)).astype(np.float32)},
        {"audio": np.ones((8, 5), bool)},
        {"label": label, "other": -3 * label},
        weight,
    )


@pytest.mark.parametrize(
    ("parallel", "accumulate"),
    in_ci([("jit", 1), ("jit", 2), ("pmap", 1), ("pmap", 2)], ("jit", 2), several=True),
)
def test_they_add_up_to_the_gradient_of_the_step(parallel, accumulate):
    executor = Executor(parallel, 2)
    model, tx = Small(executor.axis), optax.sgd(0.1)
    options = dict(gradient_accumulation_steps=accumulate, steps=4)
    stats = make_gradient_stats(model, OBJECTIVE, executor.axis, **options)
    step = make_train_step(model, OBJECTIVE, tx, executor.axis, **options)
    state = create_state(Small(), tx, batch(), jax.random.key(0))
    rows = executor.put(batch(), train=True)
    found = executor.compile(stats, donate=False)(state, rows)
    after, metrics = executor.compile(step)(executor.copy(state), rows)
    products = {
        name: found.cosines[name] * norms[:, None] * norms
        for name, norms in found.norms.items()
    }
    np.testing.assert_allclose(
        jnp.sqrt(products[ALL_MODULES].sum()), metrics["grad_norm"], rtol=1e-4
    )
    # One step of SGD: the change of a module is its gradient.
    for name in state.params:
        change = jax.tree.map(jnp.subtract, after.params[name], state.params[name])
        want = np.square(float(optax.tree.norm(change)) / 0.1)
        np.testing.assert_allclose(products[name].sum(), want, rtol=1e-3)
    # It was not donated, and terms of weight 0 are left out.
    assert float(state.step) == 0 and found.norms["head"].shape == (3,)
    assert found.norms["head"][2] == 0 < found.norms["layer"][2]


def test_scalars_have_shares_and_conflicts_of_pairs_with_a_gradient():
    norms = {"head": np.array([3.0, 1.0, 0.0])}
    cosines = {"head": np.array([[1, -0.5, 0], [-0.5, 1, 0], [0, 0, 0]])}
    assert gradient_scalars(["task", "a", "b"], norms, cosines) == {
        "gradient_norm/head/task": 3.0,
        "gradient_share/head/task": 0.75,
        "gradient_norm/head/a": 1.0,
        "gradient_share/head/a": 0.25,
        "gradient_norm/head/b": 0.0,
        "gradient_share/head/b": 0.0,
        "gradient_cosine/head/task/a": -0.5,
        "gradient_conflict/head/task/a": 1.0,
    }


def test_what_is_not_finite_stays_so():
    norms = {"head": np.array([np.nan, 1.0])}
    found = gradient_scalars(["task", "a"], norms, {"head": np.full((2, 2), np.nan)})
    assert np.isnan(found["gradient_share/head/a"])
    assert np.isnan(found["gradient_conflict/head/task/a"])
