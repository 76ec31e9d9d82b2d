"""The state of an LSTM after its last real step, as one token."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.linear import torch_dense, xavier_normal
from mmfusion_jax.layers.recurrent import LSTM
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens


class LSTMEncoder(nn.Module):
    """One vector per example: an LSTM from left to right, and a linear layer.

        token = W h_T + b,   T the last real step                     (2)

    Parameters: `lstm`, `out`.

    Attributes:
        hidden_dim: of the state and of the token, d.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        MCL-MCF, Eq. 2.
    Deviation:
        The linear layer is the released code's; the paper has the state alone.
    """

    hidden_dim: int = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes a sequence.

        Args:
            values: (b t ...) float; or unsigned integer pixels 0..255, scaled to
                0..1. What a step has is laid side by side.
            mask: (b t) bool.
            train: unused.

        Returns:
            Tokens (b 1 d), 0 and masked where no step is real.

        Raises:
            ConfigError: if the values are ids, (b t) integers.
        """
        if jnp.issubdtype(values.dtype, jnp.integer):
            if values.ndim == 2:
                raise ConfigError(
                    "C26",
                    f"the encoder 'lstm' reads vectors, but was given {values.dtype} "
                    f"of shape {values.shape}.",
                    "take the encoder 'bert' for ids of words or word pieces",
                )
            values = jnp.asarray(values) / 255
        x = einops.rearrange(values, "b t ... -> b t (...)")
        state = LSTM(
            self.hidden_dim,
            kernel_init=xavier_normal,
            dtype=self.dtype,
            last=True,
            name="lstm",
        )(Tokens(x, mask), train=train)
        out = torch_dense(
            self.hidden_dim,
            self.hidden_dim,
            dtype=self.dtype,
            kernel_init=xavier_normal,
            name="out",
        )
        return state.replace(values=zero_masked(out(state.values), state.mask))
