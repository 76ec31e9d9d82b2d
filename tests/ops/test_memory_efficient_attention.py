"""Attention without kept maps, and convolutions of maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

from mmfusion_jax.ops import chunked_map
from mmfusion_jax.ops.conv.attention_map_conv import convolve_maps
from mmfusion_jax.ops.memory_efficient_attention import dot_attention

RNG = np.random.default_rng(0)


def values(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape))


def gradients(f, *arrays):
    """Gradients by all arguments of a weighted sum of the values of `f`."""
    return jax.grad(lambda *x: jnp.sum(jnp.sin(f(*x))), range(len(arrays)))(*arrays)


@pytest.fixture
def asked():
    """Queries, keys, values and a mask; the second of three examples shows no key."""
    mask = jnp.asarray(RNG.random((3, 7)) > 0.4).at[1].set(False)
    return values(3, 2, 5, 4), values(3, 2, 7, 4), values(3, 2, 7, 6), mask


def plain(q, k, v, mask):
    """The formula, with the whole map."""
    seen = mask[:, None, None]
    scores = jnp.where(seen, jnp.einsum("bgnd,bgsd->bgns", q, k), -1e30)
    return jnp.where(seen, jax.nn.softmax(scores), 0) @ v


@pytest.mark.ci
@pytest.mark.parametrize("most", [1, 10**6])
def test_values_and_gradients_are_those_of_the_formula(asked, most, monkeypatch):
    monkeypatch.setattr(chunked_map, "CACHE_ELEMENTS", most)
    *asked, mask = asked
    with double():
        asked = [jnp.asarray(np.asarray(x), jnp.float64) for x in asked]
        ours = lambda q, k, v: dot_attention(q, k, v, mask)
        theirs = lambda q, k, v: plain(q, k, v, mask)
        np.testing.assert_allclose(ours(*asked), theirs(*asked), atol=1e-14)
        assert not np.any(ours(*asked)[1])
        pairs = zip(gradients(ours, *asked), gradients(theirs, *asked), strict=True)
        for got, want in pairs:
            np.testing.assert_allclose(got, want, atol=1e-14)


def test_few_queries_compile():
    # XLA's compiler for CPU ended the process here, up to three queries.
    arrays = values(2, 2, 3, 4), values(2, 2, 5, 4), values(2, 2, 5, 4)
    ours = lambda q, k, v: dot_attention(q, k, v, jnp.ones((2, 5), bool))
    theirs = lambda q, k, v: plain(q, k, v, jnp.ones((2, 5), bool))
    got = jax.jit(lambda *x: gradients(ours, *x))(*arrays)
    for one, other in zip(got, gradients(theirs, *arrays), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_masked_key_changes_nothing(asked):
    *asked, mask = asked
    q, k, v = asked
    far = jnp.where(mask[:, None, :, None], 0, 1e6)
    ours = lambda q, k, v: dot_attention(q, k, v, mask)
    assert np.array_equal(ours(q, k, v), ours(q, k + far, v + far))
    before, after = gradients(ours, q, k, v), gradients(ours, q, k + far, v + far)
    for one, other in zip(before, after, strict=True):
        assert np.array_equal(one, other)


def test_large_scores_stay_finite(asked):
    q, k, v, mask = asked
    ours = lambda q, k, v: dot_attention(q, k, v, mask)
    assert np.all(np.isfinite(ours(1e4 * q, 1e4 * k, v)))
    for x in gradients(ours, 1e4 * q, 1e4 * k, v):
        assert np.all(np.isfinite(x))


def test_half_precision_stays_half(asked):
    q, k, v, mask = asked
    half = [x.astype(jnp.bfloat16) for x in (q, k, v)]
    got = dot_attention(half[0], half[1], half[2], mask)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(float), plain(q, k, v, mask), atol=0.05)
    made = gradients(lambda q, k, v: dot_attention(q, k, v, mask), *half)
    assert {x.dtype for x in made} == {jnp.dtype(jnp.bfloat16)}


def test_the_gradients_of_map_conv_are_those_of_a_convolution():
    axes = ("NHWC", "HWIO", "NHWC")
    theirs = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=axes
    )
    with double():
        x, w = values(2, 5, 6, 3), values(3, 3, 3, 4)
        pairs = zip(
            gradients(convolve_maps, x, w), gradients(theirs, x, w), strict=True
        )
        for got, want in pairs:
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)
