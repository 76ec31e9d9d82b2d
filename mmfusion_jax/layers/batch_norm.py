"""Batch normalization that sees only what is real, and all of it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masked_batch_norm import batch_normalize
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array


class BatchNorm(nn.Module):
    """Normalizes channels with the statistics of the real positions of a batch.

        y = scale (x - mean) / sqrt(var + epsilon) + bias

    Training takes mean and var of the global batch: under jit every sum already spans
    it, under pmap the sums are added over `axis`, so uneven padding changes nothing.
    The sums are float32 and var is taken around the mean, not as E[x^2] - E[x]^2.

    Attributes:
        axis: pmap axis over which the batch is spread; None under jit.
        momentum: share of the old running value that stays.
        epsilon: added to the variance.
        dtype: type of the result; None keeps that of the input.

    Deviation:
        As in PyTorch, which the papers use: training normalizes with the biased
        variance, the running variance is the unbiased one. A batch without any real
        position leaves the running values as they are.
    """

    axis: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
        """Normalizes `x`.

        Args:
            x: (... c).
            mask: bool, broadcastable from the left over the leading axes of `x`.
            train: use the statistics of the batch and update the running ones.

        Returns:
            The shape of `x`; exactly 0 where the mask is False.
        """
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        old_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        old_var = self.variable("batch_stats", "var", jnp.ones, channels)

        if train:
            axis = None if self.is_initializing() else self.axis
            found: Any = batch_normalize(x, mask, scale, bias, self.epsilon, axis)
            y, mean, var, count = found
            if not self.is_initializing():
                unbiased = var * (count / jnp.maximum(count - 1, 1))
                fresh = jnp.where(count > 0, 1 - self.momentum, 0)
                _move(old_mean, mean, fresh)
                _move(old_var, unbiased, fresh)
        else:
            rate = jax.lax.rsqrt(old_var.value + self.epsilon) * scale
            y = zero_masked((x - old_mean.value) * rate + bias, mask)
        return y.astype(self.dtype or x.dtype)


def _move(variable: Any, value: Array, fresh: Array) -> None:
    """Moves a running value by the share `fresh` towards `value`."""
    old = variable.value
    variable.value = (old + fresh * (value - old)).astype(old.dtype)
