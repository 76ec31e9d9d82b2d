"""Grouped 3-D convolutions as batches of matrix products, one for a block of groups.

An array is (n b s h w c), n the blocks. A block is one group, or several neighbors
with zeros between them when a group alone has fewer than NARROWEST channels. The taps
along w lie side by side in the channels, which makes the products large enough.
"""

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.types import Array

NARROWEST = 16


def conv(x: Array, w: Array, stride: int, groups: int, pad: tuple[int, int]) -> Array:
    """The convolution, a sum over the taps along s and h.

    Args:
        x: (b s h w c).
        w: (i j l c/groups k).
        stride: along s, h and w.
        groups: divides c and k.
        pad: zeros before and after, along s, h and w.

    Returns:
        (b s' h' w' k).
    """
    deep, high, wide, inner = w.shape[:4]
    together = _together(inner, groups)
    blocks = groups // together
    near, take, out = _neighbors(x, blocks, w.shape[:3], stride, pad)

    kernel = w.reshape(deep * high, wide, inner, blocks, together, -1)
    own = jnp.eye(together, dtype=w.dtype)
    kernel = jnp.einsum("alingk,eg->anleigk", kernel, own)
    kernel = kernel.reshape(deep * high, blocks, wide * together * inner, -1)

    def add(y: Array, tap: tuple[Array, Array]):
        place, part = tap
        return y + jnp.einsum("nmc,nck->nmk", take(near, place), part), None

    zero = jnp.zeros((blocks, int(np.prod(out)), kernel.shape[-1]), x.dtype)
    y, _ = jax.lax.scan(add, zero, (_places(deep, high), kernel))
    return jnp.moveaxis(y.reshape(blocks, *out, -1), 0, -2).reshape(*out, -1)


def filter_gradient(x: Array, dy: Array, stride: int, groups: int) -> Array:
    """The gradient of a 3x3x3 kernel with padding 1.

    Args:
        x: (b s h w c).
        dy: (b s' h' w' k).
        stride: along s, h and w.
        groups: divides c and k.

    Returns:
        (3 3 3 c/groups k).
    """
    inner = x.shape[-1] // groups
    together = _together(inner, groups)
    blocks = groups // together
    near, take, out = _neighbors(x, blocks, (3, 3, 3), stride, (1, 1))
    dy = jnp.moveaxis(dy.reshape(*out, blocks, -1), -2, 0)
    dy = dy.reshape(blocks, -1, dy.shape[-1])

    def product(_, place: Array):
        return None, jnp.einsum("nmc,nmk->nck", take(near, place), dy)

    dw = jax.lax.scan(product, None, _places(3, 3))[1]
    dw = dw.reshape(9, blocks, 3, together, inner, together, -1)
    dw = jnp.einsum("anlgigk->alingk", dw)
    return dw.reshape(3, 3, 3, inner, -1)


def _together(inner: int, groups: int) -> int:
    """How many groups make a block."""
    enough = (n for n in range(1, groups) if groups % n == 0 and n * inner >= NARROWEST)
    return next(enough, groups)


def _neighbors(
    x: Array,
    blocks: int,
    taps: tuple[int, ...],
    stride: int,
    pad: tuple[int, int],
):
    """What the taps along w see, side by side, and how to take one tap of s and h.

    Returns:
        The padded array (n b s h w' taps*c); a function of it and of (i, j), to
        (n b*s'*h'*w' taps*c); the shape (b s' h' w').
    """
    grid = zip(x.shape[1:4], taps, strict=True)
    out = [(size + sum(pad) - k) // stride + 1 for size, k in grid]
    deep, high, wide = ((size - 1) * stride + 1 for size in out)
    x = jnp.moveaxis(x.reshape(*x.shape[:4], blocks, -1), -2, 0)
    x = jnp.pad(x, ((0, 0), (0, 0), pad, pad, pad, (0, 0)))
    shifted = [x[..., j : j + wide : stride, :] for j in range(taps[2])]
    near = jnp.concatenate(shifted, axis=-1)

    def take(near: Array, place: Array) -> Array:
        start = (0, 0, place[0], place[1], 0, 0)
        size = (*near.shape[:2], deep, high, *near.shape[4:])
        part = jax.lax.dynamic_slice(near, start, size)[:, :, ::stride, ::stride]
        return part.reshape(blocks, -1, near.shape[-1])

    return near, take, (x.shape[1], *out)


def _places(deep: int, high: int) -> Array:
    """All (i, j) in the order of a kernel."""
    return jnp.array(list(np.ndindex(deep, high)))
