"""Modality weights computed from statistics of each modality (OF-CMAER-CAT)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.types import Array, Tokens

EPSILON = 1e-8


class ModalityWeighting(nn.Module):
    """Modality weights that sum to 1 over the present modalities.

        s_i = W_2 relu(W_1 [mean_t F_i, var_t F_i] + b_1) + b_2       (8)
        w_i = exp(s_i) / sum_k exp(s_k)                               (9)
        w'_i = m_i w_i / (sum_k m_k w_k + eps)                        (10)

    Parameters: `hidden`, `score`, shared by the modalities.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> audio = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> video = audio.replace(mask=jnp.array([[True] * 5, [False] * 5]))
        >>> block = mmf.fusion.ModalityWeighting(hidden_dim=4)
        >>> weights, variables = block.init_with_output(
        ...     jax.random.key(0), [audio, video]
        ... )
        >>> print(np.asarray(weights).round(2))
        [[0.5 0.5]
         [1.  0. ]]

    Attributes:
        hidden_dim: Width of the hidden layer.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        OF-CMAER-CAT, Sec. 3, Eq. 8-10.
    Deviation:
        As printed: the softmax is over all modalities, and the mask is applied
        afterwards. The variance is the population variance over the steps.
    """

    hidden_dim: int = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, parts: Sequence[Tokens]) -> Array:
        """Maps tokens (b n d) of m modalities to w' (b m); 0 if none is present."""
        features = jnp.stack([statistics(tokens) for tokens in parts], axis=1)  # b m 2d
        present = jnp.stack([tokens.present for tokens in parts], axis=1)
        hidden = torch_dense(
            features.shape[-1], self.hidden_dim, dtype=self.dtype, name="hidden"
        )(features)
        score = torch_dense(self.hidden_dim, 1, dtype=self.dtype, name="score")
        scores = score(jax.nn.relu(hidden))[..., 0]
        wide = jnp.promote_types(scores.dtype, jnp.float32)
        # Not `masked_softmax`: Eq. 9 and 10 are separate as printed. The scores of
        # missing modalities are finite, since their statistics are 0.
        weights = zero_masked(jax.nn.softmax(scores.astype(wide), axis=-1), present)
        return weights / (jnp.sum(weights, axis=-1, keepdims=True) + EPSILON)


def statistics(tokens: Tokens) -> Array:
    """Mean and variance of every channel over the valid tokens, (b 2d); 0 if none."""
    center = mean(tokens)
    centered = zero_masked(tokens.values, tokens.mask) - center[:, None]
    variance = masked_mean(jnp.square(centered), tokens.mask, axis=1)
    return jnp.concatenate([center, variance], axis=-1)
