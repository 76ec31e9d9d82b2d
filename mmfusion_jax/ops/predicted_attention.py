"""Attention logits predicted from the scores of the previous layer (MEA)."""

import einops
import jax

from mmfusion_jax.ops.conv.attention_map_conv import convolve_maps
from mmfusion_jax.types import Array


def predict_attention(
    scores: Array,
    previous: Array,
    mask: Array,
    kernel: Array,
    bias: Array,
    mu: float,
    form: str,
) -> Array:
    """Computes the attention logits.

        A = softmax(mu gelu(conv(S')) + (1 - mu) softmax(S))          (2), "literal"
        A = softmax(mu gelu(conv(S')) + (1 - mu) S)                   "logit"

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> scores, mask = jnp.ones((2, 1, 4, 5)), jnp.ones((2, 1, 1, 5), bool)
        >>> kernel, bias = jnp.ones((3, 3, 1, 1)), jnp.zeros(1)
        >>> logits = mmf.ops.predict_attention(
        ...     scores, scores, mask, kernel, bias, mu=0.25, form="literal"
        ... )
        >>> logits.shape
        (2, 1, 4, 5)

    Args:
        scores: Attention scores S, (b k n s) float32 or wider, finite.
        previous: S', the scores of the previous layer; 0 where a token is masked.
        mask: (b 1 1 s) bool, the visible keys.
        kernel: (3 3 k k), kernel of the convolution.
        bias: (k).
        mu: Weight of the prediction, 0..1.
        form: "literal" or "logit", see above.

    Returns:
        (b k n s), the argument of the outer softmax.

    Reference:
        MEA, Eq. 2.
    Deviation:
        S' are the scores before the softmax, 0 where masked. With two softmaxes, as
        printed, the weight of one of s keys is at most e / (e + s - 1).
    """
    # The heads are the channels of the convolution, which has them last.
    x = einops.rearrange(previous.astype(kernel.dtype), "b k n s -> b n s k")
    x = (convolve_maps(x, kernel) + bias).astype(scores.dtype)
    x = jax.nn.gelu(x, approximate=False)
    predicted = einops.rearrange(x, "b n s k -> b k n s")
    if form == "literal":
        scores = jax.nn.softmax(scores, axis=-1, where=mask)
    return mu * predicted + (1 - mu) * scores
