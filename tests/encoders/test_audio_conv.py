"""The audio encoder: Eq. 1-3, padding, masks, devices, the released network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_cfn import assert_close, load, mfcc, variables

from mmfusion_jax.encoders.audio_conv import AudioConv
from mmfusion_jax.errors import DataError
from mmfusion_jax.layers.pooling import flatten

ENCODER = AudioConv(hidden_dim=6, channels=4, pool=3, dropout=0.0)
CLIPS = jax.random.normal(jax.random.key(0), (4, 23, 5))
MASK = jnp.ones((4, 23), bool).at[0, 15:].set(False).at[2].set(False)


@pytest.fixture(scope="module")
def weights():
    init = jax.jit(functools.partial(ENCODER.init, train=False))
    made = init(jax.random.key(1), CLIPS, MASK)
    leaves, tree = jax.tree.flatten(made)  # statistics other than 0 and 1
    keys = jax.random.split(jax.random.key(2), len(leaves))
    other = [
        x + 0.3 * jax.random.uniform(key, x.shape)
        for key, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, other)


@functools.partial(jax.jit, static_argnames=("train", "axis"))
def encode(weights, clips, mask, train=False, axis=None):
    encoder = ENCODER.clone(axis=axis)
    return encoder.apply(weights, clips, mask, train=train, mutable=["batch_stats"])


def convolved(p, x, name):
    kernel, bias = p[name]["kernel"], p[name]["bias"]
    x = np.pad(x, [(0, 0), (2, 2), (0, 0)])
    n = x.shape[1] - len(kernel) + 1
    taps = [x[:, i : i + n] @ kernel[i] for i in range(len(kernel))]
    return np.maximum(sum(taps) + bias, 0)


def normalised(p, s, x, name):
    scale = p[name]["scale"] / np.sqrt(s[name]["var"] + 1e-5)
    return (x - s[name]["mean"]) * scale + p[name]["bias"]


def test_follows_the_equations(weights):
    p, s = jax.tree.map(np.asarray, (weights["params"], weights["batch_stats"]))
    x = normalised(p, s, convolved(p, np.asarray(CLIPS), "conv1"), "bn1")  # Eq. 1
    x = convolved(p, x, "conv2")
    assert x.shape[1] == 19
    pooled = np.stack([x[:, i : i + 3].max(axis=1) for i in range(0, 18, 3)], axis=1)
    x = normalised(p, s, pooled, "bn2")  # Eq. 2
    want = normalised(p, s, convolved(p, x, "conv3"), "bn3")  # Eq. 3
    tokens, _ = encode(weights, CLIPS, jnp.ones_like(MASK))
    np.testing.assert_allclose(tokens.values, want, rtol=1e-5, atol=1e-6)
    assert tokens.mask.all() and tokens.grid == ()


def test_starts_as_pytorch_does():
    clip, mask = jnp.zeros((1, 20, 13)), jnp.ones((1, 20), bool)
    init = jax.jit(functools.partial(AudioConv().init, train=False))
    params = init(jax.random.key(0), clip, mask)
    for name, fan_in in (("conv1", 91), ("conv2", 224), ("conv3", 160)):
        for leaf in params["params"][name].values():
            bound = float(jnp.max(jnp.abs(leaf))) * fan_in**0.5
            assert 0.85 < bound <= 1


@pytest.mark.parametrize("steps", [212, 219])
def test_counts(steps):
    clip, mask = jnp.zeros((1, steps, 13)), jnp.ones((1, steps), bool)
    init = lambda: AudioConv().init_with_output(
        jax.random.key(0), clip, mask, train=False
    )
    tokens, made = jax.eval_shape(init)
    assert tokens.values.shape == (1, 26, 64)
    assert sum(leaf.size for leaf in jax.tree.leaves(made["params"])) == 20_704


def test_says_when_a_clip_is_too_short():
    with pytest.raises(DataError, match=r"too short: 9 steps.* at least 12 steps"):
        AudioConv().init(
            jax.random.key(0), jnp.zeros((1, 9, 13)), jnp.ones((1, 9), bool), train=True
        )


def test_released_network(golden):
    clip, mask = mfcc(), np.ones((2, 212), bool)
    encoder = AudioConv()
    init = lambda: encoder.init(jax.random.key(0), clip, mask, train=False)
    filled = variables(init, ("encoders_audio",))
    tokens = jax.jit(lambda v: encoder.apply(v, clip, mask, train=False))(filled)
    features = load(golden)["audio/features"]
    assert_close(np.moveaxis(tokens.values, 1, 2), features)
    np.testing.assert_allclose(
        flatten(tokens), features.reshape(2, -1), rtol=1e-4, atol=1e-4
    )
