"""The objective averages once, over real examples only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss, average
from mmfusion_jax.losses.supervised import CrossEntropy
from mmfusion_jax.types import Batch, Outputs

LOGITS = jnp.array([[2.0, 0.0], [0.0, 1.0], [jnp.nan, jnp.inf]])
BATCH = Batch(
    inputs={},
    masks={},
    labels={"digit": jnp.array([0, 0, 0])},
    weight=jnp.array([1.0, 1.0, 0.0]),
)


def test_cross_entropy_by_hand():
    two = jax.tree.map(lambda x: x[:2], BATCH)
    values = CrossEntropy("digit")(Outputs(LOGITS[:2]), two)
    want = [np.log(1 + np.exp(-2)), np.log(1 + np.e)]
    np.testing.assert_allclose(values, want, rtol=1e-6)


def test_filling_rows_reach_neither_value_nor_gradient():
    objective = Objective({"task": WeightedLoss(CrossEntropy("digit"), 2.0)})
    total = lambda x: objective(Outputs(x), BATCH, jnp.array(0))[0]
    value, grad = jax.value_and_grad(total)(jnp.nan_to_num(LOGITS))
    want = (np.log(1 + np.exp(-2)) + np.log(1 + np.e)) / 2
    np.testing.assert_allclose(value, 2 * want, rtol=1e-6)
    np.testing.assert_array_equal(grad[2], 0)
    np.testing.assert_allclose(average(jnp.array([1.0, 3.0, jnp.nan]), BATCH.weight), 2)


def test_weights_may_be_schedules_and_terms_stand_alone():
    halves = WeightedLoss(CrossEntropy("digit"), lambda step: 0.5**step)
    objective = Objective({"a": halves, "b": WeightedLoss(CrossEntropy("digit"), 0.5)})
    outputs = Outputs(jnp.nan_to_num(LOGITS))
    total, terms = objective(outputs, BATCH, jnp.array(2))
    np.testing.assert_allclose(total, terms["a"] / 4 + terms["b"] / 2, rtol=1e-6)
    np.testing.assert_array_equal(objective.value("b", outputs, BATCH), terms["b"])


def test_a_term_of_weight_0_is_not_computed():
    """A term that reads an output which the model does not return would fail."""
    lacking = WeightedLoss(CrossEntropy("digit", logits="no such extra"), 0.0)
    terms = {"a": WeightedLoss(CrossEntropy("digit"), lambda step: 0.0 * step)}
    objective = Objective(terms | {"b": lacking})
    total, terms = objective(Outputs(jnp.nan_to_num(LOGITS)), BATCH, jnp.array(2))
    assert terms.keys() == {"a"} and total == 0


@pytest.mark.parametrize("logits", [1e4, -1e4])
def test_huge_logits_stay_finite(logits):
    term = CrossEntropy("digit")
    total = lambda x: jnp.sum(term(Outputs(x), BATCH))
    value, grad = jax.value_and_grad(total)(jnp.full((3, 2), logits).at[:, 0].set(0))
    assert jnp.isfinite(value) and jnp.all(jnp.isfinite(grad))


def test_a_mesh_with_explicit_axes_is_an_error():
    objective = Objective({"task": WeightedLoss(CrossEntropy("digit"))})
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    total = lambda x: objective(Outputs(x), BATCH, jnp.array(0))[0]
    with (
        jax.set_mesh(mesh),
        pytest.raises(ConfigError, match="C10.*explicit axes: data"),
    ):
        jax.jit(total)(LOGITS)
