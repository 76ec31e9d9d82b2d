"""Max pooling over clips (b s h w c)."""

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array

# w first and s last. The backward pass goes the other way, and takes the first maximum
# along s, then h, then w, which is the first one of the window in memory order, as in
# PyTorch.
AXES = (3, 2, 1)


def max_pool(x: Array, mask: Array) -> Array:
    """Maximum over windows of 3x3x3 with stride 2; padding is ignored.

    Args:
        x: (b s h w c).
        mask: (b s) bool; masked steps are padding.

    Returns:
        (b ceil(s/2) ceil(h/2) ceil(w/2) c); 0 at the steps where `mask[:, ::2]` is
        False.

    Deviation:
        The gradient of equal values goes to the first one, as in PyTorch.
    """
    pooled = _max_pool(jnp.where(mask[:, :, None, None, None], x, -jnp.inf))
    return zero_masked(pooled, mask[:, ::2])


# Forward and backward pass of a clip of 30x56x56x64 on one CPU core: 235 ms with
# `reduce_window`, 52 ms with autodiff of the three maxima, 34 ms with this
# backward pass.
# Autodiff of `jnp.maximum` would also divide the gradient between equal values, which
# are common after a ReLU. Saved are the results after each axis, together less than
# twice the input.
def _definition(x: Array) -> Array:
    """Maximum over a window as three maxima, one along each axis."""
    for axis in AXES:
        # A selection and not `jnp.maximum`, whose tangent is the mean of equal values.
        before, here, after = _windows(x, axis)
        y = _halve(jax.lax.stop_gradient(x), axis)
        x = jnp.where(before == y, before, jnp.where(here == y, here, after))
    return x


def _forward(x: Array) -> tuple[Array, list[Array]]:
    stages = [x]
    for axis in AXES:
        stages.append(_halve(stages[-1], axis))
    # XLA for TPU has one operation for windows and one for its gradient. With both, the
    # stem of the 3D ResNeXt with its normalization, this pooling and their gradients,
    # compiled alone, has 21.0 GB of bytes accessed according to XLA (16 clips of
    # 30x224x224 in bf16) instead of 59.5 GB, because slices of pairs have padded
    # layouts. The other stages are not used there, and so not computed.
    y = jax.lax.platform_dependent(
        x, stages[-1], tpu=lambda x, _: _window_max(x), default=lambda _, y: y
    )
    return y, stages[1:]


def _backward(arguments: tuple[Array], stages: list[Array], dy: Array) -> tuple[Array]:
    of_window = lambda dy, x, *_: jax.vjp(_window_max, x)[1](dy)[0]
    return (
        jax.lax.platform_dependent(
            dy, *arguments, *stages, tpu=of_window, default=_unpool
        ),
    )


def _unpool(dy: Array, *stages: Array) -> Array:
    """Gradient of the three maxima, from the last axis to the first."""
    for i, axis in reversed(list(enumerate(AXES))):
        dy = _unhalve(stages[i], stages[i + 1], dy, axis)
    return dy


def _window_max(x: Array) -> Array:
    """Maximum over a window as one operation."""
    sizes, strides = (1, 3, 3, 3, 1), (1, 2, 2, 2, 1)
    padding = ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, sizes, strides, padding)


_max_pool = with_backward(_definition, _backward, _forward)


def _halve(x: Array, axis: int) -> Array:
    """Maximum over windows of 3 with stride 2 along one axis."""
    before, here, after = _windows(x, axis)
    return jnp.maximum(jnp.maximum(before, here), after)


def _unhalve(x: Array, y: Array, dy: Array, axis: int) -> Array:
    """Gradient of `y = _halve(x, axis)`: `dy` at the position of the maximum."""
    before, here, after = _windows(x, axis)
    first = before == y
    second = (here == y) & ~first
    third = (after == y) & ~first & ~second
    previous = _shift(jnp.where(first, dy, 0), axis, -1, 0.0)
    # Position 2q is only in window q; 2q + 1 is the last of window q and the first of
    # window q + 1. Interleaving two arrays avoids a scatter.
    pair = [jnp.where(second, dy, 0), jnp.where(third, dy, 0) + previous]
    size = x.shape[axis]
    dx = jnp.stack(pair, axis + 1).reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    return jax.lax.slice_in_dim(dx, 0, size, axis=axis)


def _windows(x: Array, axis: int) -> tuple[Array, Array, Array]:
    """Returns the elements 2q - 1, 2q, 2q + 1 of every window; -inf outside."""
    if x.shape[axis] % 2:
        x = _padded(x, axis, (0, 1), -jnp.inf)
    pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
    here, after = (
        jax.lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)
    )
    return _shift(after, axis, 1, -jnp.inf), here, after


def _shift(x: Array, axis: int, by: int, fill: float) -> Array:
    """Shifts `x` by one element along `axis`, up for 1 and down for -1."""
    start, stop = (0, -1) if by > 0 else (1, None)
    x = jax.lax.slice_in_dim(x, start, stop, axis=axis)
    return _padded(x, axis, (1, 0) if by > 0 else (0, 1), fill)


def _padded(x: Array, axis: int, width: tuple[int, int], fill: float) -> Array:
    """Pads `x` with `fill` along one axis."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = width
    return jnp.pad(x, widths, constant_values=fill)
