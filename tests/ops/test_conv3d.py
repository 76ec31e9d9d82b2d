"""Every form of a 3-D convolution against XLA's own: value and gradients."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from groups import in_ci
from precision import double

from mmfusion_jax.ops.conv.conv3d import (
    convolve3d,
    grouped_conv3d,
    pointwise_conv3d,
    stem_conv3d,
)

pytestmark = pytest.mark.ci


@pytest.fixture(autouse=True)
def exact():
    with double():
        yield


def normal(seed, *shape, dtype=jnp.float64):
    x = np.random.default_rng(seed).standard_normal(shape)
    return jnp.asarray(x, dtype)


def assert_same(function, reference, x, w, rtol=1e-10):
    """Checks the value and both gradients against those of `reference`."""

    @functools.partial(jax.jit, static_argnums=0)
    def run(f, x, w, dy):
        y, back = jax.vjp(f, x, w)
        return y, *back(dy)

    dy = normal(2, *jax.eval_shape(reference, x, w).shape, dtype=x.dtype)
    results = run(function, x, w, dy), run(reference, x, w, dy)
    for got, want in zip(*results, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
        got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
        np.testing.assert_allclose(got, want, rtol=0, atol=rtol * np.abs(want).max())


def grouped(stride, groups, **options):
    return functools.partial(grouped_conv3d, stride=stride, groups=groups, **options)


# (c, k, groups): the network's groups of 4, 8, 16 and 32 channels, the few groups of
# a narrow network, and numbers that divide nothing.
CHANNELS = [
    (64, 64, 16),
    (128, 128, 16),
    (48, 48, 3),
    (64, 64, 2),
    (16, 16, 4),
    (48, 32, 16),
    (5, 10, 5),
    (7, 3, 1),
]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", in_ci(CHANNELS, CHANNELS[0], CHANNELS[-1]))
def test_taps(channels, stride):
    c, k, groups = channels
    x, w = normal(0, 2, 3, 5, 6, c), normal(1, 3, 3, 3, c // groups, k)
    taps, lax = (grouped(stride, groups, method=method) for method in ("taps", "lax"))
    assert_same(taps, lax, x, w)


@pytest.mark.ci
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 4, 4), (1, 30, 2), (4, 3, 29)])
@pytest.mark.parametrize("channels", [(64, 64, 16), (32, 32, 2)])
def test_taps_of_odd_sizes(size, channels):
    c, k, groups = channels
    x, w = normal(0, 1, *size, c), normal(1, 3, 3, 3, c // groups, k)
    taps, lax = (grouped(2, groups, method=method) for method in ("taps", "lax"))
    assert_same(taps, lax, x, w)


def test_taps_of_short_floats():
    x, w = normal(0, 2, 3, 5, 6, 64), normal(1, 3, 3, 3, 4, 64)
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    taps, lax = (grouped(1, 16, method=method) for method in ("taps", "lax"))
    assert_same(taps, lax, x, w, rtol=1e-2)


@pytest.mark.ci
@pytest.mark.parametrize("dense", [1, 32, 64])
@pytest.mark.parametrize("channels", [(64, 64, 16), (48, 24, 12), (64, 64, 1)])
def test_block_diagonal(channels, dense):
    c, k, groups = channels
    x, w = normal(0, 2, 3, 4, 5, c), normal(1, 3, 3, 3, c // groups, k)
    merged = grouped(2, groups, method="block_diagonal", dense=dense)
    assert_same(merged, grouped(2, groups, method="lax"), x, w)


def test_chooses_a_form():
    x, w = normal(0, 1, 3, 4, 5, 32), normal(1, 3, 3, 3, 2, 32)
    assert_same(grouped(1, 16), grouped(1, 16, method="lax"), x, w)
    uneven = grouped((1, 2, 3), 16)
    assert uneven(x, w).shape == (1, 3, 2, 2, 32)
    with pytest.raises(ValueError, match=r"stride 1 and 2, but stride=\(1, 2, 3\)"):
        grouped((1, 2, 3), 16, method="taps")(x, w)
    with pytest.raises(ValueError, match="'fft' is unknown; known: lax, taps, block"):
        grouped(1, 16, method="fft")(x, w)


def test_taps_are_for_cpu_only():
    x, w = normal(0, 1, 3, 4, 5, 32), normal(1, 3, 3, 3, 2, 32)

    def loss(x, w):
        return grouped(1, 16)(x, w).sum() + stem_conv3d(x, stem_kernel).sum()

    stem_kernel = normal(3, 7, 7, 7, 32, 2)
    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(x, w)
    loops = lambda platform: traced.lower(lowering_platforms=(platform,)).as_text()
    assert "stablehlo.while" in loops("cpu")
    assert "stablehlo.while" not in loops("cuda")


@pytest.mark.parametrize("shape", [(2, 3, 9, 8, 3), (1, 2, 7, 15, 1), (1, 1, 1, 2, 4)])
def test_stem(shape):
    x, w = normal(0, *shape), normal(1, 7, 7, 7, shape[-1], 5)
    lax = functools.partial(stem_conv3d, method="lax")
    taps = functools.partial(stem_conv3d, method="taps")
    assert_same(taps, lax, x, w)


@pytest.mark.parametrize("shape", [(2, 3, 5, 6, 4), (2, 10, 14, 14, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_pointwise(shape, stride):
    x, w = normal(0, *shape), normal(1, shape[-1], 7)
    lax = lambda x, w: convolve3d(x, w[None, None, None], strides=(stride,) * 3)
    assert_same(functools.partial(pointwise_conv3d, stride=stride), lax, x, w)


@pytest.mark.parametrize(("platform", "groups"), [("tpu", 2), ("cuda", 64)])
def test_the_form_suits_the_accelerator(platform, groups):
    # 64 groups of 4 channels are merged to 2 of 128 on a TPU.
    x = jax.ShapeDtypeStruct((1, 4, 6, 6, 256), jnp.float32)
    w = jax.ShapeDtypeStruct((3, 3, 3, 4, 256), jnp.float32)
    loss = lambda x, w: jnp.sum(grouped(1, 64)(x, w))
    step = jax.jit(jax.value_and_grad(loss, (0, 1))).trace(x, w)
    text = step.lower(lowering_platforms=(platform,)).as_text()
    counts = re.findall(r"(?:feature|batch)_group_count = (\d+)", text)
    assert {int(count) for count in counts} - {1} == {groups}
