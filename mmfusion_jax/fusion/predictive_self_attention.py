"""Predictive self-attention (PSA) and weighted attention layer (WAL) of MEA."""

from collections.abc import Callable
from typing import Any, Literal

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.fusion.reinforcement_unit import ReinforcementUnit
from mmfusion_jax.layers.linear import zero_bias_dense
from mmfusion_jax.ops.masking import masked_mean, masked_softmax, zero_masked
from mmfusion_jax.types import Array, Streams, Tokens

FORMS = ("token", "dense", "off")


class PredictiveSelfAttention(nn.Module):
    """Self-attention layers, each of which predicts the attention map of the next.

    Parameters: `layer_<i>`, with units in the order of the modalities, and `weigh_<i>`
    for the weights.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> from functools import partial
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.PredictiveSelfAttention(
        ...     ("audio", "video"),
        ...     partial(mmf.fusion.ReinforcementUnit, num_heads=2),
        ...     num_layers=1,
        ... )
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["audio"].values.shape
        (2, 5, 8)

    Attributes:
        modality_order: Names of the modalities.
        block: Creates an attention layer with arguments `sources` and `name`.
        num_layers: Number of layers, M; 0 is the ablation "w/o PSA Module".
        modality_weighting: Weights of the modalities after each layer, see
            `ModalityWeights`; "off" is the ablation "w/o Weighted Attention Layer".
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        MEA, Sec. III-C, Eq. 2-6.
    """

    modality_order: tuple[str, ...]
    block: Callable[..., ReinforcementUnit]
    num_layers: int = 3
    modality_weighting: Literal["token", "dense", "off"] = "token"
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Updates the streams in `modality_order`, (b n d); others are unchanged.

        Raises:
            ConfigError: `modality_weighting` is unknown.
        """
        if self.modality_weighting not in FORMS:
            raise ConfigError(
                "C03",
                f"wal={shown(self.modality_weighting)} is unknown.",
                suggest(self.modality_weighting, FORMS),
            )
        updated, previous = dict(streams), []
        own = tuple((index,) for index, _ in enumerate(self.modality_order))
        for i in range(self.num_layers):
            layer = self.block(sources=own, name=f"layer_{i}")
            z = [updated[m] for m in self.modality_order]
            # Queries and keys go to the next layer, which computes this layer's maps
            # from them again: (n + s) d numbers per head instead of n s.
            z, previous = layer(z, z, previous, train=train)
            updated |= zip(self.modality_order, z, strict=True)
            if self.modality_weighting != "off":
                dense, name = self.modality_weighting == "dense", f"weigh_{i}"
                weights = ModalityWeights(
                    self.modality_order, dense, self.dtype, name=name
                )
                updated = dict(weights(updated, train=train))
        return updated


class ModalityWeights(nn.Module):
    """Multiplies each modality by its attention weight.

        gamma_m = mean_t P_m^T tanh(W_m z_t + b_m)                    (5)
        psi = softmax_m(gamma), Z_m = psi_m Z_m                       (6)

    Attributes:
        modality_order: Names of the modalities.
        dense: Apply W_m to the entire sequence, (n*d n*d), instead of each token: Eq. 5
            as printed, for short sequences; model mea has it with wal="dense".
        dtype: Dtype of the computation except the softmax; None keeps the input's.

    Reference:
        MEA, Eq. 5-6.
    Deviation:
        W_m as printed would have hundreds of millions of parameters for the paper's
        sequence lengths: by default it is shared by the tokens. The softmax is over
        the present modalities.
    """

    modality_order: tuple[str, ...]
    dense: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Scales the streams in `modality_order`; others are unchanged."""
        del train
        gamma = jnp.stack(
            [self._gamma(m, streams[m]) for m in self.modality_order], axis=1
        )
        present = jnp.stack([streams[m].present for m in self.modality_order], axis=1)
        psi = masked_softmax(gamma, present, axis=1)  # b m
        self.sow("intermediates", "psi", psi)
        scaled = {
            m: streams[m].replace(
                # Masked values may be NaN, and NaN times a gradient of 0 is NaN.
                values=zero_masked(streams[m].values, streams[m].mask)
                * psi[:, i, None, None].astype(streams[m].values.dtype)
            )
            for i, m in enumerate(self.modality_order)
        }
        return {**streams, **scaled}

    def _gamma(self, name: str, tokens: Tokens) -> Array:
        """Score of a modality, (b)."""
        x, mask = zero_masked(tokens.values, tokens.mask), tokens.mask
        if self.dense:
            x = einops.rearrange(x, "b n d -> b 1 (n d)")
            mask = tokens.present[:, None]
        width = x.shape[-1]
        x = jnp.tanh(zero_bias_dense(width, dtype=self.dtype, name=f"{name}_look")(x))
        score = zero_bias_dense(
            1, use_bias=False, dtype=self.dtype, name=f"{name}_score"
        )
        y = score(x)[..., 0]
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        return masked_mean(y, mask, axis=1)
