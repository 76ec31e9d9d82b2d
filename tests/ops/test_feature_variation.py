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
