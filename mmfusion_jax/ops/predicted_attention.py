"""Attention weights that the scores of the layer before help to predict."""

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
    """What an attention is the softmax of.

        A = softmax(mu gelu(conv(S')) + (1 - mu) softmax(S))          (2), "literal"
        A = softmax(mu gelu(conv(S')) + (1 - mu) S)                   "logit"

    Args:
        scores: S, (b k n s) float32 or wider, finite.
        previous: S', likewise, of the layer before; 0 where a token is masked.
        mask: (b 1 1 s) bool, which keys are seen.
        kernel: (3 3 k k) of the convolution.
        bias: (k).
        mu: from 0, no prediction, to 1.
        form: see above.

    Returns:
        (b k n s), the argument of the outer softmax.

    Reference:
        MEA, Eq. 2.
    Deviation:
        S' are the scores before the softmax, 0 where masked. With softmax twice, as
        printed, no key weighs much more than another: at most e / (e + s - 1) of s
        keys.
    """
    x = einops.rearrange(previous.astype(kernel.dtype), "b k n s -> b n s k")
    x = (convolve_maps(x, kernel) + bias).astype(scores.dtype)
    x = jax.nn.gelu(x, approximate=False)
    predicted = einops.rearrange(x, "b n s k -> b k n s")
    if form == "literal":
        scores = jax.nn.softmax(scores, axis=-1, where=mask)
    return mu * predicted + (1 - mu) * scores
