"""Pooling over clips (b s h w c)."""

import jax.numpy as jnp

from mmfusion_jax.ops.masking import keep
from mmfusion_jax.types import Array


def max_pool3d(x: Array, mask: Array) -> Array:
    """Maximum over windows of 3x3x3 with stride 2; what lies outside never wins.

    The window is a box, so it is taken as three maxima, one along each axis.

    Args:
        x: (b s h w c).
        mask: (b s) bool; masked steps count as outside.

    Returns:
        (b ceil(s/2) ceil(h/2) ceil(w/2) c); 0 at the steps where `mask[:, ::2]` is
        False.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    x = jnp.where(mask[:, :, None, None, None], x, lowest)
    for axis in (1, 2, 3):
        x = _halve(x, axis, lowest)
    return keep(x, mask[:, ::2])


def _halve(x: Array, axis: int, lowest: Array) -> Array:
    """Maximum over windows of 3 with stride 2 along one axis."""
    length = (x.shape[axis] + 1) // 2
    padding = [(0, 0)] * x.ndim
    padding[axis] = (1, 1)
    padded = jnp.pad(x, padding, constant_values=lowest)
    first, second, third = (
        padded[(slice(None),) * axis + (slice(i, i + 2 * length - 1, 2),)]
        for i in range(3)
    )
    return jnp.maximum(jnp.maximum(first, second), third)
