"""Masked, cross-device batch normalization."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masked_batch_norm import batch_normalize
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array

MOMENTUM = 0.9
"""Decay of the running statistics."""

EPSILON = 1e-5


class BatchNorm(nn.Module):
    """Normalizes channels with the statistics of the valid positions of a batch.

        y = scale (x - mean) / sqrt(var + epsilon) + bias

    Training uses mean and var of the global batch: under jit every sum already spans
    it, otherwise the sums are added over `axis`, so uneven padding has no effect. The
    sums are float32 and var is computed around the mean, not as E[x^2] - E[x]^2.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> x = jnp.array([[[1.0], [3.0], [jnp.nan]]])
        >>> mask = jnp.array([[True, True, False]])
        >>> layer = mmf.layers.BatchNorm()
        >>> y, variables = layer.init_with_output(
        ...     jax.random.key(0), x, mask, train=True
        ... )
        >>> print(np.asarray(y).round(2))
        [[[-1.]
          [ 1.]
          [ 0.]]]

    Attributes:
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the result; None keeps the input's.

    Reference:
        Ioffe and Szegedy 2015.
    Deviation:
        As in PyTorch, which the papers use: training normalizes with the biased
        variance, the running variance is unbiased. A batch without valid positions
        leaves the running statistics unchanged.
    """

    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
        """Normalizes `x`.

        Args:
            x: (... c).
            mask: bool, broadcastable from the left over the leading axes of `x`.
            train: Use the statistics of the batch and update the running ones.

        Returns:
            The shape of `x`; exactly 0 where the mask is False.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        old_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        old_var = self.variable("batch_stats", "var", jnp.ones, channels)

        if train:
            # init runs outside pmap, where the axis does not exist.
            axis = None if self.is_initializing() else self.axis
            result: Any = batch_normalize(x, mask, scale, bias, EPSILON, axis)
            y, mean, var, count = result
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                rate = jnp.where(count > 0, 1 - MOMENTUM, 0)
                _update(old_mean, mean, rate)
                _update(old_var, unbiased, rate)
        else:
            rate = jax.lax.rsqrt(old_var.value + EPSILON) * scale
            y = zero_masked((x - old_mean.value) * rate + bias, mask)
        return y.astype(self.dtype or x.dtype)


def _update(variable: Any, value: Array, rate: Array) -> None:
    """Updates a running average with `value`."""
    old = variable.value
    variable.value = (old + rate * (value - old)).astype(old.dtype)
