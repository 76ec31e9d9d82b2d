"""Wav2Vec 2.0 audio encoder."""

from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.attention import dense
from mmfusion_jax.layers.option_path import given_option
from mmfusion_jax.layers.transformer import exact_gelu, layer_norm, transformer_stack
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.option_types import (
    Depth,
    Divides,
    Epsilon,
    Fraction,
    Heads,
    Size,
    Sizes,
)
from mmfusion_jax.types import Array, Tokens

# As in the released code. It keeps the scale of the activations through convolutions
# over samples, of which only the first is normalized.
kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Wav2Vec2(nn.Module):
    """Convolutions over samples, then post-norm transformer layers over frames.

        x_0 = gelu(GN(Conv(s))),  x_i = gelu(Conv(x_{i-1}))
        z = W LN(x) + b
        z_0 = LN(z + gelu(Conv_position(z)))
        z_l = TransformerLayer_l(z_{l-1})

    The defaults are those of wav2vec2-base, one frame per 320 samples. Parameters:
    `conv_{i}`, `conv_norm`, `project_norm`, `project`, `place`, `norm`, `layer_{i}`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.Wav2Vec2(
        ...     hidden_dim=8,
        ...     num_layers=1,
        ...     num_heads=2,
        ...     mlp_dim=16,
        ...     channels=4,
        ...     kernels=(4, 2),
        ...     strides=(2, 2),
        ...     pos_conv_kernel=2,
        ...     pos_conv_groups=1,
        ... )
        >>> samples, mask = jnp.ones((2, 40)), jnp.ones((2, 40), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), samples, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 9, 8)

    Attributes:
        hidden_dim: Width of the tokens, d.
        num_layers: Number of layers.
        num_heads: Number of attention heads of each layer.
        mlp_dim: Hidden width of the feed-forward networks.
        channels: Channels of every convolution over samples.
        kernels: Kernel sizes of these convolutions.
        strides: Strides of these convolutions.
        pos_conv_kernel: Kernel size of the positional convolution, in frames; smaller
            for clips of less than 2.5 s without pretrained weights.
        pos_conv_groups: Groups of the positional convolution; divides `hidden_dim`.
        standardize: Standardize the valid samples, as the pretrained weights expect.
        group_norm_includes_padding: Include padding in the statistics of GN, as in the
            released code, for its outputs on padded batches.
        dropout: Dropout rate of z, z_0, attention weights, hidden layers and residual
            branches.
        epsilon: Epsilon of the normalizations.
        dtype: Dtype of the computation; None for float32.
        remat: Recompute the inside of a layer in the backward pass, see `apply_block`.

    Reference:
        Baevski et al. 2020; Hetero-Fusion-Net, Sec. 5.2.
    Deviation:
        GN has one group per channel, so its statistics are over time; in the released
        code they include the padding, so that the result depends on the other examples
        of the batch. Here they are over the unpadded waveform.
    """

    hidden_dim: Size = 768
    num_layers: Depth = 12
    num_heads: Heads = 12
    mlp_dim: Size = 3072
    channels: Size = 512
    kernels: Sizes = (10, 3, 3, 3, 3, 2, 2)
    strides: Sizes = (5, 2, 2, 2, 2, 2, 2)
    pos_conv_kernel: Size = 128
    pos_conv_groups: Annotated[Size, Divides("hidden_dim")] = 16
    standardize: bool = True
    group_norm_includes_padding: bool = False
    dropout: Fraction = 0.1
    epsilon: Epsilon = 1e-5
    dtype: Any = None
    remat: bool = False

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes waveforms.

        Args:
            values: (b t) or (b t 1) samples, floats, 16 kHz.
            mask: (b t) bool.
            train: Apply dropout.

        Returns:
            Tokens (b n d), 0 where masked; a frame is valid if all its samples are.

        Raises:
            ConfigError: The values are not samples, or too few for one frame.
        """
        x = zero_masked(self._checked(values), mask)
        # Padding is 0 after the standardization too, as in the released code. No valid
        # frame reads it, but GN does with `group_norm_includes_padding`.
        if self.standardize:
            x = zero_masked(_standardize(x, mask), mask)
        # Cast after the standardization, whose sums over time need float32.
        x, mask = self._frames(x[..., None].astype(self.dtype or x.dtype), mask)
        x = layer_norm(self.dtype, "project_norm", self.epsilon)(x)
        init = nn.initializers.normal(0.02)
        x = dense(self.hidden_dim, init, dtype=self.dtype, name="project")(x)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        # The positional convolution reads up to 64 frames on either side, also masked
        # ones.
        x = zero_masked(drop(x), mask)
        place = PositionalConv(
            self.pos_conv_kernel, self.pos_conv_groups, self.dtype, name="place"
        )
        x = layer_norm(self.dtype, "norm", self.epsilon)(x + exact_gelu(place(x)))
        tokens = transformer_stack(
            Tokens(drop(x), mask),
            self.num_layers,
            self.num_heads,
            train=train,
            dropout=self.dropout,
            relu_dropout=self.dropout,
            mlp_dim=self.mlp_dim,
            dtype=self.dtype,
            pre_norm=False,
            epsilon=self.epsilon,
            kernel_init=init,
            remat=self.remat,
        )
        return tokens.replace(values=zero_masked(tokens.values, mask))

    def _frames(self, x: Array, mask: Array) -> tuple[Array, Array]:
        """Applies the convolutions; returns frames (b n c) and their mask (b n)."""
        for i, (size, stride) in enumerate(
            zip(self.kernels, self.strides, strict=True)
        ):
            convolve = nn.Conv(
                self.channels,
                (size,),
                (stride,),
                "VALID",
                use_bias=False,
                dtype=self.dtype,
                kernel_init=kaiming,
                name=f"conv_{i}",
            )
            x, mask = convolve(x), valid_windows(mask, size, stride)
            # The base model normalizes only the first convolution.
            if i == 0:
                padded = self.group_norm_includes_padding
                norm = InstanceNormOverTime(self.epsilon, name="conv_norm")
                x = norm(x, jnp.ones_like(mask) if padded else mask)
            x = exact_gelu(x)
        return x, mask

    def _checked(self, values: Array) -> Array:
        """Returns `values` as (b t)."""
        if values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
        if values.ndim != 2 or not jnp.issubdtype(values.dtype, jnp.floating):
            raise ConfigError(
                "C26",
                "encoder 'wav2vec2' expects audio samples (b, t), got "
                f"{values.dtype.name} of shape {values.shape}.",
                "use encoder 'precomputed' or 'lstm' for acoustic features",
            )
        # The number of samples of one frame, from the last convolution to the first.
        needed = 1
        for size, stride in zip(self.kernels[::-1], self.strides[::-1], strict=True):
            needed = (needed - 1) * stride + size
        if values.shape[1] < needed:
            raise ConfigError(
                "C26",
                f"audio too short: {values.shape[1]} samples, but encoder 'wav2vec2' "
                f"with {given_option(self, 'kernels')} needs at least {needed:d}.",
                "use longer audio",
            )
        return values


class InstanceNormOverTime(nn.Module):
    """Standardizes every channel of an example over time.

        y = scale (x - mean_t) / sqrt(var_t + epsilon) + bias

    Attributes:
        epsilon: Added to the variance.
    """

    epsilon: Epsilon

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        """Maps (b n c) to (b n c), 0 where masked; computes in float32 or wider."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = _standardize(exact, mask, self.epsilon) * scale + bias
        return zero_masked(y, mask).astype(x.dtype)


