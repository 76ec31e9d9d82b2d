"""MCBP: the sketch is that of the outer product, and estimates its inner products."""

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.fusion.compact_bilinear import CompactBilinear
from mmfusion_jax.ops.compact_bilinear import (
    compact_bilinear,
    count_sketch,
    random_hash,
    signed_root_norm,
)
from mmfusion_jax.types import Tokens

ORDER = ("audio", "video")
RNG = np.random.default_rng(0)
AUDIO, VIDEO = (RNG.normal(size=(3, d)).astype(np.float32) for d in (5, 7))


def sketched(size: int, present=((True, True),) * 3):
    """The sketch of the small vectors, and the hashes."""
    hashes = [random_hash(d, size, (0, i)) for i, d in enumerate((5, 7))]
    pairs = zip((AUDIO, VIDEO), hashes, strict=True)
    sketches = jnp.stack([count_sketch(jnp.asarray(x), *h, size) for x, h in pairs], 1)
    return compact_bilinear(sketches, jnp.asarray(present)), hashes


def test_is_the_count_sketch_of_the_outer_product():
    got, ((index_a, sign_a), (index_v, sign_v)) = sketched(11)
    want = np.zeros((3, 11))
    for i in range(5):
        for j in range(7):
            k = (index_a[i] + index_v[j]) % 11
            want[:, k] += sign_a[i] * sign_v[j] * AUDIO[:, i] * VIDEO[:, j]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_inner_products_are_those_of_outer_products():
    got, _ = sketched(50_000)  # so wide that few pairs have the same index
    want = (AUDIO @ AUDIO.T) * (VIDEO @ VIDEO.T)
    np.testing.assert_allclose(got @ got.T, want, rtol=1e-3, atol=1e-2)


def test_a_missing_modality_is_left_out():
    got, ((index, sign), _) = sketched(
        11, [(True, True), (True, False), (False, False)]
    )
    alone = count_sketch(jnp.asarray(AUDIO), index, sign, 11)
    np.testing.assert_allclose(got[1], alone[1], rtol=1e-4, atol=1e-5)
    assert not np.any(got[2])


def test_the_root_keeps_signs_and_has_a_gradient_at_zero():
    x = jnp.array([[4.0, -9.0, 0.0], [0.0, 0.0, 0.0]])
    got = signed_root_norm(x)
    np.testing.assert_allclose(got[0] * np.sqrt(13), [2, -3, 0], rtol=1e-3, atol=1e-6)
    assert not np.any(got[1])
    gradient = jax.grad(lambda x: jnp.sum(signed_root_norm(x) ** 3))(x)
    assert np.all(np.isfinite(gradient))


def test_the_block_has_the_same_hashes_in_every_run():
    tokens = {
        m: Tokens(jnp.asarray(x)[:, None], jnp.ones((3, 1), bool))
        for m, x in zip(ORDER, (AUDIO, VIDEO), strict=True)
    }
    block = CompactBilinear(ORDER, sketch_dim=11)
    got = block.apply({}, tokens, train=False)["joint"].values[:, 0]
    np.testing.assert_allclose(got, signed_root_norm(sketched(11)[0]), atol=1e-5)
    other = block.clone(seed=1).apply({}, tokens, train=False)["joint"].values[:, 0]
    assert np.max(np.abs(other - got)) > 0.1
