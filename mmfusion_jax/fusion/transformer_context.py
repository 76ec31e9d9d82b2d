"""Transformer over the tokens of all modalities (OF-CMAER-CAT)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.fusion.stack_modalities import same_width
from mmfusion_jax.layers.transformer import layer_norm, sinusoid, transformer_stack
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Depth, Fraction, Modalities, Size
from mmfusion_jax.types import Streams, Tokens


class TransformerContext(nn.Module):
    """Transformer encoder over the concatenated tokens of all modalities.

        Z = LN(Layers([F_1 + e_1 + PE, .., F_M + e_M + PE]))

    Parameters: `modality` (e, (m d)), `layer_<i>`, `norm`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.TransformerContext(
        ...     ("audio", "video"), num_layers=1, num_heads=2
        ... )
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["audio"].values.shape
        (2, 5, 8)

    Attributes:
        modality_order: Names of the streams; all have the same token width.
        num_layers: Number of layers.
        num_heads: Number of heads of each layer; divides the width.
        dropout: Dropout rate of attention weights, hidden layers and residuals.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        OF-CMAER-CAT, Sec. 3; no equation is given.
    Deviation:
        Layers are pre-norm with the exact GELU and a hidden layer of 4d. Positions
        start at 0 in each modality, since the modalities are parallel in time.
    """

    modality_order: Modalities
    num_layers: Depth = 2
    num_heads: Size = 4
    dropout: Fraction = 0.1
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Updates the streams in `modality_order`, (b n d), with attention to all.

        Returns:
            The same streams, those in `modality_order` replaced, 0 where masked.
        """
        parts = same_width(streams, self.modality_order)
        width = parts[0].values.shape[-1]
        init = nn.initializers.normal(0.02)
        modality_embeddings = self.param("modality", init, (len(parts), width))

        def embed(index: int, part: Tokens):
            positions = sinusoid(part.values.shape[1], width, first=0)
            embedding = modality_embeddings[index] + positions
            values = zero_masked(part.values, part.mask)
            return values + embedding.astype(values.dtype)

        joint = Tokens(
            jnp.concatenate([embed(i, part) for i, part in enumerate(parts)], axis=1),
            jnp.concatenate([part.mask for part in parts], axis=1),
        )
        joint = transformer_stack(
            joint,
            self.num_layers,
            self.num_heads,
            train=train,
            dropout=self.dropout,
            relu_dropout=self.dropout,
            dtype=self.dtype,
        )
        values = zero_masked(layer_norm(self.dtype, "norm")(joint.values), joint.mask)
        ends = np.cumsum([part.values.shape[1] for part in parts[:-1]])
        updated = jnp.split(values, ends.tolist(), axis=1)
        return {
            **streams,
            **{
                m: part.replace(values=values)
                for m, part, values in zip(
                    self.modality_order, parts, updated, strict=True
                )
            },
        }
