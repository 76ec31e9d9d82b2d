"""Normalisation: the written-out gradient against reverse mode, masks, pmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

from mmfusion_jax.ops.masked_batch_norm import batch_normalize

X = np.random.default_rng(0).normal(30, 2, (4, 5, 3, 2))
DY = np.random.default_rng(1).normal(1, 2, X.shape)
SCALE, BIAS = np.array([0.5, 2.0]), np.array([1.0, -1.0])
FULL = np.ones((4, 5), bool)
RAGGED = np.arange(5) < np.array([[5], [2], [0], [1]])
BROAD = np.array([[True], [True], [False], [True]])


@pytest.fixture(autouse=True)
def exact():
    with double():
        yield


def plain(x, mask, scale, bias):
    """The equation, for reverse mode."""
    real = jnp.broadcast_to(mask[..., None, None], x.shape)
    x = jnp.where(real, x, 0)
    mean = x.sum((0, 1, 2)) / real[..., 0].sum()
    var = jnp.where(real, (x - mean) ** 2, 0).sum((0, 1, 2)) / real[..., 0].sum()
    y = jnp.where(real, scale * (x - mean) / jnp.sqrt(var + 1e-5) + bias, 0)
    return y, mean, var


@functools.partial(jax.jit, static_argnums=0)
def results(function, x, mask, dy):
    y, back = jax.vjp(lambda *a: function(a[0], mask, *a[1:])[0], x, SCALE, BIAS)
    return function(x, mask, SCALE, BIAS)[:3], back(dy)


def ours(x, mask, scale, bias, axis=None):
    return batch_normalize(x, mask, scale, bias, 1e-5, axis)


@pytest.mark.parametrize("mask", [FULL, RAGGED, BROAD, FULL[:, 0]])
def test_equals_the_equation(mask):
    wide = mask if mask.ndim == 2 else mask[:, None]
    got, want = results(ours, X, mask, DY), results(plain, X, wide, DY)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("poison", [np.nan, 1e300])
def test_masked_positions_touch_nothing(poison):
    dirty = np.where(RAGGED[..., None, None], X, poison)
    got, want = results(ours, dirty, RAGGED, DY), results(ours, X, RAGGED, DY)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_pmap_sees_the_global_batch():
    split = lambda a: a.reshape(2, 2, *a.shape[1:])
    over = functools.partial(ours, axis="data")
    run = lambda x, mask, dy: results(over, x, mask, dy)
    (y, mean, var), (dx, dscale, dbias) = jax.pmap(run, axis_name="data")(
        split(X), split(RAGGED), split(DY)
    )
    (want, *moments), (want_dx, *sums) = results(ours, X, RAGGED, DY)
    np.testing.assert_allclose(y.reshape(X.shape), want, rtol=1e-9)
    np.testing.assert_allclose((mean[1], var[1]), moments, rtol=1e-9)
    np.testing.assert_allclose(dx.reshape(X.shape), want_dx, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose((dscale.sum(0), dbias.sum(0)), sums, rtol=1e-9)


def test_short_floats_are_summed_in_float32():
    x = jnp.asarray(X, jnp.bfloat16)
    y, mean, var, _ = ours(x, FULL, SCALE.astype("float32"), BIAS.astype("float32"))
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    exact = np.asarray(x, np.float64).reshape(-1, 2)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, exact.var(0), rtol=1e-5)
