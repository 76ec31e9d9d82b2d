"""Softmax-weighted sum without materializing the weights."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


def weighted_sum(scores: Array, mask: Array, values: Array) -> Array:
    """Computes softmax(scores) @ values over the True positions.

        y = e V / (e 1), e = exp(scores - max)

    V and 1 are concatenated, so neither the normalized weights nor a separate sum is
    computed, and the backward pass reads the map once.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> scores, values = jnp.zeros((1, 3)), jnp.array([[1.0], [3.0], [9.0]])
        >>> mmf.ops.weighted_sum(
        ...     scores, jnp.array([[True, True, False]]), values
        ... ).tolist()
        [[2.0]]

    Args:
        scores: (... n s), finite, float32 or wider.
        mask: bool, broadcastable to `scores`.
        values: (... s d), finite.

    Returns:
        (... n d), in the dtype of `values`; 0 where all positions are masked.
    """
    # exp(-inf - top) is exactly 0, in value and gradient, unless top is -inf as well,
    # which is replaced by 0. The shift by top cancels out, so it has no gradient.
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
