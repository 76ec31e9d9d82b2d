"""Passes precomputed features through."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Fraction
from mmfusion_jax.types import Array, Tokens


class Precomputed(nn.Module):
    """Flattens the features of each step; no parameters.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.Precomputed()
        >>> vectors, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), vectors, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 5, 3)

    Attributes:
        dropout: Dropout rate of the values.
        dtype: Dtype of the result; None keeps the input's.
    """

    dropout: Fraction = 0.0
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Maps (b t ...) to tokens (b t f), 0 where masked.

        Args:
            values: Floats, or unsigned integer pixels 0..255, scaled to 0..1.
            mask: (b t) bool.
            train: Apply dropout.

        Raises:
            ConfigError: The values are token ids or scalars, (b t).
        """
        if values.ndim == 2:
            raise ConfigError(
                "C26",
                "encoder 'precomputed' expects vectors (b, t, f), got "
                f"{values.dtype.name} of shape {values.shape}.",
                "use an encoder for token ids, such as 'conv_lstm' or 'bert'",
            )
        if jnp.issubdtype(values.dtype, jnp.unsignedinteger):
            values = values / jnp.float32(255)
        x = einops.rearrange(zero_masked(values, mask), "b t ... -> b t (...)")
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Tokens(x.astype(self.dtype or x.dtype), mask)
