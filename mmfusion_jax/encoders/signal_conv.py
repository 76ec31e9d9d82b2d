"""1D CNN over sequences of any modality (OF-CMAER-CAT)."""

import math
from typing import Any, Literal

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, DataError, shown, suggest
from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.layers.option_path import given_option
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.option_types import Fraction, OptionalSize, Size, Sizes
from mmfusion_jax.types import Array, Tokens

FRAME_CHANNELS = (16, 32, 64)
FRAME_POOLINGS = ("mean", "flatten")


class SignalConv(nn.Module):
    """Blocks of convolution over time, layer normalization, dropout and pooling.

        x = Pool(Dropout(ReLU(LN(Conv(x, 3)))))     one block          (1)

    Frames are first mapped to one vector each: three convolutions over height and
    width with stride 2 and ReLU, and the mean over the positions or all of them.

    Parameters: `embed` (for ids), `frame_conv_<i>` (for frames), `conv_<i>` and
    `norm_<i>`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.SignalConv(hidden_dim=8, pools=(2, 1))
        >>> signal, mask = jnp.ones((2, 10, 4)), jnp.ones((2, 10), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), signal, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 5, 8)

    Attributes:
        hidden_dim: Width of the tokens, d.
        pools: For each block, the number of steps that are averaged to one token; 1
            keeps all. Its length is the number of blocks.
        kernel_size: Kernel size of the convolutions over time, in steps.
        dropout: Dropout rate after each block.
        vocab_size: Vocabulary size, for token ids.
        standardize_frames: Bring the pixels of every clip and channel to mean 0 and
            variance 1 over its valid frames.
        frame_pooling: "mean" of the positions of a frame, or "flatten" to keep where
            in the frame something is.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        OF-CMAER-CAT, Eq. 1; Sec. 4.1 for `standardize_frames`.
    Deviation:
        The paper has CNN encoders without sizes; two blocks with kernel 3 and without
        pooling are ours. All convolutions use zeros for masked steps. The paper only
        has "global pooling" to a sequence of vectors: "flatten" is another reading. The
        biases of the convolutions of frames start at 0 and not as PyTorch's. All three
        matter at the start: of the energy of the mean tokens of digits images, .0001
        differs between examples with PyTorch's biases and the mean over positions,
        .003 with standardized pixels and biases of 0, .08 with "flatten" too.
    """

    hidden_dim: Size = 128
    pools: Sizes = (1, 1)
    kernel_size: Size = 3
    dropout: Fraction = 0.1
    vocab_size: OptionalSize = 0
    standardize_frames: bool = False
    frame_pooling: Literal["mean", "flatten"] = "mean"
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Maps a sequence to tokens (b n d), n = t divided by all `pools`.

        Args:
            values: (b t) int token ids, (b t f) features, or (b t h w c) frames;
                unsigned integers are pixels 0..255.
            mask: (b t) bool. A token is valid if any step of its window is, and its
                window ends at or before the last valid step. An example with fewer
                valid steps than one token has is missing.
            train: Apply dropout.

        Raises:
            ConfigError: Token ids without a `vocab_size`, or a pool below 1.
            DataError: The sequence is too short for one token.
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
        """Input of the first convolution over time, (b t f) float."""
        x = zero_masked(jnp.asarray(values), mask)
        if values.ndim == 2:
            return nn.Embed(self.vocab_size, self.hidden_dim, self.dtype, name="embed")(
                x
            )
        if jnp.issubdtype(x.dtype, jnp.integer):
            x = x / jnp.float32(255)
        if values.ndim < 5:
            return einops.rearrange(x, "b t ... -> b t (...)")
        # The frames of all examples are one batch of images; masked ones are 0.
        b = len(x)
        if self.standardize_frames:
            x = standardized_frames(x, mask)
        x = einops.rearrange(x, "b t h w c -> (b t) h w c")
        for i, channels in enumerate(FRAME_CHANNELS):
            x = nn.relu(self._convolve_frames(x, channels, f"frame_conv_{i}"))
        if self.frame_pooling == "flatten":
            return einops.rearrange(x, "(b t) h w c -> b t (h w c)", b=b)
        return einops.reduce(x, "(b t) h w c -> b t c", "mean", b=b)

    def _convolve(
        self, x: Array, features: int, sizes: tuple[int, ...], name: str
    ) -> Array:
        """Convolution over time, with PyTorch's initialization.

        It needs a bias: without one, layer normalization of a single channel would
        leave only its sign.
        """
        init = torch_uniform(math.prod(sizes) * x.shape[-1])
        convolve = nn.Conv(
            features,
            sizes,
            dtype=self.dtype,
            kernel_init=init,
            bias_init=init,
            name=name,
        )
        return convolve(x)

    def _convolve_frames(self, x: Array, features: int, name: str) -> Array:
        """Convolution over height and width with stride 2, (b h w c)."""
        # Biases of 0: PyTorch's are as large as the signal after the first layer and
        # several times larger after the third, the same for every example.
        convolve = nn.Conv(
            features,
            (3, 3),
            (2, 2),
            dtype=self.dtype,
            kernel_init=torch_uniform(9 * x.shape[-1]),
            name=name,
        )
        return convolve(x)

    def _check(self, values: Array) -> None:
        if self.frame_pooling not in FRAME_POOLINGS:
            raise ConfigError(
                "C03",
                f"frame_pooling={shown(self.frame_pooling)} of encoder 'conv1d' is "
                "unknown.",
                suggest(self.frame_pooling, FRAME_POOLINGS),
            )
        ids = jnp.issubdtype(values.dtype, jnp.integer)
        if values.ndim == 2 and not (ids and self.vocab_size > 0):
            raise ConfigError(
                "C27",
                f"encoder 'conv1d' got {values.dtype.name} of shape {values.shape} "
                f"with {given_option(self, 'vocab_size')}.",
                "set vocab_size for token ids; features need a third axis",
            )
        needed = math.prod(self.pools)
        if needed < 1:
            raise ConfigError(
                "C10", f"{given_option(self, 'pools')} must be at least 1."
            )
        if values.shape[1] < needed:
            raise DataError(
                "D13",
                f"sequence too short: {values.shape[1]} steps, but conv1d with "
                f"{given_option(self, 'pools')} needs at least {needed:d} steps.",
                "use longer sequences, or smaller pools",
            )


