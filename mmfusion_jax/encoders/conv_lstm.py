"""Convolution over time, positional embeddings and a bidirectional LSTM (MEA)."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.encoders.image_conv import encode_frames
from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.layers.linear import stacked_xavier_normal, xavier_normal
from mmfusion_jax.layers.option_path import given_option, option_flag
from mmfusion_jax.layers.recurrent import LSTM
from mmfusion_jax.layers.transformer import sinusoid
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import OptionalSize, Size
from mmfusion_jax.types import Array, Tokens

POSITIONS = ("sinusoid", "learned", "none")


class ConvLSTM(nn.Module):
    """Encodes sequences of any modality to tokens of one width.

        Z = BiLSTM(conv(X) + PE)                                      (1)

    Parameters: `embed` (for ids), `frames` (with `frame_channels`), `conv`,
    `positions_table` (if learned), `lstm`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.ConvLSTM(hidden_dim=8)
        >>> features, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), features, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 5, 8)

    Attributes:
        hidden_dim: Width of the tokens, d; even, half for each direction.
        kernel_size: Kernel size of the convolution, in steps.
        positions: PE: "sinusoid" of positions 0, 1, ..., see `sinusoid`, "learned" or
            "none".
        vocab_size: Vocabulary size, for token ids.
        dtype: Dtype of the computation; None keeps the input's.
        frame_channels: Output channels of convolutions that reduce every frame of a
            video to a vector first, see `ImageConv`; () to flatten the pixels. For
            videos instead of the features that the paper reads.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.

    Reference:
        MEA, Sec. III-B, Eq. 1.
    Deviation:
        The convolution uses zeros for masked steps and as padding. The tokens are not
        scaled before the positions are added. The paper cites Vaswani et al. 2017 for
        PE: ours is that of their code and of MulT, all sines before all cosines; their
        text alternates them and divides i by h instead of h - 1. The paper has no
        initialization: ours is Xavier with biases of 0, since PyTorch's default biases
        are larger than the states of an untrained LSTM.
    """

    hidden_dim: Size = 40
    kernel_size: Size = 3
    positions: Literal["sinusoid", "learned", "none"] = "sinusoid"
    vocab_size: OptionalSize = 0
    dtype: Any = None
    frame_channels: tuple[Size, ...] = ()
    axis: str | None = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Maps a sequence to tokens (b t d).

        Args:
            values: (b t) int token ids, or (b t ...) features, flattened; unsigned
                integers are pixels 0..255.
            mask: (b t) bool.
            train: Use the statistics of the batch, with `frame_channels`.

        Raises:
            ConfigError: Token ids without a `vocab_size`, an odd `hidden_dim`, unknown
                positions, or no frames where `frame_channels` needs them.
        """
        self._check(values)
        x = zero_masked(self._features(values, mask, train), mask)
        x = nn.Conv(
            self.hidden_dim,
            (self.kernel_size,),
            dtype=self.dtype,
            kernel_init=xavier_normal,
            name="conv",
        )(x)
        # After the convolution, as in Eq. 1, and before masking, which the LSTM does
        # itself.
        x = x + self._positions(x.shape[1]).astype(x.dtype)
        lstm = LSTM(
            self.hidden_dim // 2,
            bidirectional=True,
            kernel_init=stacked_xavier_normal,
            dtype=self.dtype,
            bias_init=nn.initializers.zeros,
            name="lstm",
        )
        return lstm(Tokens(x, mask), train=train)

    def _features(self, values: Array, mask: Array, train: bool) -> Array:
        """Input of the convolution, (b t f) float."""
        if values.ndim == 2:
            ids = zero_masked(values, mask)
            return nn.Embed(self.vocab_size, self.hidden_dim, self.dtype, name="embed")(
                ids
            )
        if self.frame_channels:
            return encode_frames(
                values, mask, self.frame_channels, self.axis, self.dtype, train=train
            )
        x = values.reshape(*values.shape[:2], -1)
        if jnp.issubdtype(x.dtype, jnp.integer):
            x = x / jnp.float32(255)
        return x

    def _positions(self, t: int) -> Array:
        """PE, (t d), or 0."""
        if self.positions == "sinusoid":
            return jnp.asarray(sinusoid(t, self.hidden_dim, first=0))
        if self.positions == "none":
            return jnp.zeros(())
        init = nn.initializers.normal(0.02)
        return self.param("positions_table", init, (t, self.hidden_dim))

    def _check(self, values: Array) -> None:
        if self.positions not in POSITIONS:
            raise ConfigError(
                "C03",
                f"positions={shown(self.positions)} is unknown.",
                suggest(self.positions, POSITIONS),
            )
        if self.hidden_dim % 2:
            raise ConfigError(
                "C10",
                f"{given_option(self, 'hidden_dim')} must be even for "
                "a bidirectional LSTM.",
                option_flag(self, "hidden_dim", self.hidden_dim + 1),
            )
        ids = jnp.issubdtype(values.dtype, jnp.integer)
        if values.ndim == 2 and not (ids and self.vocab_size > 0):
            raise ConfigError(
                "C27",
                f"encoder 'conv_lstm' got {values.dtype.name} of shape {values.shape} "
                f"with {given_option(self, 'vocab_size')}.",
                "set vocab_size for token ids; features need a third axis",
            )
