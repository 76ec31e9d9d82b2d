"""Attention with a backward pass that recomputes the attention maps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.chunked_map import chunk_size_for, map_in_chunks
from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.types import Array

# Finite, because an example whose scores are all -inf would compute -inf - -inf, which
# is NaN, and NaN in one example reaches the gradients of all weights.
HIDDEN = -1e30
"""Added to the scores of masked keys; the exponential of such a score is 0."""

MIN_QUERIES_FOR_BARRIER = 8
"""Number of queries from which the speed of `transposed_product` matters."""


def dot_attention(q: Array, k: Array, v: Array, mask: Array) -> Array:
    """Dot-product attention without storing the attention maps.

        y_n = sum_s P_ns v_s,  P_ns = exp(q_n k_s - L_n),  L_n = log sum_s exp(q_n k_s)

    The backward pass needs y and L in addition to the arguments, so memory grows with
    n + s and not with n s. On CPU the batch is computed in chunks whose maps fit the
    cache.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> q, k, v = (
        ...     jnp.ones((2, 1, 3, 4)),
        ...     jnp.ones((2, 1, 5, 4)),
        ...     jnp.ones((2, 1, 5, 6)),
        ... )
        >>> mmf.ops.dot_attention(q, k, v, jnp.ones((2, 5), bool)).shape
        (2, 1, 3, 6)

    Args:
        q: (b g n d) queries, finite, already scaled.
        k: (b g s d) keys, finite.
        v: (b g s e) values, finite.
        mask: (b s) bool, the visible keys.

    Returns:
        (b g n e), in the dtype of `v`; 0 in an example without visible keys. Scores are
        computed in float32 or wider.

    Reference:
        Rabe and Staats 2021; the gradients are those of Dao et al. 2022
        (FlashAttention), App. B.
    """
    hidden = jnp.where(mask, 0.0, HIDDEN)[:, None, :, None]
    return _attention(q, k, v, hidden.astype(exact(q)), jnp.any(mask, axis=1))


def exact(x: Array) -> Any:
    """Returns the dtype of `x`, but at least float32."""
    return jnp.promote_types(x.dtype, jnp.float32)


# Autodiff keeps the maps P. In MEA one has 500 x 925 scores for 8 heads and 32
# examples, 118 million elements, and the heads have dim 5: the cost is writing and
# reading maps. Saved are q, k, v, y and the logsumexp L; the backward pass computes P =
# exp(q k - L) again, chunk by chunk. With the LSTM's backward pass, a step of MEA takes
# 11.4 s instead of 27.5 s (batch 32, 2 CPU cores).
def _definition(*arguments: Array) -> Array:
    return _run(_attend, *arguments)[0]


def _forward(*arguments: Array) -> tuple[Array, tuple[Array, Array]]:
    y, log_sum = _run(_attend, *arguments)
    return y, (y, log_sum)


def _backward(
    arguments: tuple[Array, ...], saved: tuple[Array, Array], dy: Array
) -> tuple[Array | None, ...]:
    return *_run(_attend_backward, *arguments, *saved, dy), None, None


_attention = with_backward(_definition, _backward, _forward)


def _run(f: Callable[..., Any], q: Array, k: Array, *others: Array) -> Any:
    """Computes `f` for all examples; on CPU in chunks."""
    # On CPU the maps of a few examples at a time stay in the cache. On accelerators a
    # loop over chunks would leave less to do in parallel; that was not measured.
    size = chunk_size_for(q.shape[1] * q.shape[2] * k.shape[2])
    chunked = lambda *x: map_in_chunks(f, x, size)
    return jax.lax.platform_dependent(q, k, *others, cpu=chunked, default=f)


def _attend(
    q: Array, k: Array, v: Array, hidden: Array, visible: Array
) -> tuple[Array, Array]:
    """Computes y and L (b g n 1), 0 without visible keys."""
    # q [k; hidden]: with a column of ones in q the product also adds the mask, so that
    # no separate pass over the map is needed.
    scores = _product(_append_column(q, 1), _append_column(k, hidden))
    top = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.exp(scores - top).astype(v.dtype)
    # With a column of ones the same product also computes the sum of the weights.
    both = jnp.matmul(
        weights, _append_column(v, 1), preferred_element_type=scores.dtype
    )
    total, visible = both[..., -1:], visible[:, None, None, None]
    y = jnp.where(visible, both[..., :-1] / total, 0)
    return y.astype(v.dtype), jnp.where(visible, top + jnp.log(total), 0)


def _attend_backward(
    q: Array,
    k: Array,
    v: Array,
    hidden: Array,
    visible: Array,
    y: Array,
    log_sum: Array,
    dy: Array,
) -> tuple[Array, Array, Array]:
    """Computes the gradients of q, k and v.

    dV = P^T dy,  dS = P (dy V^T - dy y),  dq = dS k,  dk = dS^T q
    """
    del visible
    # Two more columns: q k + 1 hidden - L 1, the logarithm of P, is one product.
    shift = jnp.concatenate([-log_sum, jnp.ones_like(log_sum)], axis=-1)
    weights = jnp.exp(
        _product(_append_column(q, shift), _append_column(_append_column(k, 1), hidden))
    )
    # sum_s P_ns dP_ns, which the derivative of a softmax needs, equals dy_n y_n, so it
    # takes no pass over the map.
    at_y = jnp.sum(dy.astype(weights.dtype) * y, axis=-1, keepdims=True)
    ds = weights * _product(_append_column(dy, -at_y), _append_column(v, 1))
    dq = jnp.matmul(ds.astype(q.dtype), k)
    dk = transposed_product(ds.astype(q.dtype), q)
    dv = transposed_product(weights.astype(v.dtype), dy)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype)


def transposed_product(maps: Array, x: Array) -> Array:
    """Computes maps^T x, (... s d), of maps (... n s) and x (... n d)."""
    # With the map as the right operand XLA's product takes a third of the time (MEA's
    # shapes, 2 CPU cores). The barrier prevents XLA from swapping the operands again to
    # save the transposition.
    product = jnp.matmul(jnp.swapaxes(x, -1, -2), maps)
    # Of up to 3 queries XLA's compiler for CPU makes loops, and with the barrier it
    # aborts the process (jax 0.10.2, also in float64).
    if maps.shape[-2] >= MIN_QUERIES_FOR_BARRIER:
        product = jax.lax.optimization_barrier(product)
    return jnp.swapaxes(product, -1, -2)


def _product(q: Array, k: Array) -> Array:
    return jnp.matmul(q.astype(exact(q)), jnp.swapaxes(k, -1, -2).astype(exact(q)))


def _append_column(x: Array, more: Array | float) -> Array:
    """Appends columns (... e), or one column of a constant, to `x` (... d)."""
    column = jnp.asarray(more, jnp.result_type(x, more))
    width = column.shape[-1:] or (1,)
    column = jnp.broadcast_to(column, (*x.shape[:-1], *width))
    return jnp.concatenate([x, column], axis=-1)
