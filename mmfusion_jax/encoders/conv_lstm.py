"""A convolution over time, positions, and an LSTM both ways."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.layers.recurrent import LSTM
from mmfusion_jax.layers.transformer import sinusoid
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens

POSITIONS = ("sinusoid", "learned", "none")


class ConvLSTM(nn.Module):
    """Sequences of any kind as tokens of one width.

        Z = BiLSTM(conv(X) + PE)                                      (1)

    Parameters: `embed` (for ids), `conv`, `positions_table` (if learned), `lstm`.

    Attributes:
        hidden_dim: of the tokens, d; even, half for each direction.
        kernel_size: size of the convolution, in steps.
        positions: PE: "sinusoid" of positions 0, 1, ..., see `sinusoid`, "learned" or
            "none".
        vocab_size: number of ids, for sequences of ids.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        MEA, Sec. III-B, Eq. 1.
    Deviation:
        Masked steps are zeros to the convolution, as are those before the first and
        after the last. The tokens are not scaled before the positions are added.
        The paper cites Vaswani et al. 2017 for PE: ours is that of their code and of
        MulT, all sines before all cosines; their text has them alternate and divides
        i by h instead of h - 1.
    """

    hidden_dim: int = 40
    kernel_size: int = 3
    positions: Literal["sinusoid", "learned", "none"] = "sinusoid"
    vocab_size: int = 0
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Maps a sequence to tokens (b t d).

        Args:
            values: (b t) int ids, or (b t ...) features, flattened; unsigned integers
                are pixels 0..255.
            mask: (b t) bool.
            train: unused; part of the contract of every encoder.

        Raises:
            ConfigError: ids without a `vocab_size`, an odd width, unknown positions.
        """
        self._check(values)
        x = zero_masked(self._features(values, mask), mask)
        start = torch_uniform(self.kernel_size * x.shape[-1])
        x = nn.Conv(
            self.hidden_dim,
            (self.kernel_size,),
            dtype=self.dtype,
            kernel_init=start,
            bias_init=start,
            name="conv",
        )(x)
        x = x + self._positions(x.shape[1]).astype(x.dtype)
        lstm = LSTM(
            self.hidden_dim // 2, bidirectional=True, dtype=self.dtype, name="lstm"
        )
        return lstm(Tokens(x, mask), train=train)

    def _features(self, values: Array, mask: Array) -> Array:
        """What the convolution sees, (b t f) float."""
        if values.ndim == 2:
            ids = zero_masked(values, mask)
            return nn.Embed(self.vocab_size, self.hidden_dim, self.dtype, name="embed")(
                ids
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
        start = nn.initializers.normal(0.02)
        return self.param("positions_table", start, (t, self.hidden_dim))

    def _check(self, values: Array) -> None:
        if self.positions not in POSITIONS:
            raise ConfigError(
                "C03",
                f"positions={self.positions!r} is unknown.",
                suggest(self.positions, POSITIONS),
            )
        if self.hidden_dim % 2:
            raise ConfigError(
                "C10", f"width={self.hidden_dim} is odd, and an LSTM goes both ways."
            )
        ids = jnp.issubdtype(values.dtype, jnp.integer)
        if values.ndim == 2 and not (ids and self.vocab_size > 0):
            raise ConfigError(
                "C27",
                f"conv_lstm was given (b t) {values.dtype} with vocabulary="
                f"{self.vocab_size}.",
                "ids need the size of their vocabulary; features need a third axis",
            )
