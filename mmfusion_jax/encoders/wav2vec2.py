"""Wav2Vec 2.0: a waveform to contextual vectors."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.attention import dense
from mmfusion_jax.layers.transformer import TransformerLayer, layer_norm
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.types import Array, Tokens

gelu = functools.partial(nn.gelu, approximate=False)
kaiming = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


class Wav2Vec2(nn.Module):
    """Convolutions over samples, then post-norm transformer layers over frames.

        x_0 = gelu(GN(Conv(s))),  x_i = gelu(Conv(x_{i-1}))
        z = W LN(x) + b
        z_0 = LN(z + gelu(Conv_place(z)))
        z_l = TransformerLayer_l(z_{l-1})

    The defaults are those of wav2vec2-base, a frame for every 320 samples. Parameters:
    `conv_{i}`, `conv_norm`, `project_norm`, `project`, `place`, `norm`, `layer_{i}`.

    Attributes:
        hidden_dim: of the tokens, d.
        num_layers: number of layers.
        num_heads: of each layer.
        mlp_dim: width inside the feed-forward networks.
        channels: of every convolution over samples.
        kernels: their sizes.
        strides: their strides.
        pos_conv_kernel: size of the convolution that tells where a frame is.
        pos_conv_groups: its groups.
        standardize: bring the real samples to mean 0 and variance 1, as the weights
            expect.
        group_norm_includes_padding: statistics of GN count padding, as in the released
            code.
        dropout: on z, z_0, attention weights, hidden layers and what the layers add.
        epsilon: of the normalizations.
        dtype: type of the computation; None for float32.

    Reference:
        Baevski et al. 2020; Hetero-Fusion-Net, Sec. 5.1.
    Deviation:
        GN has one group for each channel, so its statistics run over time; in the
        released code they count the zeros that pad a waveform, so that its vectors
        depend on the batch it is in. Ours are those of the waveform alone.
    """

    hidden_dim: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    channels: int = 512
    kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    standardize: bool = True
    group_norm_includes_padding: bool = False
    dropout: float = 0.1
    epsilon: float = 1e-5
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes waveforms.

        Args:
            values: (b t) or (b t 1) samples, floats, 16,000 a second.
            mask: (b t) bool.
            train: drop out.

        Returns:
            Tokens (b n d), 0 where masked; a frame is real if all the samples it is
            made of are.

        Raises:
            ConfigError: if the values are no samples, or too few for one frame.
        """
        x = zero_masked(self._checked(values), mask)
        if self.standardize:
            x = zero_masked(_standardized(x, mask), mask)
        x, mask = self._frames(x[..., None].astype(self.dtype or x.dtype), mask)
        x = layer_norm(self.dtype, "project_norm", self.epsilon)(x)
        start = nn.initializers.normal(0.02)
        x = dense(self.hidden_dim, start, dtype=self.dtype, name="project")(x)
        drop = nn.Dropout(self.dropout, deterministic=not train)
        x = zero_masked(drop(x), mask)
        place = PositionalConv(
            self.pos_conv_kernel, self.pos_conv_groups, self.dtype, name="place"
        )
        x = layer_norm(self.dtype, "norm", self.epsilon)(x + gelu(place(x)))
        tokens = Tokens(drop(x), mask)
        for i in range(self.num_layers):
            layer = TransformerLayer(
                self.num_heads,
                mlp_dim=self.mlp_dim,
                attention_dropout=self.dropout,
                relu_dropout=self.dropout,
                residual_dropout=self.dropout,
                dtype=self.dtype,
                pre_norm=False,
                activation=gelu,
                epsilon=self.epsilon,
                kernel_init=start,
                name=f"layer_{i}",
            )
            tokens = layer(tokens, train=train)
        return tokens.replace(values=zero_masked(tokens.values, mask))

    def _frames(self, x: Array, mask: Array) -> tuple[Array, Array]:
        """The last convolution's x (b n c), and which frames are real."""
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
            x, mask = convolve(x), whole(mask, size, stride)
            if i == 0:
                counted = (
                    jnp.ones_like(mask) if self.group_norm_includes_padding else mask
                )
                x = InstanceNormOverTime(self.epsilon, name="conv_norm")(x, counted)
            x = gelu(x)
        return x, mask

    def _checked(self, values: Array) -> Array:
        """`values` as (b t)."""
        if values.ndim == 3 and values.shape[-1] == 1:
            values = values[..., 0]
        if values.ndim != 2 or not jnp.issubdtype(values.dtype, jnp.floating):
            raise ConfigError(
                "C26",
                f"the encoder 'wav2vec2' reads samples of sound, but was given "
                f"{values.dtype} of shape {values.shape}.",
                "take the encoder 'vectors' or 'lstm' for features of sound",
            )
        need = 1
        for size, stride in zip(self.kernels[::-1], self.strides[::-1], strict=True):
            need = (need - 1) * stride + size
        if values.shape[1] < need:
            raise ConfigError(
                "C26",
                f"the sound has {values.shape[1]} samples; the encoder 'wav2vec2' "
                f"needs {need} for one frame.",
                "give longer sound",
            )
        return values


class InstanceNormOverTime(nn.Module):
    """Every channel of an example brought to mean 0 and variance 1 over its time.

        y = scale (x - mean_t) / sqrt(var_t + epsilon) + bias

    Attributes:
        epsilon: added to the variance.
    """

    epsilon: float

    @nn.compact
    def __call__(self, x: Array, mask: Array) -> Array:
        """Maps (b n c) to (b n c), 0 where masked; in float32 or wider."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        exact = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        y = _standardized(exact, mask, self.epsilon) * scale + bias
        return zero_masked(y, mask).astype(x.dtype)


class PositionalConv(nn.Module):
    """A long convolution in groups, whose kernel is a length times a direction.

        W_j = g_j V_j / |V_j|                    for every tap j of the kernel

    Parameters: `direction` V (size c/groups c), `length` g (size), `bias` (c).

    Attributes:
        size: of the kernel; an even one reaches one step less far ahead.
        groups: divides c.
        dtype: type of the computation.

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
        start = nn.initializers.normal(2 * (self.size * c) ** -0.5)
        shape = (self.size, c // self.groups, c)
        direction = self.param("direction", start, shape)
        norm = jnp.sqrt(jnp.sum(jnp.square(direction), axis=(1, 2)))
        length = self.param("length", lambda _: norm)
        bias = self.param("bias", nn.initializers.zeros, (c,))
        kernel = direction * (length / norm)[:, None, None]
        y = jax.lax.conv_general_dilated(
            x,
            kernel.astype(x.dtype),
            (1,),
            ((self.size // 2, (self.size - 1) // 2),),
            dimension_numbers=("NHC", "HIO", "NHC"),
            feature_group_count=self.groups,
        )
        return y + bias.astype(x.dtype)


def whole(mask: Array, size: int, stride: int) -> Array:
    """Which windows of a convolution without padding are real throughout, (b n)."""
    count = (mask.shape[1] - size) // stride + 1
    last = (count - 1) * stride + 1
    taps = [mask[:, i : i + last : stride] for i in range(size)]
    return jnp.all(jnp.stack(taps), axis=0)


def _standardized(x: Array, mask: Array, epsilon: float = 1e-7) -> Array:
    """`x` (b t ..) with mean 0 and variance 1 over the real steps of each example."""
    away = x - masked_mean(x, mask, axis=1)[:, None]
    variance = masked_mean(jnp.square(away), mask, axis=1)[:, None]
    return away * jax.lax.rsqrt(variance + epsilon)
