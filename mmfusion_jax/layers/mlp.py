"""Multilayer perceptron with one hidden layer."""

from typing import Any

import flax.linen as nn

from mmfusion_jax.layers.linear import zero_bias_dense
from mmfusion_jax.types import Array


class MLP(nn.Module):
    """W_2 gelu(W_1 x + b_1) + b_2, with the exact GELU; b_1 and b_2 start at 0.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> layer = mmf.layers.MLP(hidden_dim=16, features=3)
        >>> y, variables = layer.init_with_output(
        ...     jax.random.key(0), jnp.ones((2, 8)), train=False
        ... )
        >>> y.shape
        (2, 3)

    Attributes:
        hidden_dim: Width of the hidden layer.
        features: Width of the output.
        dropout: Dropout rate of the hidden layer.
        dtype: Dtype of the computation; None keeps the input's.
    """

    hidden_dim: int
    features: int
    dropout: float = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps (... d) to (... features)."""
        expand = zero_bias_dense(self.hidden_dim, dtype=self.dtype, name="expand")
        x = nn.gelu(expand(x), approximate=False)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        shrink = zero_bias_dense(self.features, dtype=self.dtype, name="shrink")
        return shrink(x)
