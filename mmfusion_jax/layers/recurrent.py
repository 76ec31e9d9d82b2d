"""Recurrent layers over masked tokens."""

from collections.abc import Sequence
from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.ops.lstm_scan import LSTMWeights, lstm
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens


def forget_gates(value: float) -> nn.initializers.Initializer:
    """Returns an initializer of `LSTM.bias`: a value at the forget gates, 0 elsewhere.

    Args:
        value: Bias of the forget gates. A gate is sigmoid(value) at first, so a state
            halves in every step with 0, and loses a quarter with 1.
    """

    def init(key: Array, shape: Sequence[int], dtype: Any = float) -> Array:
        del key
        gates = jnp.zeros((*shape[:-1], 4, shape[-1] // 4), dtype)
        return gates.at[..., 1, :].set(value).reshape(shape)  # order i, f, g, o

    return init


class LSTM(nn.Module):
    """Unidirectional or bidirectional long short-term memory.

        i, f, g, o = W x_t + R h_{t-1} + b
        c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
        h_t = sigmoid(o) tanh(c_t)

    A masked step leaves c and h unchanged, so the reverse direction starts at the last
    valid token of every example.

    Parameters, with r directions (1 or 2), w = `hidden_dim` and the gate order i, f, g,
    o:

        input_kernel (r d 4w)       `weight_ih` of PyTorch, transposed
        recurrent_kernel (r w 4w)   `weight_hh` of PyTorch, transposed
        bias (r 4w)                 `bias_ih + bias_hh` of PyTorch

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> tokens = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> layer = mmf.layers.LSTM(hidden_dim=4, bidirectional=True)
        >>> states, variables = layer.init_with_output(
        ...     jax.random.key(0), tokens, train=False
        ... )
        >>> states.values.shape
        (2, 5, 8)

    Attributes:
        hidden_dim: Units per direction.
        bidirectional: Run in both directions and concatenate the outputs.
        kernel_init: Initializer of both kernels; None for PyTorch's.
        dtype: Dtype of the products; None keeps the input's. The state c is float32 or
            wider.
        last: Return only the state of each direction after its last valid step, as
            one token.
        bias_init: Initializer of the bias; None for PyTorch's.

    Reference:
        Hochreiter and Schmidhuber 1997; MEA, Eq. 1.
    Deviation:
        The initialization is PyTorch's except for the bias: one uniform variable, where
        PyTorch has the sum of two, with twice the variance.
    """

    hidden_dim: int
    bidirectional: bool = False
    kernel_init: nn.initializers.Initializer | None = None
    dtype: Any = None
    last: bool = False
    bias_init: nn.initializers.Initializer | None = None

    @nn.compact
    def __call__(self, tokens: Tokens, *, train: bool) -> Tokens:
        """Maps (b n d) tokens to (b n r*w), or (b 1 r*w) for `last`; 0 where masked.

        Args:
            tokens: (b n d), arbitrary where masked.
            train: Unused; part of the interface of all layers over tokens.
        """
        del train
        x = zero_masked(tokens.values, tokens.mask)
        x = x.astype(self.dtype or jnp.promote_types(x.dtype, float))
        directions = 1 + self.bidirectional

        def weight(name: str, *shape: int) -> Array:
            # The bound depends on the units and not on the inputs, as in PyTorch's
            # LSTM.
            given = self.kernel_init if shape else self.bias_init
            init = given or torch_uniform(self.hidden_dim)
            return self.param(name, init, (directions, *shape, 4 * self.hidden_dim))

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
        values = einops.rearrange(states.all_steps, "n r b w -> b n (r w)")
        return tokens.replace(values=zero_masked(values, tokens.mask))
