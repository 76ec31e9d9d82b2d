"""Recurrent layers over masked tokens."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.ops.lstm_scan import LSTMWeights, lstm
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens


class LSTM(nn.Module):
    """Long short-term memory, from left to right or both ways.

        i, f, g, o = W x_t + R h_{t-1} + b
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    A masked step leaves c and h as they are, so the way back starts at the last real
    token of every example.

    Parameters, r the directions (1 or 2), w = `hidden_dim`, gates in the order i, f, g,
    o:

        input_kernel (r d 4w)       `weight_ih` of PyTorch, transposed
        recurrent_kernel (r w 4w)   `weight_hh` of PyTorch, transposed
        bias (r 4w)                 `bias_ih + bias_hh` of PyTorch

    Attributes:
        hidden_dim: units of each direction.
        bidirectional: go both ways; their outputs stand side by side.
        kernel_init: first values of both kernels; None for PyTorch's.
        dtype: type of the products; None keeps that of the input. The state c is
            float32 or wider.
        last: give the state of each direction after its last real step, as one token,
            in place of the states of all steps.

    Reference:
        Hochreiter and Schmidhuber 1997; MEA, Eq. 1.
    Deviation:
        First values are PyTorch's but for the bias: one uniform draw, where PyTorch's
        two add up to one of twice the variance.
    """

    hidden_dim: int
    bidirectional: bool = False
    kernel_init: nn.initializers.Initializer | None = None
    dtype: Any = None
    last: bool = False

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> Tokens:
        """Maps (b n d) tokens to (b n r*w), or (b 1 r*w) for `last`; 0 where masked.

        Args:
            tokens: (b n d), anything where masked.
            train: unused; part of the contract of every layer over tokens.
        """
        del train
        x = zero_masked(tokens.values, tokens.mask)
        x = x.astype(self.dtype or jnp.promote_types(x.dtype, float))
        directions = 1 + self.bidirectional

        def weight(name: str, *shape: int) -> Array:
            start = torch_uniform(self.hidden_dim)
            if shape and self.kernel_init:
                start = self.kernel_init
            return self.param(name, start, (directions, *shape, 4 * self.hidden_dim))

        weights = LSTMWeights(
            weight("input_kernel", x.shape[-1]).astype(x.dtype),
            weight("recurrent_kernel", self.hidden_dim).astype(x.dtype),
            weight("bias").astype(x.dtype),
        )
        states = lstm(x.swapaxes(0, 1), tokens.mask.T, weights)
        if self.last:
            values = einops.rearrange(states.last, "r b w -> b 1 (r w)")
            present = tokens.present[:, None]
            return Tokens(zero_masked(values, present), present)
        values = einops.rearrange(states.every, "n r b w -> b n (r w)")
        return tokens.replace(values=zero_masked(values, tokens.mask))
