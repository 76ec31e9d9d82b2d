"""The tensor convolution redone in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.tensor_convolution import TensorConvolution
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.ops.feature_variation import varying_energy
from mmfusion_jax.types import Tokens


@pytest.mark.ci
@pytest.mark.parametrize("last", ["relu", "leaky_relu", "none"])
def test_convolution_of_the_outer_product(last):
    x, y = (jax.random.normal(jax.random.key(i), (5, 1, 7 + i)) for i in range(2))
    streams = {"x": Tokens(x, jnp.ones((5, 1), bool))}
    streams["y"] = Tokens(y, jnp.arange(5)[:, None] != 2)
    block = TensorConvolution("x", "y", "z", (3, 1), last, chunk=2)
    tree = block.init(jax.random.key(2), streams, train=False)
    run = functools.partial(block.apply, tree, train=False)
    got = jax.jit(run)(streams)["z"]
    assert got.present.tolist() == [True, True, False, True, True]
    z = np.einsum("bi,bj->bij", x[:, 0], y[:, 0])[..., None]
    for i in range(2):
        kernel, bias = (tree["params"][f"{n}_{i}"] for n in ("kernel", "bias"))
        patches = np.lib.stride_tricks.sliding_window_view(z, (3, 3), (1, 2))
        z = np.einsum("bijcpq,pqck->bijk", patches, kernel) + bias
        slope = {"relu": 0.0, "leaky_relu": 0.01, "none": 1.0}[last] if i else 0.0
        z = np.where(z > 0, z, slope * z)
    want = z.reshape(5, -1) * (np.arange(5) != 2)[:, None]
    np.testing.assert_allclose(first(got), want, rtol=2e-5, atol=1e-5)
    whole = block.clone(chunk=0).apply(tree, streams, train=False)["z"]
    np.testing.assert_allclose(whole.values, got.values, rtol=2e-5, atol=2e-6)


def shares(variant, channels, size):
    """Share of energy that differs between 8 examples at the start, of 30 seeds."""
    # As after a ReLU on a small projection: not negative, and far below 1.
    keys = jax.random.split(jax.random.key(1))
    vectors = [0.2 * jax.nn.relu(jax.random.normal(k, (8, 1, size))) for k in keys]
    mask = jnp.ones((8, 1), bool)
    streams = {n: Tokens(v, mask) for n, v in zip("xy", vectors, strict=True)}
    block = TensorConvolution("x", "y", "z", channels, chunk=0, variant=variant)

    def share(key):
        z = block.init_with_output(key, streams, train=False)[0]["z"]
        return varying_energy(first(z), z.present)

    return jax.jit(jax.vmap(share))(jax.random.split(jax.random.key(0), 30))


@pytest.mark.parametrize(
    "channels", [(2, 2, 1), pytest.param((4, 6, 1), marks=pytest.mark.ci)]
)
def test_no_convolution_starts_dead_or_constant(channels):
    found = shares("paper", channels, 16)
    assert jnp.min(found) > 0.1, found
    # What the biases of the released code do, or this test could not fail.
    assert jnp.sum(shares("released_code", channels, 16) < 0.01) > 5


def test_an_unknown_variant_is_an_error():
    with pytest.raises(ConfigError, match="variant='code'"):
        shares("code", (1,), 4)
