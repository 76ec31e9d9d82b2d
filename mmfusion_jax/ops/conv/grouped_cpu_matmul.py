"""Grouped 3D convolutions as batches of matrix products, one per block of groups.

An array is (n b s h w c), with n blocks. A block is one group, or several neighboring
groups with zeros between them if a group has fewer than NARROWEST channels. The taps
along w are concatenated in the channels, which makes the products large enough.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.types import Array

# Fewer columns do not fill a vector register (AVX-512: 16 of float32), so multiplying
# the zeros that widen a block to them costs little.
NARROWEST = 16


def conv(x: Array, w: Array, stride: int, groups: int, pad: tuple[int, int]) -> Array:
    """Computes the convolution as a sum over the taps along s and h.

    Args:
        x: (b s h w c).
        w: (i j l c/groups k).
        stride: Stride along s, h and w.
        groups: Divides c and k.
        pad: Zeros before and after, along s, h and w.

    Returns:
        (b s' h' w' k).
    """
    deep, high, wide, inner = w.shape[:4]
    merged = _groups_per_block(inner, groups)
    blocks = groups // merged
    near, take, out = _neighbors(x, blocks, w.shape[:3], stride, pad)

    kernel = w.reshape(deep * high, wide, inner, blocks, merged, -1)
    own = jnp.eye(merged, dtype=w.dtype)
    # Kernels of the groups of one block are on its diagonal, zeros elsewhere.
    kernel = jnp.einsum("alingk,eg->anleigk", kernel, own)
    kernel = kernel.reshape(deep * high, blocks, wide * merged * inner, -1)

    # A scan over the taps: all at once would copy the inputs once per tap.
    def add(y: Array, tap: tuple[Array, Array]):
        position, kernel = tap
        return y + jnp.einsum("nmc,nck->nmk", take(near, position), kernel), None

    zero = jnp.zeros((blocks, int(np.prod(out)), kernel.shape[-1]), x.dtype)
    y, _ = jax.lax.scan(add, zero, (_tap_positions(deep, high), kernel))
    return jnp.moveaxis(y.reshape(blocks, *out, -1), 0, -2).reshape(*out, -1)


def filter_gradient(x: Array, dy: Array, stride: int, groups: int) -> Array:
    """Computes the gradient of a 3x3x3 kernel with padding 1.

    Args:
        x: (b s h w c).
        dy: (b s' h' w' k).
        stride: Stride along s, h and w.
        groups: Divides c and k.

    Returns:
        (3 3 3 c/groups k).
    """
    inner = x.shape[-1] // groups
    merged = _groups_per_block(inner, groups)
    blocks = groups // merged
    near, take, out = _neighbors(x, blocks, (3, 3, 3), stride, (1, 1))
    dy = jnp.moveaxis(dy.reshape(*out, blocks, -1), -2, 0)
    dy = dy.reshape(blocks, -1, dy.shape[-1])

    def product(_, position: Array):
        return None, jnp.einsum("nmc,nmk->nck", take(near, position), dy)

    dw = jax.lax.scan(product, None, _tap_positions(3, 3))[1]
    dw = dw.reshape(9, blocks, 3, merged, inner, merged, -1)
    # Of a block's product only the diagonal is a gradient; products between different
    # groups are discarded.
    dw = jnp.einsum("anlgigk->alingk", dw)
    return dw.reshape(3, 3, 3, inner, -1)


def _groups_per_block(inner: int, groups: int) -> int:
    """Number of groups per block."""
    enough = (n for n in range(1, groups) if groups % n == 0 and n * inner >= NARROWEST)
    return next(enough, groups)


def _neighbors(
    x: Array,
    blocks: int,
    taps: tuple[int, ...],
    stride: int,
    pad: tuple[int, int],
):
    """Concatenates the inputs of the taps along w; also returns how to take a tap.

    Returns:
        The padded array (n b s h w' taps*c); a function of it and of (i, j), which
        returns (n b*s'*h'*w' taps*c); the shape (b s' h' w').
    """
    grid = zip(x.shape[1:4], taps, strict=True)
    out = [(size + sum(pad) - k) // stride + 1 for size, k in grid]
    deep, high, wide = ((size - 1) * stride + 1 for size in out)
    x = jnp.moveaxis(x.reshape(*x.shape[:4], blocks, -1), -2, 0)
    x = jnp.pad(x, ((0, 0), (0, 0), pad, pad, pad, (0, 0)))
    # The innermost spatial axis: three taps in one product of three times the width,
    # for a copy of the input made once instead of one per tap.
    shifted = [x[..., j : j + wide : stride, :] for j in range(taps[2])]
    near = jnp.concatenate(shifted, axis=-1)

    def take(near: Array, position: Array) -> Array:
        start = (0, 0, position[0], position[1], 0, 0)
        size = (*near.shape[:2], deep, high, *near.shape[4:])
        part = jax.lax.dynamic_slice(near, start, size)[:, :, ::stride, ::stride]
        return part.reshape(blocks, -1, near.shape[-1])

    return near, take, (x.shape[1], *out)


def _tap_positions(deep: int, high: int) -> Array:
    """All (i, j) in the order of a kernel."""
    return jnp.array(list(np.ndindex(deep, high)))
