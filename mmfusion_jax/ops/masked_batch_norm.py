"""Batch normalization over valid positions, with a backward pass by hand."""

import functools

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.context_mesh import context_devices, replicate
from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array


# jit inside a model, so that all layers of one shape share one traced and lowered
# function. With that of the convolutions it took the step of the 3D ResNeXt on 2 CPU
# cores from 2.45 to 1.97 s, and the program is smaller to compile.
@functools.partial(jax.jit, static_argnums=(4, 5))
def batch_normalize(
    x: Array, mask: Array, scale: Array, bias: Array, epsilon: float, axis: str | None
) -> tuple[Array, Array, Array, Array]:
    """Normalizes channels with their statistics over all other axes.

        y = scale (x - mean) / sqrt(var + epsilon) + bias

    The backward pass saves `x` only; reverse-mode autodiff would keep three times as
    much. Over a split batch each pass communicates once: with `axis`, and under jit if
    the mesh is the context (`jax.set_mesh`).

    Args:
        x: (... c).
        mask: bool, broadcastable from the left over the leading axes of `x`.
        scale: (c).
        bias: (c).
        epsilon: Added to the variance.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.

    Returns:
        y, in the shape of `x`, 0 where the mask is False; the mean and the biased
        variance, both (c), and their number of positions, (), over the global batch.
        Only y has a gradient.

    Reference:
        Ioffe and Szegedy 2015; the moments of several devices as in Chan, Golub and
        LeVeque 1983.
    """
    definition = functools.partial(_definition, epsilon=epsilon, axis=axis)
    forward = functools.partial(_forward, epsilon=epsilon, axis=axis)
    backward = functools.partial(_backward, axis=axis)
    return with_backward(definition, backward, forward)(x, mask, scale, bias)


# Autodiff keeps about three arrays of the size of x; this backward pass keeps x and
# computes the rest again. When it was introduced, the memory of a training step fell by
# a fifth. It is dx = scale rate (dy - mean(dy) - x_hat mean(dy x_hat)) with means over
# the global batch, hence the sums over devices in it. dscale and dbias remain those of
# this device: the step averages all gradients.
def _forward(x, mask, scale, bias, *, epsilon, axis):
    mean, var, count = _moments(x, mask, axis)
    rate = jax.lax.rsqrt(var + epsilon)
    centered = x.astype(_exact(x)) - mean
    y = zero_masked(centered * (rate * scale) + bias, mask).astype(x.dtype)
    return (y, mean, var, count), (mean, rate, count)


def _definition(x, mask, scale, bias, *, epsilon, axis):
    # Masked before any product: NaN there times a gradient of 0 would be NaN.
    x = zero_masked(x, mask)
    (y, *moments), _ = _forward(x, mask, scale, bias, epsilon=epsilon, axis=axis)
    return y, *jax.lax.stop_gradient(moments)


def _backward(arguments, saved, cotangents, *, axis):
    (x, mask, scale, _), (mean, rate, count) = arguments, saved
    dy, x_exact = cotangents[0].astype(_exact(x)), x.astype(_exact(x))
    dbias = _sum(dy, mask)
    # sum(dy x_hat) without an array of x_hat.
    dscale = (_sum(dy * x_exact, mask) - mean * dbias) * rate
    total_dbias, total_dscale = _totals([dbias, dscale], axis)
    inverse_count = 1 / jnp.maximum(count, 1)
    normalized = (x_exact - mean) * rate
    dx = dy - total_dbias * inverse_count - normalized * (total_dscale * inverse_count)
    dx = zero_masked(dx * (scale * rate), mask).astype(x.dtype)
    return dx, None, dscale.astype(scale.dtype), dbias.astype(scale.dtype)


def _moments(x: Array, mask: Array, axis: str | None) -> tuple[Array, Array, Array]:
    """Mean, biased variance and number of the valid positions of all devices."""
    # Each device centers on its own mean, so that the devices communicate once per
    # layer. Their moments are gathered, since a sum over devices of count mean^2 would
    # lose as many digits as E[x^2].
    devices = context_devices()
    if axis is not None:
        gathered = jax.lax.all_gather(_packed_moments(x, mask), axis)
    elif devices > 1 and x.ndim > 1 and len(x) % devices == 0:
        # Under jit the rows of a device are a slice of the leading axis.
        split = lambda a: a.reshape(devices, -1, *a.shape[1:])
        mask = jnp.broadcast_to(mask, (len(x), *mask.shape[1:]))
        own = jax.vmap(_packed_moments)(split(x), split(mask))
        # Gathered as a sum to which each device adds its row, because the compiler
        # merges sums of several layers, such as those of two encoders, and no gathers.
        is_own = jnp.eye(devices, dtype=bool)[..., None]
        gathered = replicate(jnp.sum(jnp.where(is_own, own, 0), axis=1))
    else:
        mean, squares, count = _own_moments(x, mask)
        return mean, squares / jnp.maximum(count, 1), count
    channels = x.shape[-1]
    means, squares, counts = jnp.split(gathered, [channels, 2 * channels], axis=1)
    count = jnp.sum(counts)
    mean = jnp.sum(counts * means, axis=0) / jnp.maximum(count, 1)
    # Chan, Golub and LeVeque 1983: squares around the means of the devices, and those
    # of the means around the mean.
    squares = jnp.sum(squares + counts * jnp.square(means - mean), axis=0)
    return mean, squares / jnp.maximum(count, 1), count


def _packed_moments(x: Array, mask: Array) -> Array:
    """Mean, sum of squares around it, and number of one device, in one array."""
    mean, squares, count = _own_moments(x, mask)
    return jnp.concatenate([mean, squares, count[None]])


def _own_moments(x: Array, mask: Array) -> tuple[Array, Array, Array]:
    """Mean, sum of squares around it, and number of the valid positions of `x`."""
    count = _count(mask, x.shape).astype(_exact(x))
    mean = _sum(x, mask) / jnp.maximum(count, 1)
    # Around the mean, not E[x^2] - E[x]^2: in float32 that gives 0.00977 instead of
    # 0.01026 for the variance of features with mean 100 and deviation 0.1.
    return mean, _sum(jnp.square(x.astype(_exact(x)) - mean), mask), count


def _exact(x: Array):
    return jnp.promote_types(x.dtype, jnp.float32)


def _totals(arrays: list[Array], axis: str | None) -> list[Array]:
    """Sums arrays (c) over the devices, in one reduction."""
    if axis is None:
        return arrays
    return [*jax.lax.psum(jnp.stack(arrays), axis)]


def _sum(x: Array, mask: Array) -> Array:
    """Sums over the valid positions.

    The axes that the mask does not have are summed first, before masking: a masked
    row, whatever its values, is then dropped as one number per channel.
    """
    inner = tuple(range(mask.ndim, x.ndim - 1))
    # NaN in a masked row makes the sum of that row NaN, which the mask then drops; no
    # array of the size of x has to be masked.
    rows = jnp.sum(x, axis=inner, dtype=_exact(x))
    return jnp.sum(zero_masked(rows, mask), axis=tuple(range(mask.ndim)))


def _count(mask: Array, shape: tuple[int, ...]) -> Array:
    """Number of valid positions per channel."""
    sizes = mask.shape + (1,) * (len(shape) - 1 - mask.ndim)
    repeats = 1
    for size, full in zip(sizes, shape[:-1], strict=True):
        repeats *= full // max(size, 1)
    return jnp.sum(mask, dtype=jnp.int32) * repeats
