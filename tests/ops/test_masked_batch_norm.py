"""Normalisation: the written-out gradient against reverse mode, masks, pmap."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

from mmfusion_jax.ops.masked_batch_norm import batch_normalize
from mmfusion_jax.training.parallelism import Executor

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


@pytest.mark.parametrize("parallel", ["one", "pmap", "jit"])
def test_variance_of_features_far_from_zero(parallel):
    """Mean 100 and deviation 0.1, in float32: 0.0003 is lost by E[x^2] - E[x]^2."""
    x = np.random.default_rng(0).normal(100, 0.1, (4, 500, 3, 2)).astype(np.float32)
    # The devices have different means, and one has no valid position.
    x[2:] += 0.05
    mask = np.ones((4, 500), bool)
    mask[1] = False
    scale, bias = SCALE.astype(np.float32), BIAS.astype(np.float32)
    if parallel == "pmap":
        over = lambda x, mask: ours(x, mask, scale, bias, axis="data")
        split = lambda a: a.reshape(2, 2, *a.shape[1:])
        y, mean, var, count = jax.pmap(over, axis_name="data")(split(x), split(mask))
        y, mean, var, count = y.reshape(x.shape), mean[1], var[1], count[1]
    elif parallel == "jit":
        program = split_by_jit(lambda x, mask: ours(x, mask, scale, bias), x, mask)
        y, mean, var, count = program(x, mask)
    else:
        y, mean, var, count = ours(x, mask, scale, bias)
    rows = x[mask].astype(np.float64).reshape(-1, 2)
    assert count == len(rows)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, rows.var(0), rtol=1e-4)
    want = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) * scale + bias
    np.testing.assert_allclose(np.asarray(y)[mask].reshape(-1, 2), want, atol=2e-3)


def test_devices_communicate_once_in_each_pass():
    loss = lambda x, mask: jnp.sum(ours(x, mask, SCALE, BIAS, axis="data")[0] ** 2)
    split = lambda a: a.reshape(2, 2, *a.shape[1:])
    for function, want in {loss: 1, jax.grad(loss): 2}.items():
        program = jax.pmap(function, axis_name="data")
        text = program.lower(split(X), split(RAGGED)).as_text()
        found = text.count("stablehlo.all_gather") + text.count("stablehlo.all_reduce")
        assert found == want


def test_a_device_without_valid_positions_changes_nothing():
    split = lambda a: a.reshape(2, 2, *a.shape[1:])
    mask = FULL.copy()
    mask[:2] = False
    over = functools.partial(ours, axis="data")
    run = lambda x, mask, dy: results(over, x, mask, dy)
    (y, mean, var), (dx, *_) = jax.pmap(run, axis_name="data")(
        split(X), split(mask), split(DY)
    )
    (want, *moments), (want_dx, *_) = results(ours, X, mask, DY)
    np.testing.assert_allclose(y.reshape(X.shape), want, rtol=1e-9)
    np.testing.assert_allclose((mean[0], var[0]), moments, rtol=1e-9)
    np.testing.assert_allclose(dx.reshape(X.shape), want_dx, rtol=1e-9, atol=1e-12)


def split_by_jit(function, *arrays):
    """The program of a function of arrays that jit splits over two devices."""
    executor = Executor("jit", devices=2)
    placed = jax.device_put(arrays, executor.batch_sharding)
    with jax.set_mesh(executor.mesh):
        return jax.jit(function).lower(*placed).compile()


def test_jit_exchanges_once_in_each_layer():
    """Without the mesh as context, the count, the mean and the variance one by one."""
    program = split_by_jit(lambda x, mask: ours(x, mask, SCALE, BIAS)[0], X, RAGGED)
    kinds = re.findall(r" (all-[a-z]+)(?:-start)?\(", program.as_text())
    assert kinds == ["all-reduce"]


@pytest.mark.parametrize("mask", [FULL, RAGGED, BROAD, FULL[:1]])
def test_jit_sees_the_global_batch(mask):
    run = lambda x, dy: results(ours, x, jnp.asarray(mask), dy)
    want = results(ours, X, mask, DY)
    got = split_by_jit(run, X, DY)(*jax.device_put((X, DY)))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.ci
@pytest.mark.parametrize("parallel", ["pmap", "jit"])
def test_devices_have_the_hessian_of_the_global_batch(parallel):
    def product(x, mask, v, axis=None):
        loss = lambda x: jnp.sum(jnp.sin(ours(x, mask, SCALE, BIAS, axis)[0]))
        return jax.jvp(jax.grad(loss), (x,), (v,))[1]

    if parallel == "jit":
        got = split_by_jit(product, X, RAGGED, DY)(X, RAGGED, DY)
    else:
        split = lambda a: a.reshape(2, 2, *a.shape[1:])
        over = jax.pmap(functools.partial(product, axis="data"), axis_name="data")
        got = over(split(X), split(RAGGED), split(DY)).reshape(X.shape)
    np.testing.assert_allclose(got, product(X, RAGGED, DY), rtol=1e-8, atol=1e-10)
