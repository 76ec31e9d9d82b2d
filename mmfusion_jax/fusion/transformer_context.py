"""A transformer over the tokens of all modalities at once (OF-CMAER-CAT)."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.layers.transformer import TransformerLayer, layer_norm, sinusoid
from mmfusion_jax.ops.masking import keep
from mmfusion_jax.types import Streams, Tokens


class TransformerContext(nn.Module):
    """Every token sees those of all modalities.

        Z = LN(Layers([F_1 + e_1 + PE, .., F_M + e_M + PE]))

    Parameters: `modality` (e, (m d)), `layer_<i>`, `norm`.

    Attributes:
        order: the streams that are joined; all have tokens of one width.
        depth: number of layers.
        heads: of each; divides the width.
        dropout: on attention weights, hidden layers and residuals.
        dtype: type of the computation; None keeps that of the input.

    Source:
        OF-CMAER-CAT, Sec. 3; no equation is given.
    Reading:
        Layers are pre-norm with the exact GELU and a hidden layer of 4d. Positions
        begin anew in each modality: the modalities run beside each other.
    """

    order: tuple[str, ...]
    depth: int = 2
    heads: int = 4
    dropout: float = 0.1
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Puts the streams in `order`, each (b n d), into the context of the others.

        Returns:
            The same streams, those in `order` replaced, 0 where masked.
        """
        parts = [streams[m] for m in self.order]
        width = parts[0].values.shape[-1]
        start = nn.initializers.normal(0.02)
        kinds = self.param("modality", start, (len(parts), width))

        def placed(kind: int, part: Tokens):
            steps = part.values.shape[1]
            where = kinds[kind] + sinusoid(steps, width, first=0)
            return keep(part.values, part.mask) + where.astype(part.values.dtype)

        joint = Tokens(
            jnp.concatenate([placed(i, part) for i, part in enumerate(parts)], axis=1),
            jnp.concatenate([part.mask for part in parts], axis=1),
        )
        for i in range(self.depth):
            layer = TransformerLayer(
                self.heads,
                attention_dropout=self.dropout,
                relu_dropout=self.dropout,
                residual_dropout=self.dropout,
                dtype=self.dtype,
                activation=functools.partial(nn.gelu, approximate=False),
                name=f"layer_{i}",
            )
            joint = layer(joint, train=train)
        values = keep(layer_norm(self.dtype, "norm")(joint.values), joint.mask)
        cuts = np.cumsum([part.values.shape[1] for part in parts[:-1]])
        pieces = jnp.split(values, cuts.tolist(), axis=1)
        return {
            **streams,
            **{
                m: part.replace(values=piece)
                for m, part, piece in zip(self.order, parts, pieces, strict=True)
            },
        }
