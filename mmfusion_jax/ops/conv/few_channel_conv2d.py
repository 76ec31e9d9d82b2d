"""3x3 convolution with few channels and large images, fast on CPU.

XLA's CPU convolution becomes a matrix product with few rows and columns. With few
channels, sums of shifted channels are several times as fast; their kernel gradient is
a product over the rows of the channels.
"""

import functools
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.types import Array

SIDE = 3
# The program has nine terms for every pair of channels.
MAX_UNROLLED_CHANNELS = 8
"""Maximum number of input or output channels for which the sums are unrolled."""


def convolve2d(x: Array, w: Array) -> Array:
    """3x3 convolution without padding.

    Args:
        x: (b c h w).
        w: (3 3 c k).

    Returns:
        (b k h-2 w-2), in the dtype of `x`.
    """
    return _conv(x, w) if max(w.shape[2:]) <= MAX_UNROLLED_CHANNELS else _plain(x, w)


def _plain(x: Array, w: Array) -> Array:
    """XLA's convolution."""
    axes = ("NCHW", "HWIO", "NCHW")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "VALID", dimension_numbers=axes)


def _sums(x: Array, w: Array) -> Array:
    """Sums over channels and taps; those of one row of the kernel first."""
    # A row of the kernel is summed first: one chain of 9 c additions would be bound by
    # their latency, while these chains of 3 are independent.
    height, width = x.shape[2] - SIDE + 1, x.shape[3] - SIDE + 1
    weights = w.astype(jnp.promote_types(x.dtype, jnp.float32))[..., None, None]

    def row(c: int, p: int) -> Array:
        return _sum(
            weights[p, q, c] * x[:, c, None, p : p + height, q : q + width]
            for q in range(SIDE)
        )

    total = _sum(row(c, p) for c in range(x.shape[1]) for p in range(SIDE))
    return total.astype(x.dtype)


_sum: Callable[..., Array] = functools.partial(functools.reduce, operator.add)


def _on_cpu(sums: Callable, plain: Callable, *arrays: Array):
    return jax.lax.platform_dependent(*arrays, cpu=sums, default=plain)


# JAX's gradient of these sums is a sum of padded planes for every term: 872 ms for an
# image of 512x512, channels 4, 6, 1. The backward pass below takes 119 ms with the
# forward pass computed again, and XLA's convolution would take six times as long as the
# sums (forward 37 instead of 6 ms). Milliseconds of CPU time. Saved are x and w.
def _backward(
    arguments: tuple[Array, Array], saved: tuple[()], dy: Array
) -> tuple[Array, Array]:
    del saved

    def sums(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
        # Without padding the output is smaller, so dy is padded for the input gradient.
        edge = (SIDE - 1, SIDE - 1)
        padded = jnp.pad(dy, ((0, 0), (0, 0), edge, edge))
        dx = _sums(padded, w[::-1, ::-1].swapaxes(2, 3))
        return dx, _kernel_gradient(x, dy).astype(w.dtype)

    def plain(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
        return jax.vjp(_plain, x, w)[1](dy)

    return _on_cpu(sums, plain, *arguments, dy)


def _kernel_gradient(x: Array, dy: Array) -> Array:
    """One product per row of the image, with three shifts per operand: (3 3 c k)."""
    # One product per row takes 6.7 ms for the 4-to-6 convolution above, one product per
    # plane 12.7 ms and elementwise sums 39.8 ms.
    height = dy.shape[2]
    up = jnp.stack([x[:, :, p : p + height] for p in range(SIDE)])
    left = jnp.stack(
        [jnp.pad(dy, ((0, 0), (0, 0), (0, 0), (q, SIDE - 1 - q))) for q in range(SIDE)]
    )
    exact = jnp.promote_types(x.dtype, jnp.float32)
    rows = jnp.einsum("pbchw,qbkhw->bhpcqk", up, left, preferred_element_type=exact)
    return jnp.sum(rows, axis=(0, 1)).swapaxes(1, 2)


_conv = with_backward(functools.partial(_on_cpu, _sums, _plain), _backward)
