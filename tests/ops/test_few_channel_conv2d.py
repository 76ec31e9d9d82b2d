"""Sums of planes against XLA's convolution; parts of a batch against the whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

from mmfusion_jax.ops.chunked_map import map_in_chunks
from mmfusion_jax.ops.conv.few_channel_conv2d import MAX_UNROLLED_CHANNELS, convolve2d


def reference(x, w):
    axes = ("NCHW", "HWIO", "NCHW")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=axes)


@pytest.mark.parametrize(("c", "k"), [(2, 3), (1, 1), (MAX_UNROLLED_CHANNELS + 1, 2)])
def test_value_and_gradients(c, k):
    with double():
        rng = np.random.default_rng(0)
        x, w = rng.normal(size=(2, c, 5, 6)), rng.normal(size=(3, 3, c, k))
        dy = rng.normal(size=(2, k, 3, 4))

        def run(f):
            y, back = jax.vjp(f, x, w)
            return y, *back(dy)

        for got, want in zip(run(convolve2d), run(reference), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


def test_half_precision_adds_in_single():
    x = jnp.ones((1, 1, 3, 3), jnp.bfloat16).at[0, 0, 0, 0].set(256)
    got = convolve2d(x, jnp.ones((3, 3, 1, 1), jnp.bfloat16))
    assert got.dtype == jnp.bfloat16 and got[0, 0, 0, 0] == 264


@pytest.mark.parametrize("most", [0, 1, 3, 4, 7, 12, 20])
def test_parts_of_a_batch(most):
    x, sizes = jnp.arange(24.0).reshape(12, 2), []

    def double(x, y):
        sizes.append(len(x))
        return 2 * x + y[:, None]

    got = map_in_chunks(double, (x, x[:, 0]), most)
    np.testing.assert_array_equal(got, 2 * x + x[:, :1])
    want = {0: 12, 1: 1, 3: 3, 4: 4, 7: 6, 12: 12, 20: 12}[most]
    assert set(sizes) == {want}
