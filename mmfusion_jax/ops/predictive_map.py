"""Attention weights that the scores of the layer before help to predict."""

import einops
import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


def predictive_map(
    scores: Array,
    previous: Array,
    visible: Array,
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
        previous: S', likewise; of the layer before.
        visible: (b 1 n s) bool, True where neither token is masked.
        kernel: (3 3 k k) of the convolution.
        bias: (k).
        mu: from 0, no prediction, to 1.
        form: see above.

    Returns:
        (b k n s), the argument of the outer softmax.

    Source:
        MEA, Eq. 2.
    Reading:
        S' are the scores before the softmax, 0 where masked. With softmax twice, as
        printed, no key weighs much more than another: at most e / (e + s - 1) of s
        keys.
    """
    x = jnp.where(visible, previous, 0).astype(kernel.dtype)
    x = jax.lax.conv_general_dilated(
        einops.rearrange(x, "b k n s -> b n s k"),
        kernel,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    x = jax.nn.gelu((x + bias).astype(scores.dtype), approximate=False)
    predicted = einops.rearrange(x, "b n s k -> b k n s")
    if form == "literal":
        scores = jax.nn.softmax(scores, axis=-1, where=visible)
    return mu * predicted + (1 - mu) * scores
