"""Attention whose maps are never kept: the way back computes them again."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.chunked_map import chunk_size_for, map_in_chunks
from mmfusion_jax.types import Array

HIDDEN = -1e30
"""Is added to the scores of masked keys: no exponential of such a score is above 0."""


def dot_attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """The softmax of the products of queries and keys, times the values.

        y_n = sum_s P_ns v_s,  P_ns = exp(q_n k_s - L_n),  L_n = log sum_s exp(q_n k_s)

    What the way back needs besides the arguments is y and L, so memory grows with n + s
    and not with n s. On CPU a few examples are computed at a time, as many as have
    maps that stay in the cache.

    Args:
        q: (b g n d) queries, finite, already divided by their scale.
        k: (b g s d) keys, finite.
        v: (b g s e) values, finite.
        mask: (b s) bool, which keys are seen.

    Returns:
        (b g n e), of the type of `v`; 0 in an example that has no key to show. Scores
        are computed in float32 or wider.
    """
    hidden = jnp.where(mask, 0.0, HIDDEN)[:, None, :, None]
    return _attention(q, k, v, hidden.astype(exact(q)), jnp.any(mask, axis=1))


def exact(x: Array) -> Any:
    """The type of `x`, but float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


@jax.custom_vjp
def _attention(q: Array, k: Array, v: Array, hidden: Array, some: Array) -> Array:
    return _forward(q, k, v, hidden, some)[0]


def _forward(q: Array, k: Array, v: Array, hidden: Array, some: Array) -> Any:
    y, log_sum = _run(_look, q, k, v, hidden, some)
    return y, (q, k, v, hidden, some, y, log_sum)


def _backward(known: tuple[Array, ...], dy: Array) -> tuple[Array | None, ...]:
    return *_run(_look_back, *known, dy), None, None


_attention.defvjp(_forward, _backward)


def _run(f: Callable[..., Any], q: Array, k: Array, *others: Array) -> Any:
    """`f` of all examples; on CPU by parts."""
    most = chunk_size_for(q.shape[1] * q.shape[2] * k.shape[2])
    parts = lambda *x: map_in_chunks(f, x, most)
    return jax.lax.platform_dependent(q, k, *others, cpu=parts, default=f)


def _look(
    q: Array, k: Array, v: Array, hidden: Array, some: Array
) -> tuple[Array, Array]:
    """y, and L (b g n 1), 0 where there is no key."""
    scores = _product(_beside(q, 1), _beside(k, hidden))
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - top).astype(v.dtype)
    # Their sum is one more column of values: one product reads them once.
    both = jnp.matmul(weights, _beside(v, 1), preferred_element_type=scores.dtype)
    total, some = both[..., -1:], some[:, None, None, None]
    y = jnp.where(some, both[..., :-1] / total, 0)
    return y.astype(v.dtype), jnp.where(some, top + jnp.log(total), 0)


def _look_back(
    q: Array,
    k: Array,
    v: Array,
    hidden: Array,
    some: Array,
    y: Array,
    log_sum: Array,
    dy: Array,
) -> tuple[Array, Array, Array]:
    """The gradients for q, k and v.

    dV = P^T dy,  dS = P (dy V^T - dy y),  dq = dS k,  dk = dS^T q
    """
    del some
    shift = jnp.concatenate([-log_sum, jnp.ones_like(log_sum)], axis=-1)
    weights = jnp.exp(_product(_beside(q, shift), _beside(_beside(k, 1), hidden)))
    at_y = jnp.sum(dy.astype(weights.dtype) * y, axis=-1, keepdims=True)
    ds = weights * _product(_beside(dy, -at_y), _beside(v, 1))
    dq = jnp.matmul(ds.astype(q.dtype), k)
    dk = across(ds.astype(q.dtype), q)
    dv = across(weights.astype(v.dtype), dy)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


def across(maps: Array, x: Array) -> Array:
    """maps^T x: maps (... n s), x (... n d), (... s d)."""
    # XLA's product for CPU is several times as fast with the map on this side; the
    # barrier keeps it from turning the product around to save the transposition.
    turned = jnp.matmul(jnp.swapaxes(x, -1, -2), maps)
    return jnp.swapaxes(jax.lax.optimization_barrier(turned), -1, -2)


def _product(q: Array, k: Array) -> Array:
    return jnp.matmul(q.astype(exact(q)), jnp.swapaxes(k, -1, -2).astype(exact(q)))


def _beside(x: Array, more: Array | float) -> Array:
    """`x` (... d) with more columns (... e), or one of a number, at its end."""
    column = jnp.asarray(more, jnp.result_type(x, more))
    width = column.shape[-1:] or (1,)
    column = jnp.broadcast_to(column, (*x.shape[:-1], *width))
    return jnp.concatenate([x, column], axis=-1)
