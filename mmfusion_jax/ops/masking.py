"""Reductions over the unmasked part of an array.

A masked value never affects a result or a gradient: it is replaced before it is used,
so NaN and infinity do no harm.
"""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array, Tokens


def zero_masked(x: Array, mask: Array) -> Array:
    """Returns `x` where `mask` is True, else exactly 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = jnp.array([[1.0, 3.0, jnp.nan]])
        >>> mask = jnp.array([[True, True, False]])
        >>> mmf.ops.zero_masked(x, mask).tolist()
        [[1.0, 3.0, 0.0]]

    Args:
        x: (... d), arbitrary where the mask is False.
        mask: bool, broadcast against `x` from the left: it may have fewer axes.
    """
    # Not x * mask: NaN times 0 is NaN, in the value and in the gradient.
    return jnp.where(_expand_like(mask, x), x, jnp.zeros((), x.dtype))


def masked_mean(x: Array, mask: Array, axis: int | tuple[int, ...]) -> Array:
    """Mean over the True positions of `axis`; 0 where there are none.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = jnp.array([[1.0, 3.0, jnp.nan]])
        >>> mask = jnp.array([[True, True, False]])
        >>> mmf.ops.masked_mean(x, mask, axis=1).tolist()
        [2.0]

    Args:
        x: Values.
        mask: bool, in the shape of `x` or broadcastable to it from the left.
        axis: Axes to average over.
    """
    mask = jnp.broadcast_to(_expand_like(mask, x), x.shape)
    # Integers: bfloat16 cannot count beyond 256.
    count = jnp.sum(mask, axis=axis, dtype=jnp.int32)
    total = jnp.sum(jnp.where(mask, x, 0), axis=axis)
    return total / jnp.maximum(count, 1).astype(x.dtype)


def masked_softmax(x: Array, mask: Array, axis: int | tuple[int, ...]) -> Array:
    """Softmax over the True positions of `axis`; 0 elsewhere.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> x = jnp.array([[1.0, 3.0, jnp.nan]])
        >>> mask = jnp.array([[True, True, False]])
        >>> print(np.asarray(mmf.ops.masked_softmax(x, mask, axis=1)).round(2))
        [[0.12 0.88 0.  ]]

    Args:
        x: Scores.
        mask: bool, broadcastable to `x` from the left.
        axis: Axes whose weights sum to 1.
    """
    mask = jnp.broadcast_to(_expand_like(mask, x), x.shape)
    # Three replacements. x is masked before any arithmetic, since NaN times 0 is NaN in
    # the gradient. -inf is used for the maximum alone, and becomes 0 where nothing is
    # valid: -inf - -inf is NaN. exp gets 0 at masked positions, where x - top may
    # overflow. The maximum cancels out, so it needs no gradient.
    safe = jnp.where(mask, x, 0)
    top = jnp.max(jnp.where(mask, x, -jnp.inf), axis=axis, keepdims=True)
    top = jax.lax.stop_gradient(jnp.where(jnp.isfinite(top), top, 0))
    weights = jnp.where(mask, jnp.exp(jnp.where(mask, safe - top, 0)), 0)
    total = jnp.sum(weights, axis=axis, keepdims=True)
    return weights / jnp.where(total > 0, total, 1)


def last_valid(tokens: Tokens) -> Array:
    """Returns the last valid token of every example, (b d); 0 if there is none.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = jnp.array([[[1.0], [3.0], [9.0]]])
        >>> mmf.ops.last_valid(mmf.Tokens(x, jnp.array([[True, True, False]]))).tolist()
        [[3.0]]
    """
    steps = jnp.arange(tokens.mask.shape[1])
    # The last True, not the number of them: a mask may have gaps.
    last = jnp.max(jnp.where(tokens.mask, steps, -1), axis=1)
    values = jnp.take_along_axis(
        tokens.values, jnp.maximum(last, 0)[:, None, None], axis=1
    )[:, 0]
    return zero_masked(values, last >= 0)


def _expand_like(mask: Array, x: Array) -> Array:
    """Adds trailing axes of size 1 to `mask` until it has as many axes as `x`."""
    return mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
