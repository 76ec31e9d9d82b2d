"""Gradients of single loss terms: they add up to the gradient of training."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from groups import in_ci
from tiny_dataset import tones

from mmfusion_jax.analysis.gradients import (
    ALL_MODULES,
    gradient_similarity,
    term_gradients,
    term_values,
    term_weights,
)
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.encoders.feature_tokens import FeatureTokens
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import CrossEntropy
from mmfusion_jax.models.baselines import LateFusion
from mmfusion_jax.training.state import create_state


@dataclasses.dataclass(frozen=True)
class Small:
    """A loss that is low for small predictions, or for large ones."""

    sign: float = 1.0

    def __call__(self, outputs, batch):
        return self.sign * jnp.sum(jnp.square(outputs.prediction), axis=-1)


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A loss that does not depend on the parameters."""

    def __call__(self, outputs, batch):
        return batch.weight


OBJECTIVE = Objective(
    {
        "task": WeightedLoss(CrossEntropy("label")),
        "small": WeightedLoss(Small(), lambda step: 0.1 + 0.0 * step),
        "large": WeightedLoss(Small(-1.0), 0.5),
        "nothing": WeightedLoss(Nothing()),
    }
)


@pytest.fixture(scope="module")
def pieces():
    batch = jax.tree.map(jnp.asarray, next(Pipeline(tones(), 6).train(0, 1)))
    encoders = {name: FeatureTokens(8) for name in ("audio", "video")}
    model = LateFusion(encoders, head_size=3, dropout=0.5)
    state = create_state(model, optax.sgd(0.1), batch, jax.random.key(0))
    return model, state, batch


@pytest.mark.ci
@pytest.mark.parametrize("train", in_ci([True, False], True))
def test_the_weighted_terms_add_up_to_the_gradient_of_training(pieces, train):
    model, state, batch = pieces
    found = jax.jit(lambda s, b: term_gradients(model, OBJECTIVE, s, b, train=train))(
        state, batch
    )
    key = jax.random.fold_in(state.key, state.step)

    def loss(params):
        variables = {"params": params, "batch_stats": state.stats}
        rngs = {"dropout": key} if train else None
        outputs, _ = model.apply(
            variables, batch, train=train, rngs=rngs, mutable=["batch_stats"]
        )
        return OBJECTIVE(outputs, batch, state.step)[0]

    weights = term_weights(OBJECTIVE, state.step)
    total = jax.tree.map(
        lambda *terms: sum(w * g for w, g in zip(weights, terms, strict=True)),
        *(found[name] for name in OBJECTIVE.terms),  # jit sorts a mapping
    )
    for ours, theirs in zip(
        jax.tree.leaves(total),
        jax.tree.leaves(jax.grad(loss)(state.params)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    values = term_values(model, OBJECTIVE, state, batch, train=train)
    np.testing.assert_allclose(weights @ values, loss(state.params), rtol=1e-5)


def test_angles(pieces):
    alignment = gradient_similarity(term_gradients(pieces[0], OBJECTIVE, *pieces[1:]))
    assert set(alignment.norms) == {ALL_MODULES, *pieces[1].params}
    names = list(OBJECTIVE.terms)
    small, large, nothing = map(names.index, ("small", "large", "nothing"))
    for module, cosines in alignment.cosines.items():
        norms = alignment.norms[module]
        np.testing.assert_allclose(cosines, cosines.T, atol=1e-6)
        np.testing.assert_allclose(cosines[small, large], -1, atol=1e-4)
        np.testing.assert_allclose(jnp.diagonal(cosines)[:nothing], 1, atol=1e-5)
        assert norms[nothing] == 0 and not cosines[nothing].any()
        assert (norms[:nothing] > 0).all()
    modules = [alignment.norms[name] for name in pieces[1].params]
    whole = jnp.sqrt(sum(jnp.square(norm) for norm in modules))
    np.testing.assert_allclose(alignment.norms[ALL_MODULES], whole, rtol=1e-5)


def test_a_gradient_that_is_not_finite_is_not_one_of_zero():
    one = {"h": jnp.ones(2)}
    for value in (jnp.nan, jnp.inf, 1e30):
        found = gradient_similarity({"a": {"h": jnp.array([value, 1.0])}, "b": one})
        cosines = found.cosines["h"]
        assert np.isnan(cosines[0]).all() and np.isnan(cosines[1, 0]), value
        assert float(cosines[1, 1]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("gradients", "named"),
    [
        ({}, "is empty"),
        ({"a": {"h": np.ones(2)}, "b": {"g": np.ones(2)}}, "b has the modules g"),
        ({"a": {ALL_MODULES: np.ones(2)}}, "named 'all'"),
        ({"a": {}}, "no modules"),
    ],
)
def test_gradients_that_cannot_be_compared_are_an_error(gradients, named):
    with pytest.raises(ConfigError, match=f"C10.*{named}"):
        gradient_similarity(gradients)
