"""A 1D CNN over anything that has a time axis."""

import math
from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, DataError
from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.types import Array, Tokens

FRAME_CHANNELS = (16, 32, 64)


class SignalConv(nn.Module):
    """Blocks of a convolution over time, normalized within each step.

        x = Pool(Dropout(ReLU(LN(Conv(x, 3)))))     one block          (1)

    Frames first become one vector each: three convolutions over height and width, each
    halving both, with ReLU, and a mean over what is left.

    Parameters: `embed` (for ids), `frame_conv_<i>` (for frames), `conv_<i>` and
    `norm_<i>`.

    Attributes:
        hidden_dim: of the tokens, d.
        pools: for each block, how many steps become one token, their mean; 1 keeps
            all. Its length is the number of blocks.
        kernel_size: size of the convolutions over time, in steps.
        dropout: after each block.
        vocab_size: number of ids, for sequences of ids.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        OF-CMAER-CAT, Eq. 1.
    Deviation:
        The paper names CNN encoders and gives no sizes: two blocks of kernel 3
        without pooling are ours. Masked steps are zeros to every convolution.
    """

    hidden_dim: int = 128
    pools: tuple[int, ...] = (1, 1)
    kernel_size: int = 3
    dropout: float = 0.1
    vocab_size: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Maps a sequence to tokens (b n d), n = t divided by all `pools`.

        Args:
            values: (b t) int ids, (b t f) features, or (b t h w c) frames; unsigned
                integers are pixels 0..255.
            mask: (b t) bool. A token is real if a step of its window is.
            train: drop out.

        Raises:
            ConfigError: ids without a `vocab_size`, or a pool below 1.
            DataError: there are fewer steps than one token needs.
        """
        self._check(values)
        x = self._features(values, mask)
        for i, pool in enumerate(self.pools):
            x = self._convolve(
                zero_masked(x, mask), self.hidden_dim, (self.kernel_size,), f"conv_{i}"
            )
            x = layer_norm(self.dtype, f"norm_{i}")(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
            x, mask = mean_pool(x, mask, pool)
        return Tokens(zero_masked(x, mask), mask)

    def _features(self, values: Array, mask: Array) -> Array:
        """What the first convolution over time sees, (b t f) float."""
        x = zero_masked(jnp.asarray(values), mask)
        if values.ndim == 2:
            return nn.Embed(self.vocab_size, self.hidden_dim, self.dtype, name="embed")(
                x
            )
        if jnp.issubdtype(x.dtype, jnp.integer):
            x = x / jnp.float32(255)
        if values.ndim < 5:
            return einops.rearrange(x, "b t ... -> b t (...)")
        b = len(x)
        x = einops.rearrange(x, "b t h w c -> (b t) h w c")
        for i, channels in enumerate(FRAME_CHANNELS):
            x = nn.relu(self._convolve(x, channels, (3, 3), f"frame_conv_{i}", 2))
        return einops.reduce(x, "(b t) h w c -> b t c", "mean", b=b)

    def _convolve(
        self,
        x: Array,
        features: int,
        sizes: tuple[int, ...],
        name: str,
        stride: int = 1,
    ) -> Array:
        """A convolution over the axes before the last, starting as PyTorch's does.

        Its bias matters: without one, normalizing a single channel would leave no more
        than its sign.
        """
        start = torch_uniform(math.prod(sizes) * x.shape[-1])
        convolve = nn.Conv(
            features,
            sizes,
            (stride,) * len(sizes),
            dtype=self.dtype,
            kernel_init=start,
            bias_init=start,
            name=name,
        )
        return convolve(x)

    def _check(self, values: Array) -> None:
        ids = jnp.issubdtype(values.dtype, jnp.integer)
        if values.ndim == 2 and not (ids and self.vocab_size > 0):
            raise ConfigError(
                "C27",
                f"signal_conv was given (b t) {values.dtype} with vocabulary="
                f"{self.vocab_size}.",
                "ids need the size of their vocabulary; features need a third axis",
            )
        whole = math.prod(self.pools)
        if whole < 1:
            raise ConfigError("C10", f"pools={self.pools} of signal_conv is below 1.")
        if values.shape[1] < whole:
            raise DataError(
                "D13",
                f"a sequence has {values.shape[1]} steps; signal_conv with pools="
                f"{self.pools} makes one token of {whole}.",
                "give longer sequences, or smaller `pools`",
            )


def mean_pool(x: Array, mask: Array, size: int) -> tuple[Array, Array]:
    """Means over the real steps of whole windows, and which windows have any.

    Args:
        x: (b t d).
        mask: (b t) bool.
        size: steps of a window; what remains at the end is left out.

    Returns:
        (b n d) and (b n), n = t // size.
    """
    if size == 1:
        return x, mask
    n = x.shape[1] // size
    windows = einops.rearrange(x[:, : n * size], "b (n size) d -> b n size d", n=n)
    real = einops.rearrange(mask[:, : n * size], "b (n size) -> b n size", n=n)
    return masked_mean(windows, real, axis=2), jnp.any(real, axis=2)
