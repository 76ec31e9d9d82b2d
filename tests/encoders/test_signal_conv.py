"""The 1D CNN over signals, ids and frames: the equation, pooling, masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from masking_contract import assert_ignores_poison, poisoned

from mmfusion_jax.encoders.signal_conv import SignalConv, mean_pool, standardized_frames
from mmfusion_jax.errors import ConfigError, DataError

pytestmark = pytest.mark.ci

KEY = jax.random.key(0)
MASK = jnp.arange(7) < jnp.array([[7], [5], [0]])


def run(encoder, x, mask, key=KEY):
    tree = encoder.init(key, x, mask, train=False)
    return encoder.apply(tree, x, mask, train=False), tree["params"]


def test_follows_the_equation():
    x = jax.random.normal(KEY, (3, 7, 2))
    tokens, p = run(SignalConv(4), x, MASK)
    p = jax.tree.map(np.asarray, p)
    z = np.where(MASK[..., None], x, 0)
    for i in range(2):
        sides = np.pad(z, [(0, 0), (1, 1), (0, 0)])
        taps = np.stack([sides[:, k : k + 7] for k in range(3)], axis=2)
        z = np.einsum("btkc,kcd->btd", taps, p[f"conv_{i}"]["kernel"])
        z = z + p[f"conv_{i}"]["bias"]
        away = z - z.mean(-1, keepdims=True)
        z = away / np.sqrt((away**2).mean(-1, keepdims=True) + 1e-5)
        z = np.maximum(z * p[f"norm_{i}"]["scale"] + p[f"norm_{i}"]["bias"], 0)
        z = z * np.asarray(MASK)[..., None]
    np.testing.assert_allclose(tokens.values, z, rtol=2e-4, atol=1e-5)
    np.testing.assert_array_equal(tokens.mask, MASK)


def test_frames_ids_and_pixels():
    clip = jax.random.randint(KEY, (3, 7, 9, 8, 1), 0, 256).astype(jnp.uint8)
    tokens, p = run(SignalConv(4), clip, MASK)
    assert tokens.values.shape == (3, 7, 4)
    assert p["conv_0"]["kernel"].shape == (3, 64, 4)
    scaled, _ = run(SignalConv(4), clip / jnp.float32(255), MASK)
    np.testing.assert_allclose(tokens.values, scaled.values, rtol=1e-5, atol=1e-6)
    ids = jnp.arange(21).reshape(3, 7)
    tokens, p = run(SignalConv(4, vocab_size=21), ids, MASK)
    assert p["embed"]["embedding"].shape == (21, 4)


def test_standardized_frames_do_not_depend_on_contrast_and_brightness():
    """Each channel of each clip, over its valid frames alone."""
    x = np.random.default_rng(0).normal(3, 2, (3, 7, 8, 8, 2)).astype(np.float32)
    mask = np.asarray(MASK)
    y = np.asarray(
        standardized_frames(np.where(mask[..., None, None, None], x, np.nan), mask)
    )
    for clip in range(2):
        valid = y[clip][mask[clip]]
        np.testing.assert_allclose(valid.mean(axis=(0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(valid.std(axis=(0, 1, 2)), 1, rtol=1e-4)
    assert not np.any(y[~mask])
    encoder = SignalConv(4, standardize_frames=True)
    tokens, _ = run(encoder, x, MASK)
    other, _ = run(encoder, x * np.array([5, 0.1], np.float32) - 7, MASK)
    np.testing.assert_allclose(tokens.values, other.values, rtol=1e-3, atol=1e-4)
    plain, _ = run(SignalConv(4), x, MASK)
    assert np.abs(plain.values - tokens.values).max() > 0.01
    flat = standardized_frames(jnp.full((1, 2, 4, 4, 1), 0.3), jnp.ones((1, 2), bool))
    assert not np.any(np.abs(flat) > 1e-3)


def test_flattened_frames_keep_positions():
    """A mean over positions does not tell where the pixel is, except at the borders."""
    x = np.zeros((2, 1, 32, 32, 1), np.float32)
    x[0, 0, 12, 12], x[1, 0, 20, 20] = 1, 1  # one stride of all convolutions apart
    mask = np.ones((2, 1), bool)
    tokens, p = run(SignalConv(4, frame_pooling="flatten"), x, mask)
    assert p["conv_0"]["kernel"].shape == (3, 4 * 4 * 64, 4)
    assert np.abs(tokens.values[0] - tokens.values[1]).max() > 0.01
    tokens, p = run(SignalConv(4), x, mask)
    assert p["conv_0"]["kernel"].shape == (3, 64, 4)
    np.testing.assert_allclose(tokens.values[0], tokens.values[1], atol=1e-5)
    assert not any(np.any(p[f"frame_conv_{i}"]["bias"]) for i in range(3))
    with pytest.raises(ConfigError, match=r"C03.*frame_pooling='max'.*conv1d"):
        run(SignalConv(4, frame_pooling="max"), x, mask)


def test_pooling_takes_means_of_real_steps():
    x = jnp.arange(14.0).reshape(2, 7, 1)
    mask = jnp.array([[1, 1, 1, 0, 0, 0, 1], [0, 0, 1, 1, 1, 1, 1]], bool)
    values, real = mean_pool(x, mask, 2)
    assert real.tolist() == [[True, True, False], [False, True, True]]
    assert values[..., 0].tolist() == [[0.5, 2, 0], [0, 9.5, 11.5]]
    # An incomplete last window is dropped, whether or not padding follows.
    mask = jnp.array([[1, 1, 1, 1, 1, 0, 0], [1, 0, 1, 0, 0, 0, 0]], bool)
    _, real = mean_pool(x, mask, 2)
    assert real.tolist() == [[True, True, False], [True, False, False]]
    assert mean_pool(x[:, :5], mask[:, :5], 2)[1].tolist() == real[:, :2].tolist()
    tokens, _ = run(SignalConv(4, pools=(3, 2, 1)), x, mask)
    assert tokens.values.shape == (2, 1, 4)


@pytest.mark.parametrize("standardize", [False, True])
def test_masked_frames_are_not_read(standardize):
    x = jax.random.normal(KEY, (3, 7, 4, 4, 1))
    encoder = SignalConv(4, pools=(2, 1), standardize_frames=standardize)
    tree = encoder.init(KEY, x, MASK, train=False)

    def loss(tree, x):
        rngs = {"dropout": KEY}
        tokens = encoder.apply(tree, x, MASK, train=True, rngs=rngs)
        return jnp.sum(tokens.values**2)

    assert_ignores_poison(loss, tree, lambda bad: poisoned(x, MASK, bad))


def test_says_what_is_wrong():
    ids = jnp.ones((3, 7), int)
    with pytest.raises(ConfigError, match=r"C27.*vocab_size=0"):
        run(SignalConv(4), ids, MASK)
    with pytest.raises(ConfigError, match=r"C10.*pools=\(2, 0\)"):
        run(SignalConv(4, pools=(2, 0)), jnp.ones((3, 7, 1)), MASK)
    with pytest.raises(DataError, match=r"D13.*7 steps.*at least 8"):
        run(SignalConv(4, pools=(4, 2)), jnp.ones((3, 7, 1)), MASK)
