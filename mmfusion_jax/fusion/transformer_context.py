"""A transformer over the tokens of all modalities at once (OF-CMAER-CAT)."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.layers.transformer import TransformerLayer, layer_norm, sinusoid
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Streams, Tokens


class TransformerContext(nn.Module):
    """Every token sees those of all modalities.

        Z = LN(Layers([F_1 + e_1 + PE, .., F_M + e_M + PE]))

    Parameters: `modality` (e, (m d)), `layer_<i>`, `norm`.

    Attributes:
        modality_order: the streams that are joined; all have tokens of one width.
        num_layers: number of layers.
        num_heads: of each; divides the width.
        dropout: on attention weights, hidden layers and residuals.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        OF-CMAER-CAT, Sec. 3; no equation is given.
    Deviation:
        Layers are pre-norm with the exact GELU and a hidden layer of 4d. Positions
        begin anew in each modality: the modalities run beside each other.
    """

    modality_order: tuple[str, ...]
    num_layers: int = 2
    num_heads: int = 4
    dropout: float = 0.1
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Puts the streams in `modality_order`, (b n d), into the others' context.

        Returns:
            The same streams, those in `modality_order` replaced, 0 where masked.
        """
        parts = [streams[m] for m in self.modality_order]
        width = parts[0].values.shape[-1]
        start = nn.initializers.normal(0.02)
        kinds = self.param("modality", start, (len(parts), width))

        def placed(kind: int, part: Tokens):
            steps = part.values.shape[1]
            where = kinds[kind] + sinusoid(steps, width, first=0)
            return zero_masked(part.values, part.mask) + where.astype(part.values.dtype)

        joint = Tokens(
            jnp.concatenate([placed(i, part) for i, part in enumerate(parts)], axis=1),
            jnp.concatenate([part.mask for part in parts], axis=1),
        )
        for i in range(self.num_layers):
            layer = TransformerLayer(
                self.num_heads,
                attention_dropout=self.dropout,
                relu_dropout=self.dropout,
                residual_dropout=self.dropout,
                dtype=self.dtype,
                activation=functools.partial(nn.gelu, approximate=False),
                name=f"layer_{i}",
            )
            joint = layer(joint, train=train)
        values = zero_masked(layer_norm(self.dtype, "norm")(joint.values), joint.mask)
        cuts = np.cumsum([part.values.shape[1] for part in parts[:-1]])
        pieces = jnp.split(values, cuts.tolist(), axis=1)
        return {
            **streams,
            **{
                m: part.replace(values=piece)
                for m, part, piece in zip(
                    self.modality_order, parts, pieces, strict=True
                )
            },
        }
