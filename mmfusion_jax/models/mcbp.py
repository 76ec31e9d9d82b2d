"""MCBP: compact bilinear pooling of two modalities (Table 1 of CFN-SR)."""

from collections.abc import Mapping
from typing import Any, ClassVar

import flax.linen as nn

from mmfusion_jax.fusion.compact_bilinear import CompactBilinear
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.models.common import (
    AudioPooling,
    encode,
    pool_modality,
    prediction_head,
)
from mmfusion_jax.option_types import Fraction, Seed, Size
from mmfusion_jax.types import Batch, Outputs, Tokens


class MCBP(nn.Module):
    """Compact bilinear pooling of the vectors of all modalities, and a hidden layer.

        prediction = W_2 relu(W_1 MCBP(x_1, .., x_M) + b_1) + b_2

    Parameters: `encoders_<modality>`, `hidden`, `head`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> mask, x = jnp.ones((2, 5), bool), jnp.ones((2, 5, 8))
        >>> names = ("audio", "video")
        >>> batch = mmf.Batch(dict.fromkeys(names, x), dict.fromkeys(names, mask))
        >>> encoders = {name: mmf.encoders.Precomputed() for name in names}
        >>> model = mmf.models.MCBP(encoders, head_size=3, sketch_dim=16, hidden_dim=4)
        >>> y, variables = model.init_with_output(jax.random.key(0), batch, train=False)
        >>> y.prediction.shape
        (2, 3)

    Attributes:
        encoders: Encoders of at least two modalities.
        head_size: k.
        sketch_dim: Elements of the sketch of the outer product.
        hidden_dim: Width of the hidden layer.
        seed: Seed of the hashes.
        dropout: Dropout rate of the pooled audio.
        hidden_dropout: Dropout rate of the hidden layer.
        audio_pooling: Pooling of audio: "flatten", "mean" or "mean_std".
        dtype: Dtype of the computation; None keeps the encoders'.

    Reference:
        Fukui et al. 2016; CFN-SR, Table 1, "MCBP".
    Deviation:
        No paper gives the sizes for RAVDESS. With the sizes here the model has
        29,986,984 parameters; Table 1 prints 51.03M, which several sizes would give.
    """

    num_modalities: ClassVar[int] = 2

    encoders: Mapping[str, nn.Module]
    head_size: int
    sketch_dim: Size = 8000
    hidden_dim: Size = 512
    seed: Seed = 0
    dropout: Fraction = 0.4
    hidden_dropout: Fraction = 0.4
    audio_pooling: AudioPooling = "flatten"
    dtype: Any = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns logits (b k), or a score (b) where `head_size` is 1.

        Auxiliary outputs: the vector (b d) of each modality, with its name, and "fused"
        (b sketch_dim), the sketch.
        """
        streams, vectors, tokens = encode(self.encoders, batch, train=train), {}, {}
        # Sorted, because the position of a modality seeds its hash.
        for name in sorted(streams):
            options = (self.dropout, self.audio_pooling)
            x = pool_modality(streams, name, *options, train=train)
            vectors[name] = x
            tokens[name] = Tokens(x[:, None], streams[name].present[:, None])
        block = CompactBilinear(
            tuple(vectors), self.sketch_dim, self.seed, target="fused", name="fusion"
        )
        fused = block(tokens, train=train)["fused"].values[:, 0]
        layer = torch_dense(
            self.sketch_dim, self.hidden_dim, dtype=self.dtype, name="hidden"
        )
        hidden = nn.relu(layer(fused))
        hidden = nn.Dropout(self.hidden_dropout, deterministic=not train)(hidden)
        head = prediction_head(hidden, self.head_size)
        return Outputs(head, {**vectors, "fused": fused})
