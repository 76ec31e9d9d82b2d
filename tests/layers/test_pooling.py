"""Vectors from tokens: order, masks, time steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.layers.pooling import (
    flatten,
    mean,
    mean_per_frame,
    mean_std,
    time_steps,
)
from mmfusion_jax.types import Tokens

VALUES = jnp.arange(24.0).reshape(1, 6, 4)
MASK = jnp.array([[True, True, False, True, False, False]])
POISONED = Tokens(jnp.where(MASK[..., None], VALUES, jnp.nan), MASK, (3, 1, 2))


def test_flat_keeps_the_steps_of_a_channel_together():
    got = flatten(Tokens(VALUES, jnp.ones((1, 6), bool)))[0]
    np.testing.assert_array_equal(got[:6], VALUES[0, :, 0])
    np.testing.assert_array_equal(got[-6:], VALUES[0, :, 3])


def test_masked_tokens_are_zero_or_left_out():
    got = flatten(POISONED).reshape(4, 6)
    np.testing.assert_array_equal(got, jnp.where(MASK, VALUES[0].T, 0))
    want = VALUES[0, jnp.array([0, 1, 3])].mean(axis=0)
    np.testing.assert_allclose(mean(POISONED)[0], want, rtol=1e-6)


def test_steps_are_means_of_their_real_positions():
    steps = mean_per_frame(POISONED)
    want = [VALUES[0, :2].mean(axis=0), VALUES[0, 3], jnp.zeros(4)]
    np.testing.assert_allclose(steps.values[0], want, rtol=1e-6)
    np.testing.assert_array_equal(steps.mask, [[True, True, False]])


@pytest.mark.parametrize(("grid", "steps"), [((3, 1, 2), 3), ((2, 3), 2), ((), 1)])
def test_only_a_grid_has_time_steps(grid, steps):
    assert time_steps(POISONED.replace(grid=grid)) == steps


def test_moments_are_mean_and_deviation_of_the_real_tokens():
    real = np.asarray(VALUES[0, jnp.array([0, 1, 3])])
    want = np.concatenate([real.mean(axis=0), real.std(axis=0)])
    np.testing.assert_allclose(mean_std(POISONED)[0], want, rtol=1e-5)
    absent = POISONED.replace(mask=jnp.zeros_like(MASK))
    np.testing.assert_array_equal(mean_std(absent), jnp.zeros((1, 8)))


@pytest.mark.parametrize("mask", [MASK, jnp.zeros_like(MASK)])
def test_moments_of_equal_tokens_have_a_finite_gradient(mask):
    alike = jnp.where(MASK[..., None], 1.0, jnp.nan) * jnp.ones((1, 6, 4))
    total = lambda values: mean_std(Tokens(values, mask)).sum()
    assert jnp.isfinite(jax.grad(total)(alike)).all()
