"""Attention whose tokens are the modalities (Hetero-Fusion-Net)."""

from typing import Any

import flax.linen as nn

from mmfusion_jax.fusion.stack_modalities import stack, unstack
from mmfusion_jax.layers.attention import Attention
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Streams


class ModalityAttention(nn.Module):
    """Every modality asks all modalities that an example has.

        head_k = softmax(Q_k K_k^T / sqrt(d_k)) V_k,  one row for each modality   (1)
        f_att = Concat(head_1, .., head_h) W_o                                    (2)

    Parameters: `attention`: `query`, `key`, `value` without bias, `out`.

    Attributes:
        modalities: the streams, one token each, in the order of the tokens.
        num_heads: h; must divide the width.
        include_self: False: a modality asks the others alone; one without others
            asks itself.
        residual: add f.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        Hetero-Fusion-Net, Sec. 3.2, Eq. 1-2.
    Deviation:
        As printed, Eq. 1 has one query and one key for each pair, and the softmax of
        one number is 1. The text asks for a matrix of the relevance of every modality
        for every other: the softmax runs over the modalities.
    """

    modalities: tuple[str, ...]
    num_heads: int = 8
    include_self: bool = True
    residual: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Replaces `modalities`, (b 1 d) each; every other stream passes through."""
        tokens = stack(streams, self.modalities)
        attend = Attention(
            self.num_heads,
            dtype=self.dtype,
            bias=False,
            include_self=self.include_self,
            name="attention",
        )
        values = attend(tokens, tokens, train=train)
        if self.residual:
            values = values + tokens.values
        attended = tokens.replace(values=zero_masked(values, tokens.mask))
        return {**streams, **unstack(attended, self.modalities)}
