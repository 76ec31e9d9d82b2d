"""Attention whose tokens are the modalities (Hetero-Fusion-Net)."""

from typing import Any, ClassVar

import flax.linen as nn

from mmfusion_jax.fusion.stack_modalities import stack, unstack
from mmfusion_jax.layers.attention import Attention
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Modalities, Size
from mmfusion_jax.types import Streams


class ModalityAttention(nn.Module):
    """Self-attention over the modalities that are present.

        head_k = softmax(Q_k K_k^T / sqrt(d_k)) V_k,  one row per modality        (1)
        f_att = Concat(head_1, .., head_h) W_o                                    (2)

    Parameters: `attention`: `query`, `key`, `value` without bias, `out`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 1), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 1, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.ModalityAttention(("audio", "video"), num_heads=2)
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["video"].values.shape
        (2, 1, 8)

    Attributes:
        modalities: Names of the streams, one token each, in the order of the tokens.
        num_heads: Number of heads, h; must divide the width.
        include_self: If False, a modality attends to the others only, and to itself
            if every other modality is missing.
        residual: Add f.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        Hetero-Fusion-Net, Sec. 3.2, Eq. 1-2.
    Deviation:
        As printed, Eq. 1 has one query and one key per pair, and the softmax of one
        number is 1. The text describes a matrix of the relevance of every modality to
        every other: the softmax is over the modalities.
    """

    one_token: ClassVar[bool] = True

    modalities: Modalities
    num_heads: Size = 8
    include_self: bool = True
    residual: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Updates the streams `modalities`, (b 1 d) each; others are unchanged."""
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
