"""Second derivatives of terms against closed forms and dense Hessians."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from precision import double

from mmfusion_jax.analysis.curvature import (
    TermCurvature,
    gradient_noise_scale,
    term_curvature,
    term_hessian_products,
    top_eigenvalue,
)
from mmfusion_jax.analysis.gradients import ALL_MODULES, term_function, term_gradients
from mmfusion_jax.commands import loss_gradients
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.results.gradients_result import LossTerm
from mmfusion_jax.training.state import create_state
from mmfusion_jax.types import Batch, Outputs

# Of the quadratic term: an eigenvalue of 4 in "left" and of -5 in "right".
LEFT, RIGHT = np.diag([1.0, 4.0]), np.array([[-5.0, 0.0], [0.0, 2.0]])


class Two(nn.Module):
    """Two modules of two parameters each."""

    @nn.compact
    def __call__(self, batch, *, train):
        init = nn.initializers.normal(1.0)
        x = Half(init, name="left")(), Half(init, name="right")()
        return Outputs(jnp.ones((2, 1)) * sum(map(jnp.sum, x)), {"x": jnp.stack(x)})


class Half(nn.Module):
    init: nn.initializers.Initializer

    @nn.compact
    def __call__(self):
        return self.param("x", self.init, (2,))


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """x^T A x / 2 of both modules."""

    def __call__(self, outputs, batch):
        left, right = outputs.aux["x"]
        return (left @ LEFT @ left + right @ RIGHT @ right) / 2


@dataclasses.dataclass(frozen=True)
class Mixed:
    """A term whose Hessian depends on both modules at once."""

    def __call__(self, outputs, batch):
        left, right = outputs.aux["x"]
        return jnp.sum(jnp.sin(left) * right**2)


OBJECTIVE = Objective(
    {"quadratic": WeightedLoss(Quadratic()), "mixed": WeightedLoss(Mixed(), 0.5)}
)


@pytest.fixture(scope="module")
def pieces():
    with double():
        mask = {"audio": jnp.ones((2, 1), bool)}
        batch = Batch({"audio": jnp.ones((2, 1, 1))}, mask)
        model = Two()
        state = create_state(model, optax.sgd(0.1), batch, jax.random.key(0))
        double_of = lambda x: jnp.asarray(x, jnp.float64)
        params = jax.tree.map(double_of, state.params)
        return model, OBJECTIVE, state.replace(params=params), batch


@pytest.fixture(scope="module")
def hessians(pieces):
    """The dense Hessian of each term, (4 4); the first two rows are those of "left"."""
    with double():
        state = pieces[2]
        values = term_function(*pieces, True)
        flat, unravel = ravel_pytree(state.params)
        dense = jax.hessian(lambda x: values(unravel(x)))(flat)
        return dict(zip(OBJECTIVE.terms, np.asarray(dense), strict=True))


def test_products_are_those_with_the_hessian_of_each_term(pieces, hessians):
    with double():
        params = pieces[2].params
        v = jax.tree.map(lambda x: jnp.arange(1.0, 3.0) + x, params)
        found = term_hessian_products(*pieces, v)
        flat = ravel_pytree(v)[0]
        for name, dense in hessians.items():
            got = ravel_pytree(found[name])[0]
            np.testing.assert_allclose(got, dense @ np.asarray(flat), rtol=1e-12)


def test_eigenvalues_and_sharpness_are_those_of_the_dense_hessian(pieces, hessians):
    with double():
        run = jax.jit(
            lambda state: term_curvature(
                pieces[0], OBJECTIVE, state, pieces[3], key=jax.random.key(1),
                iterations=200,
            )
        )  # fmt: skip
        found = jax.device_get(run(pieces[2]))
        gradients = term_gradients(*pieces)
        parts = {ALL_MODULES: slice(0, 4), "left": slice(0, 2), "right": slice(2, 4)}
        assert found.eigenvalues.keys() == parts.keys()
        for module, part in parts.items():
            for i, (name, dense) in enumerate(hessians.items()):
                of_block = np.linalg.eigvalsh(dense[part, part])
                top = of_block[np.argmax(np.abs(of_block))]
                np.testing.assert_allclose(found.eigenvalues[module][i], top, rtol=1e-6)
                assert found.residuals[module][i] < 1e-3
                g = np.asarray(ravel_pytree(gradients[name])[0])[part]
                want = [g @ h[part, part] @ g / (g @ g) for h in hessians.values()]
                np.testing.assert_allclose(found.sharpness[module][i], want, rtol=1e-9)
        first = {module: value[0] for module, value in found.eigenvalues.items()}
        assert {k: round(float(v), 6) for k, v in first.items()} == {
            ALL_MODULES: -5, "left": 4, "right": -5,
        }  # fmt: skip


def test_a_map_that_is_zero_has_the_eigenvalue_zero():
    value, vector = top_eigenvalue(lambda v: 0 * v, jnp.ones(4))
    assert value == 0
    assert np.linalg.norm(vector) == 1


def test_noise_scale_of_gradients_whose_noise_is_known():
    # Single examples have gradients with mean (1, 2) and variance 3 in each of the two
    # parameters of "a", and no noise in "b": tr(S) = 6, |G|^2 = 5 and 4.
    rng = np.random.default_rng(0)
    noise = rng.normal(0, np.sqrt(3 / 8), (4000, 2))  # of batches of 8
    gradients = {"a": np.array([1.0, 2.0]) + noise, "b": np.full((4000, 1), 2.0)}
    found = gradient_noise_scale(jax.tree.map(jnp.asarray, gradients), 8)
    np.testing.assert_allclose(found["a"], 6 / 5, rtol=0.03)
    np.testing.assert_allclose(found["b"], 0, atol=1e-3)
    np.testing.assert_allclose(found[ALL_MODULES], 6 / 9, rtol=0.03)


def test_noise_that_hides_the_gradient_has_an_infinite_scale():
    found = gradient_noise_scale({"a": jnp.array([[1.0], [-1.0]])}, 8)
    assert found["a"] == jnp.inf


def test_an_eigenvalue_that_did_not_converge_is_known():
    row = lambda *values: {"head": np.array(values)}
    runs = [
        loss_gradients.CurvatureStats(
            TermCurvature(row(4.0, -2.0), row(left, 1.0), row([0.0] * 2, [0.0] * 2)),
            row(1.0, 1.0),
        )
        for left in (0.1, 0.3)
    ]
    terms = {"a": LossTerm(1.0, 0.5), "b": LossTerm(1.0, 2.0)}
    found = loss_gradients._curvature_summary(terms, ["head"], runs)
    assert found and found["head"].residuals == {"a": 0.1, "b": 2.0}
    assert found["head"].has_converged("a") and not found["head"].has_converged("b")


def test_large_and_small_maps_have_an_eigenvalue_and_undefined_ones_none():
    for factor in (1e30, 1e-30, -2.0, 0.0):
        value, vector = top_eigenvalue(lambda v, f=factor: f * v, jnp.ones(2), 3)
        assert float(value) == pytest.approx(factor, rel=1e-5)
        assert float(jnp.linalg.norm(vector)) == pytest.approx(1, rel=1e-5)
    assert np.isnan(top_eigenvalue(lambda v: jnp.nan * v, jnp.ones(2), 3)[0])
    assert np.isnan(top_eigenvalue(lambda v: 2 * v, jnp.zeros(2), 3)[0])


def test_a_noise_scale_that_is_not_finite_is_not_infinite_noise():
    for first in (jnp.nan, jnp.inf, 1e20):
        gradients = {"a": jnp.array([[first], [1.0]]), "b": jnp.array([[3.0], [1.0]])}
        found = gradient_noise_scale(gradients, 6)
        assert np.isnan(found["a"]) and np.isnan(found[ALL_MODULES])
        assert float(found["b"]) == 4


@pytest.mark.parametrize("iterations", [0, -1, 1.5])
def test_iterations_are_a_number_from_one_on(iterations):
    with pytest.raises(ConfigError, match="C10.*iterations="):
        top_eigenvalue(lambda v: v, jnp.ones(2), iterations)


@pytest.mark.parametrize(
    ("gradients", "batch_size", "named"),
    [
        ({}, 4, "has no modules"),
        ({"a": np.ones((1, 2))}, 4, "1 batches"),
        ({"a": np.ones((3, 2)), "b": np.ones((2, 2))}, 4, "2, 3 batches"),
        ({"a": np.ones((2, 2))}, 0, "batch_size=0"),
        ({"all": np.ones((2, 2))}, 4, "named 'all'"),
    ],
)
def test_gradients_without_a_noise_scale_are_an_error(gradients, batch_size, named):
    with pytest.raises(ConfigError, match=f"C10.*{named}"):
        gradient_noise_scale(gradients, batch_size)
