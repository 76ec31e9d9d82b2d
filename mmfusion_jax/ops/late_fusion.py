"""Late fusion rules, which combine the predictions of the modalities.

All take logits (b m k) of m modalities and `present` (b m) bool. An absent modality is
ignored; if none is present all are used, so that the result is finite.

Example:
    >>> import jax.numpy as jnp
    >>> import mmfusion_jax as mmf
    >>> import numpy as np
    >>> logits = jnp.log(jnp.array([[[0.5, 0.5], [0.9, 0.1]]]))
    >>> present = jnp.array([[True, True]])
    >>> print(
    ...     np.asarray(jnp.exp(mmf.ops.late_fusion.average(logits, present))).round(2)
    ... )
    [[0.7 0.3]]
    >>> print(
    ...     np.asarray(jnp.exp(mmf.ops.late_fusion.product(logits, present))).round(2)
    ... )
    [[0.9 0.1]]
"""

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.types import Array


def average(logits: Array, present: Array) -> Array:
    """Log of the mean probabilities, (b k).

        p = (p_1 + .. + p_m) / m

    Reference:
        CFN-SR, Sec. 3.3 and Table 1, "Averaging".
    """
    return weighted(logits, present, jnp.zeros(present.shape, logits.dtype))


def weighted(logits: Array, present: Array, scores: Array) -> Array:
    """Log of the weighted mean of the probabilities, (b k).

        p = sum_m w_m p_m,   w = softmax(scores) over present modalities

    Args:
        logits: (b m k).
        present: (b m) bool.
        scores: (b m).

    Reference:
        Hetero-Fusion-Net, Sec. 5.3, "Late Fusion".
    """
    weights = masked_softmax(scores, _used(present), axis=1)
    log_p = jax.nn.log_softmax(logits)
    # Not the logarithm of the mean of probabilities: those of unlikely classes
    # underflow to 0 in float32, and the loss would be infinite.
    return jax.nn.logsumexp(log_p, axis=1, b=weights[..., None])


def mean_score(scores: Array, present: Array, weights: Array) -> Array:
    """Weighted mean of scores, (b).

        y = sum_m w_m y_m,   w = softmax(weights) over present modalities

    Args:
        scores: Scores y_m, (b m).
        present: (b m) bool.
        weights: Weights before the softmax, (b m).
    """
    used = _used(present)
    weights = masked_softmax(weights, used, axis=1)
    return jnp.sum(weights * zero_masked(scores, used), axis=1)


def product(logits: Array, present: Array) -> Array:
    """Log of the normalized product of the probabilities, (b k).

        p ~ p_1 * .. * p_m

    Reference:
        CFN-SR, Sec. 3.3 and Table 1, "Multiplication".
    """
    log_p = zero_masked(jax.nn.log_softmax(logits), _used(present))
    return jax.nn.log_softmax(jnp.sum(log_p, axis=1))


def multiplicative(logits: Array, present: Array, beta: float) -> Array:
    """Score of every class as the true one in the multiplicative loss, (b k), <= 0.

        s_y = sum_m q_m^y log p_m^y
        q_m^y = prod_{j != m} (1 - p_j^y)^(beta / (M - 1))

    A modality has a lower weight if the others already predict the class. M is the
    number of modalities present.

    Args:
        logits: (b m k), k at least 2.
        present: (b m) bool.
        beta: Strength of the downweighting, 0..1; 0 is the logarithm of `product`, up
            to normalization.

    Reference:
        Liu et al. 2018, "Learn to combine modalities", the rule of CFN-SR's Table 1.
    """
    used = _used(present)
    log_p = zero_masked(jax.nn.log_softmax(logits), used)
    # The products over the other modalities are sums of logarithms: all of them minus
    # the own one, which works for any number of modalities.
    log_not_p = zero_masked(_log_complement(logits), used)
    others = jnp.sum(log_not_p, axis=1, keepdims=True) - log_not_p
    count = jnp.sum(used, axis=1)[:, None, None]
    q = jnp.exp(beta / jnp.maximum(count - 1, 1) * others)
    return jnp.sum(q * log_p, axis=1)


def _used(present: Array) -> Array:
    """Modalities that are used: those present, or all if none is."""
    return present | ~jnp.any(present, axis=1, keepdims=True)


def _log_complement(logits: Array) -> Array:
    """Logarithm of 1 - p of every class, exact also where p rounds to 1."""
    # log(1 - p) is -inf as soon as p rounds to 1, in float32 at a margin of 17. The sum
    # of the other classes is exact and has no such limit.
    k = logits.shape[-1]
    others = jnp.where(jnp.eye(k, dtype=bool), -jnp.inf, logits[..., None, :])
    return jax.nn.logsumexp(others, -1) - jax.nn.logsumexp(logits, -1, keepdims=True)
