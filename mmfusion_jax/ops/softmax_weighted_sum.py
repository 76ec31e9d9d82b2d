"""What a softmax over scores takes of some values, without the division of a map."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


def weighted_sum(scores: Array, mask: Array, values: Array) -> Array:
    """The softmax of the scores over the True positions, times the values.

        y = e V / (e 1), e = exp(scores - max)

    V and 1 are one matrix, so neither the map of weights nor a sum over it is built,
    and the way back reads the map once.

    Args:
        scores: (... n s), finite, float32 or wider.
        mask: bool, broadcastable to `scores`.
        values: (... s d), finite.

    Returns:
        (... n d), of the type of `values`; 0 where nothing is unmasked.
    """
    scores = jnp.where(mask, scores, -jnp.inf)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - jnp.where(jnp.isfinite(top), top, 0))
    ones = jnp.ones((*values.shape[:-1], 1), values.dtype)
    both = jnp.matmul(
        weights.astype(values.dtype),
        jnp.concatenate([values, ones], axis=-1),
        preferred_element_type=scores.dtype,
    )
    total = both[..., -1:]
    return (both[..., :-1] / jnp.where(total > 0, total, 1)).astype(values.dtype)
