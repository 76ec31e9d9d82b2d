"""The training loss of every paper: Hessian times vector as slope of the gradient."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_configs
from precision import double

from mmfusion_jax.config.build import build_components
from mmfusion_jax.config.build_data import build_pipeline
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.training.step import as_in_training

STEP = 1e-6
LONG = ("mea", "mcl_mcf")
"""Papers whose programs compile for a minute."""

PAPERS = [
    pytest.param(name, marks=pytest.mark.slow if name in LONG else pytest.mark.ci)
    for name in small_configs.SMALL
]


@pytest.fixture
def without_constants(monkeypatch):
    """Lets the gradients of models and losses through where they stop some.

    With a stopped gradient the slope of the gradient also has what moves in the stopped
    part, which a second derivative does not.
    """
    stop = jax.lax.stop_gradient

    def let_through(x):
        caller = sys._getframe(1).f_globals["__name__"]
        ours = caller.startswith("mmfusion_jax.") and ".ops." not in caller
        return x if ours else stop(x)

    monkeypatch.setattr(jax.lax, "stop_gradient", let_through)


def training_loss(name: str):
    """The loss of a small paper in training mode, its parameters, and a batch."""
    spec = resolve(small_configs.small(name, **{"data.batch_size": 4}))
    data = small_configs.digits(modalities=spec.model.modalities)
    parts = build_components(spec, data, steps=10)
    batch = next(build_pipeline(spec, data, seed=0).train(0, 1))
    state = small_configs.start(parts, batch)

    def loss(params, batch):
        batch = as_in_training(batch, jnp.float64(0.3), parts.modalities)
        outputs, _ = parts.model.apply(
            {"params": params, "batch_stats": state.stats},
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": state.key},
        )
        return parts.objective(outputs, batch, state.step, None)[0]

    wide = lambda x: np.asarray(x, np.float64) if x.dtype.kind == "f" else np.asarray(x)
    return loss, *jax.tree.map(wide, jax.device_get((state.params, batch)))


@pytest.mark.parametrize("name", PAPERS)
def test_hessian_of_a_paper(name, without_constants):
    with double():
        loss, params, batch = training_loss(name)
        rng = np.random.default_rng(0)
        v = jax.tree.map(lambda x: rng.normal(size=x.shape), params)

        @jax.jit
        def both(params, v, batch):
            """The gradient and the product, in one program for all calls."""
            return jax.jvp(jax.grad(lambda p: loss(p, batch)), (params,), (v,))

        at = lambda step: both(
            jax.tree.map(lambda x, d: x + step * d, params, v), v, batch
        )
        slope = lambda a, b: (np.asarray(a) - np.asarray(b)) / (2 * STEP)
        want = jax.tree.map(slope, at(STEP)[0], at(-STEP)[0])
        got = jax.device_get(at(0)[1])
    size = max(np.max(np.abs(x)) for x in jax.tree.leaves(want))
    assert size > 1e-3
    wanted = dict(jax.tree_util.tree_leaves_with_path(want))
    for path, x in jax.tree_util.tree_leaves_with_path(got):
        np.testing.assert_allclose(
            x, wanted[path], rtol=0, atol=1e-6 * size, err_msg=str(path)
        )