class PositionalConv(nn.Module):
    """Grouped convolution with weight normalization.

        W_j = g_j V_j / |V_j|                    for every tap j of the kernel

    Parameters: `direction` V (size c/groups c), `length` g (size), `bias` (c).

    Attributes:
        size: Kernel size; an even kernel has one step less after the center.
        groups: Number of groups; divides c.
        dtype: Dtype of the computation.

    Reference:
        Baevski et al. 2020; weight normalization of Salimans and Kingma 2016.
    """

    size: int
    groups: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps (b n c) to (b n c)."""
        c = x.shape[-1]
        # The initializer of the released code.
        init = nn.initializers.normal(2 * (self.size * c) ** -0.5)
        shape = (self.size, c // self.groups, c)
        direction = self.param("direction", init, shape)
        norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=(1, 2)))
        # The first kernel is `direction` itself. The pretrained weights have both.
        length = self.param("length", lambda _: norm)
        bias = self.param("bias", nn.initializers.zeros, (c,))
        kernel = direction * (length / norm)[:, None, None]
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (1,),
            # The released code pads size // 2 on both sides and, if the size is even,
            # drops the last output.
            ((self.size // 2, (self.size - 1) // 2),),
            dimension_numbers=("NHC", "HIO", "NHC"),
            feature_group_count=self.groups,
        )
        return y + bias.astype(x.dtype)


def valid_windows(mask: Array, size: int, stride: int) -> Array:
    """Returns whether all steps in a window of a convolution are valid, (b n)."""
    count = (mask.shape[1] - size) // stride + 1
    last = (count - 1) * stride + 1
    taps = [mask[:, i : i + last : stride] for i in range(size)]
    return jnp.all(jnp.stack(taps), axis=0)


def _standardize(x: Array, mask: Array, epsilon: float = 1e-7) -> Array:
    """Standardizes `x` (b t ..) over the valid steps of each example."""
    centered = x - masked_mean(x, mask, axis=1)[:, None]
    variance = masked_mean(jnp.square(centered), mask, axis=1)[:, None]
    return centered * jax.lax.rsqrt(variance + epsilon)