def standardized_frames(x: Array, mask: Array) -> Array:
    """Brings every channel of every clip to mean 0 and variance 1.

    Args:
        x: (b t h w c).
        mask: (b t) bool; the statistics are those of the valid frames.

    Returns:
        (b t h w c); 0 in masked frames, and where a channel is constant.

    Reference:
        OF-CMAER-CAT, Sec. 4.1.
    """
    mean = lambda y: masked_mean(y, mask, axis=(1, 2, 3))[:, None, None, None]
    centered = zero_masked(x - mean(x), mask)
    # The epsilon is below the variance that two gray levels of 256 cause.
    return centered * jax.lax.rsqrt(mean(jnp.square(centered)) + 1e-6)


def mean_pool(x: Array, mask: Array, size: int) -> tuple[Array, Array]:
    """Averages the valid steps of each window; a window is valid if any step is.

    Args:
        x: (b t d).
        mask: (b t) bool.
        size: Steps per window. The window that an example ends in is dropped if it is
            incomplete, also where padding follows: the tokens of an example do not
            depend on the length of its batch.

    Returns:
        (b n d) and (b n), n = t // size.
    """
    if size == 1:
        return x, mask
    steps = 1 + jnp.arange(x.shape[1])
    length = jnp.max(steps * mask, axis=1, keepdims=True)
    mask = mask & (steps <= length // size * size)
    n = x.shape[1] // size
    windows = einops.rearrange(x[:, : n * size], "b (n size) d -> b n size d", n=n)
    valid = einops.rearrange(mask[:, : n * size], "b (n size) -> b n size", n=n)
    return masked_mean(windows, valid, axis=2), jnp.any(valid, axis=2)
