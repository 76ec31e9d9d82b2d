"""The share of energy that differs between examples, and what must not change it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.ops.feature_variation import varying_energy

X = np.random.default_rng(0).normal(2.0, 1.0, (6, 2, 3)).astype(np.float32)
ALL = np.ones(6, bool)


def test_share_of_the_definition():
    want = np.sum((X - X.mean(0)) ** 2) / np.sum(X**2)
    assert 0.05 < want < 0.95
    np.testing.assert_allclose(varying_energy(X, ALL), want, rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1e15])
def test_the_scale_does_not_count(scale):
    got = varying_energy(X * np.float32(scale), ALL)
    np.testing.assert_allclose(got, varying_energy(X, ALL), rtol=1e-4)


@pytest.mark.parametrize(
    ("x", "want"),
    [(np.zeros((4, 3)), 0.0), (np.full((4, 3), 5.0), 0.0), (np.eye(4) - 0.25, 1.0)],
)
def test_dead_constant_and_centered_features(x, want):
    got = varying_energy(x.astype(np.float32), np.ones(len(x), bool))
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_examples_that_are_not_valid_do_not_count():
    valid = np.array([True, True, False, True, True, False])
    x = np.where(valid[:, None, None], X, np.nan)
    run = jax.jit(varying_energy)
    np.testing.assert_allclose(run(x, valid), run(X[valid], ALL[valid]), rtol=1e-5)
    gradient = jax.grad(varying_energy)(jnp.asarray(x), valid)
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[~valid])
    assert varying_energy(x, np.zeros(6, bool)) == 0


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-20, 7e15])
def test_a_feature_that_is_equal_for_all_examples_does_not_vary(value):
    x = np.full((12, 7), value, np.float32)
    valid = np.arange(12) % 3 > 0
    assert varying_energy(x, valid) == 0
    split = x.reshape(2, 6, 7), valid.reshape(2, 6)
    devices = jax.pmap(lambda x, v: varying_energy(x, v, "data"), "data")(*split)
    assert not np.any(devices)


def test_devices_communicate_once_and_agree_with_one():
    x, valid = np.concatenate([X, 100 + X]), np.arange(12) % 5 > 0
    split = x.reshape(2, 6, 2, 3), valid.reshape(2, 6)
    run = lambda x, valid: varying_energy(x, valid, "data")
    mapped = jax.pmap(run, "data")
    np.testing.assert_allclose(mapped(*split), varying_energy(x, valid), rtol=1e-5)
    text = mapped.lower(*split).compile().as_text()
    found = [op for op in ("all-gather(", "all-reduce(") for _ in range(text.count(op))]
    assert len(found) == 1
