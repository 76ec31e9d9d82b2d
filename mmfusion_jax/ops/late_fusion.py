"""Several classifiers, one decision: rules that combine what each modality says.

All take logits (b m k) of m modalities and `present` (b m) bool. An absent modality has
no say; where none is present all have, so that the result is finite.
"""

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masking import masked_softmax, zero_masked
from mmfusion_jax.types import Array


def average(logits: Array, present: Array) -> Array:
    """Log of the mean of the probabilities, (b k).

        p = (p_1 + .. + p_m) / m

    Reference:
        CFN-SR, Table 1, "Averaging".
    """
    return weighted(logits, present, jnp.zeros(present.shape, logits.dtype))


def weighted(logits: Array, present: Array, scores: Array) -> Array:
    """Log of a weighted mean of the probabilities, (b k).

        p = sum_m w_m p_m,   w = softmax(scores) over those present

    Args:
        logits: (b m k).
        present: (b m) bool.
        scores: (b m).

    Reference:
        Hetero-Fusion-Net, Sec. 5.3, "Late Fusion".
    """
    share = masked_softmax(scores, _heard(present), axis=1)
    log_p = jax.nn.log_softmax(logits)
    return jax.nn.logsumexp(log_p, axis=1, b=share[..., None])


def mean_score(scores: Array, present: Array, weights: Array) -> Array:
    """A weighted mean of scores, (b).

        y = sum_m w_m y_m,   w = softmax(weights) over those present

    Args:
        scores: y_m, (b m).
        present: (b m) bool.
        weights: before the softmax, (b m).
    """
    heard = _heard(present)
    share = masked_softmax(weights, heard, axis=1)
    return jnp.sum(share * zero_masked(scores, heard), axis=1)


def product(logits: Array, present: Array) -> Array:
    """Log of the normalized product of the probabilities, (b k).

        p ~ p_1 * .. * p_m

    Reference:
        CFN-SR, Table 1, "Multiplication".
    """
    log_p = zero_masked(jax.nn.log_softmax(logits), _heard(present))
    return jax.nn.log_softmax(jnp.sum(log_p, axis=1))


def multiplicative(
    logits: Array, present: Array, beta: float, detach: bool = False
) -> Array:
    """What every class would score if it were the true one, (b k), at most 0.

        s_y = sum_m q_m^y log p_m^y
        q_m^y = prod_{j != m} (1 - p_j^y)^(beta / (M - 1))

    A modality counts for less where the others already know the answer. M is the
    number of modalities present.

    Args:
        logits: (b m k), k of 2 or more.
        present: (b m) bool.
        beta: how much less, 0..1; 0 is the logarithm of `product`, up to its norm.
        detach: take q as a constant in the gradient.

    Reference:
        Liu et al. 2018, "Learn to combine modalities", the rule of CFN-SR's Table 1.
    """
    heard = _heard(present)
    log_p = zero_masked(jax.nn.log_softmax(logits), heard)
    log_not_p = zero_masked(_log_complement(logits), heard)
    others = jnp.sum(log_not_p, axis=1, keepdims=True) - log_not_p
    count = jnp.sum(heard, axis=1)[:, None, None]
    q = jnp.exp(beta / jnp.maximum(count - 1, 1) * others)
    if detach:
        q = jax.lax.stop_gradient(q)
    return jnp.sum(q * log_p, axis=1)


def _heard(present: Array) -> Array:
    """Who has a say: those present, or all where none is."""
    return present | ~jnp.any(present, axis=1, keepdims=True)


def _log_complement(logits: Array) -> Array:
    """The logarithm of 1 - p of every class, exact also where p rounds to 1."""
    k = logits.shape[-1]
    rivals = jnp.where(jnp.eye(k, dtype=bool), -jnp.inf, logits[..., None, :])
    return jax.nn.logsumexp(rivals, -1) - jax.nn.logsumexp(logits, -1, keepdims=True)
