"""The encoders of pictures and of vectors: values, masks, what they refuse."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from masking_contract import poisoned

from mmfusion_jax.encoders.image_conv import ImageConv, _max_pool
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.errors import ConfigError, DataError

CONV = ImageConv((3, 4))
MASK = jnp.array([[True, True], [True, False], [False, False]])


def pictures(b=3, t=2, side=9):
    return jax.random.uniform(jax.random.key(0), (b, t, side, side, 1))


@functools.cache
def variables():
    return jax.jit(functools.partial(CONV.init, train=False))(
        jax.random.key(1), pictures(), MASK
    )


@functools.partial(jax.jit, static_argnames=("encoder", "train"))
def apply(encoder, tree, values, mask, train=False):
    return encoder.apply(tree, values, mask, train=train, mutable=["batch_stats"])


def test_tokens_are_positions():
    tokens, _ = apply(CONV, variables(), pictures(), MASK)
    assert tokens.values.shape == (3, 8, 4) and tokens.grid == (2, 2, 2)
    np.testing.assert_array_equal(tokens.mask, np.repeat(MASK, 4, axis=1))
    flat, _ = apply(ImageConv((3, 4), flatten=True), variables(), pictures(), MASK)
    np.testing.assert_array_equal(flat.mask, MASK)
    np.testing.assert_array_equal(
        flat.values, tokens.values.reshape(3, 2, 16) * MASK[..., None]
    )


def test_one_layer_by_hand():
    x = np.asarray(pictures(1, 1, 4))[0, 0, :, :, 0]
    net = ImageConv((1,))
    tree = {"conv_0": {"kernel": jnp.zeros((3, 3, 1, 1)).at[1, 1].set(2.0)}}
    tree["norm_0"] = {"scale": jnp.ones(1), "bias": jnp.full(1, -1.0)}
    stats = {"norm_0": {"mean": jnp.zeros(1), "var": jnp.ones(1)}}
    tree = {"params": tree, "batch_stats": stats}
    got, _ = apply(net, tree, pictures(1, 1, 4), jnp.ones((1, 1), bool))
    want = np.maximum(2 * x - 1, 0).reshape(2, 2, 2, 2).max(axis=(1, 3))
    np.testing.assert_allclose(got.values[0, :, 0], want.ravel(), rtol=1e-4, atol=1e-5)


def test_shrinking_takes_means_first():
    x = pictures(1, 1, 9)
    tree = variables()
    small = x[:, :, :8, :8].reshape(1, 1, 4, 2, 4, 2, 1).mean(axis=(3, 5))
    want, _ = apply(CONV, tree, small, MASK[:1, :1])
    got, _ = apply(ImageConv((3, 4), downsample=2), tree, x, MASK[:1, :1])
    assert got.grid == (1, 1, 1)
    np.testing.assert_allclose(got.values, want.values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("side", [4, 5])
def test_pooling_and_its_gradient_are_those_of_max_pool(side):
    x = jax.random.normal(jax.random.key(0), (2, 1, side, side, 3))
    library = lambda x: nn.max_pool(x[:, 0], (2, 2), (2, 2))[:, None]
    np.testing.assert_array_equal(_max_pool(x), library(x))
    slope = lambda pool: jax.grad(lambda x: jnp.sum(pool(x) ** 2))(x)
    np.testing.assert_array_equal(slope(_max_pool), slope(library))


def test_one_picture_without_a_time_axis():
    rows = jnp.repeat(jnp.array([[True], [False]]), 9, axis=1)
    got, _ = apply(CONV, variables(), pictures()[:2, 0], rows)
    want, _ = apply(CONV, variables(), pictures()[:2, :1], rows[:, :1])
    chex.assert_trees_all_equal(got, want)


def test_pixels_are_scaled():
    pixels = (255 * pictures()).astype(jnp.uint8)
    for encoder, tree in ((CONV, variables()), (Precomputed(), {})):
        got, _ = apply(encoder, tree, pixels, MASK)
        want, _ = apply(encoder, tree, pixels.astype(jnp.float32) / 255, MASK)
        np.testing.assert_allclose(got.values, want.values, rtol=1e-6, atol=1e-7)


def test_small_pictures_are_refused():
    with pytest.raises(DataError, match="D13.*3x3 pixels.*at least 4x4"):
        CONV.init(jax.random.key(0), pictures(side=3), MASK, train=False)


def test_vectors_are_what_they_were():
    x = poisoned(pictures(), MASK, jnp.nan)
    got, _ = apply(Precomputed(), {}, x, MASK)
    np.testing.assert_array_equal(got.mask, MASK)
    want = np.where(MASK[..., None], pictures().reshape(3, 2, 81), 0)
    np.testing.assert_array_equal(got.values, want)
    with pytest.raises(ConfigError, match="'precomputed' expects vectors"):
        Precomputed().apply({}, jnp.ones((3, 2), int), MASK, train=False)
