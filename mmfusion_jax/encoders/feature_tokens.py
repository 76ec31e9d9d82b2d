"""Encodes named features, such as action units, as tokens."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.option_path import given_option
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Fraction, Size
from mmfusion_jax.types import Array, Tokens


class FeatureTokens(nn.Module):
    """Maps every feature of a step to a token, so that attention can select some.

        token_j = Dropout(BN(ReLU(W_j x_j + b_j)))

    Replaces a video encoder if only features of the clip are available. Several
    measurements of one feature, x_j, form one token.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.FeatureTokens(hidden_dim=8, features_per_token=2)
        >>> features, mask = jnp.ones((2, 5, 6)), jnp.ones((2, 5), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), features, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 15, 8)

    Attributes:
        hidden_dim: Width of the tokens, d.
        features_per_token: Number of measurements of every feature; the input is then
            the concatenation of as many sequences of the same features.
        dropout: Dropout rate of the tokens.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None keeps the input's.
    """

    hidden_dim: Size = 64
    features_per_token: Size = 1
    dropout: Fraction = 0.2
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Maps (b t f) to tokens (b t*j d), grid (t, j), j = f / features_per_token.

        Raises:
            ConfigError: f is not a multiple of `features_per_token`.
        """
        features = values.shape[-1]
        if features % self.features_per_token:
            raise ConfigError(
                "C24",
                f"{given_option(self, 'features_per_token')} does not divide the "
                f"{features:d} features.",
            )
        x = zero_masked(values, mask).astype(self.dtype or values.dtype)
        x = einops.rearrange(x, "b t (w j) -> b t j w", w=self.features_per_token)
        count = x.shape[2]
        # batch_axis: the features are independent layers, so they do not count as
        # inputs.
        init = nn.initializers.variance_scaling(2.0, "fan_in", "normal", batch_axis=0)
        kernel = self.param(
            "kernel", init, (count, self.features_per_token, self.hidden_dim)
        )
        bias = self.param("bias", nn.initializers.normal(0.5), (count, self.hidden_dim))
        x = jnp.einsum("btjw,jwd->btjd", x, kernel.astype(x.dtype))
        x = nn.relu(x + bias.astype(x.dtype))
        x = BatchNorm(self.axis, dtype=self.dtype, name="norm")(x, mask, train=train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        tokens = einops.rearrange(x, "b t j d -> b (t j) d")
        return Tokens(tokens, jnp.repeat(mask, count, axis=1), (values.shape[1], count))
