"""BatchNorm: PyTorch's numbers, masks, and the global batch under pmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.layers.batch_norm import BatchNorm

X = np.random.default_rng(0).normal(3, 2, (4, 5, 3, 2)).astype("float32")
FULL = np.ones((4, 5), bool)


def apply(x, mask, stats=None, train=True, axis=None):
    norm = BatchNorm(axis=axis)
    variables = norm.init(
        jax.random.key(0), jnp.zeros((1, 1, 2)), FULL[:1, :1], train=False
    )
    if stats is not None:
        variables = {**variables, "batch_stats": stats}
    return norm.apply(variables, x, mask, train=train, mutable=["batch_stats"])


def test_equals_the_equations_and_pytorchs_running_values():
    y, updated = apply(X, FULL)
    flat = X.reshape(-1, 2)
    want = (X - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(y, want, rtol=1e-4, atol=1e-5)
    stats = updated["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("poison", [np.nan, 1e30])
def test_masked_steps_touch_nothing(poison):
    mask = FULL.copy()
    mask[1], mask[2, 3:] = False, False
    dirty = np.where(mask[..., None, None], X, poison).astype("float32")
    clean = np.where(mask[..., None, None], X, 0)
    for got, want in zip(
        jax.tree.leaves(apply(dirty, mask)),
        jax.tree.leaves(apply(clean, mask)),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)
    _, updated = apply(dirty, mask)
    np.testing.assert_allclose(
        updated["batch_stats"]["mean"], 0.1 * X[mask].reshape(-1, 2).mean(0), rtol=1e-5
    )


def test_nothing_real_leaves_the_running_values():
    y, updated = apply(X, np.zeros_like(FULL))
    np.testing.assert_array_equal(y, 0)
    np.testing.assert_array_equal(updated["batch_stats"]["mean"], 0)
    np.testing.assert_array_equal(updated["batch_stats"]["var"], 1)


def test_pmap_with_uneven_padding_sees_the_global_batch():
    mask = FULL.copy()
    mask[0], mask[1, 1:] = False, False  # device 0 has 6 real steps, device 1 has 10
    y, updated = apply(X, mask)
    split = lambda a: a.reshape(2, 2, *a.shape[1:])
    mapped = jax.pmap(lambda x, m: apply(x, m, axis="data"), axis_name="data")
    got, stats = mapped(split(X), split(mask))
    np.testing.assert_allclose(got.reshape(X.shape), y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        stats["batch_stats"]["var"][1], updated["batch_stats"]["var"], rtol=1e-6
    )


def test_an_empty_batch_leaves_the_statistics():
    y, updated = apply(X[:0], FULL[:0])
    assert y.shape == (0, *X.shape[1:])
    np.testing.assert_array_equal(updated["batch_stats"]["var"], 1)
