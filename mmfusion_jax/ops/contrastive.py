"""InfoNCE loss."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import join_names, shown
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array

POSITIVES = ("pair", "pair_other_class", "same_class")


def l2_normalize(x: Array) -> Array:
    """Normalizes vectors to length 1, (... d).

    A vector shorter than 1e-6 becomes 0, with gradient 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> x = jnp.array([[3.0, 4.0], [0.0, 0.0]])
        >>> print(np.asarray(mmf.ops.l2_normalize(x)).round(2))
        [[0.6 0.8]
         [0.  0. ]]

    Args:
        x: (... d).

    Deviation:
        The gradient of x / |x| is unbounded near 0, where a dead layer would
        destabilize the entire model; it is set to 0 there.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    # Two `where`: the derivative of the square root is infinite at 0, and 0 times
    # infinity is NaN in the backward pass, so the root must not see the 0, even if its
    # result is discarded.
    nonzero = square > 1e-12
    return jnp.where(nonzero, x / jnp.sqrt(jnp.where(nonzero, square, 1)), 0)


def contrast(logits: Array, positive: Array, negative: Array) -> Array:
    """Contrastive loss of every anchor, in nats.

        L_i = -mean_{p in P_i} log(exp(s_ip) / sum_{j in P_i or N_i} exp(s_ij))

    Args:
        logits: Similarities s, (... n s); finite, also where both masks are False.
        positive: Mask of the positives P, (... n s) bool.
        negative: Mask of the negatives N, (... n s) bool.

    Returns:
        (... n); 0 for an anchor without a positive.

    Reference:
        MCL-MCF, Eq. 4; with several positives, Khosla et al. 2020, Eq. 2.
    """
    shape = jnp.broadcast_shapes(logits.shape, positive.shape, negative.shape)
    has_positive = jnp.any(positive, axis=-1, keepdims=True)
    # For an anchor without a positive any finite value will do.
    candidates = jnp.broadcast_to(positive | negative | ~has_positive, shape)
    # The lowest finite number instead of -inf: exp of it is 0 all the same, and log_p
    # stays finite where it is discarded.
    minimum = jnp.finfo(logits.dtype).min
    log_p = jax.nn.log_softmax(jnp.where(candidates, logits, minimum), axis=-1)
    count = jnp.maximum(jnp.sum(positive, axis=-1, dtype=jnp.int32), 1)
    return -jnp.sum(jnp.where(positive, log_p, 0), axis=-1) / count


class ViewRows(NamedTuple):
    """Rows with which anchors are compared, n of them.

    Attributes:
        x: (... n d).
        y: (... n d).
        valid: (... n) bool.
        groups: Class of every row, (n); None if the positives do not depend on it.
        index: Which of the n rows each anchor is, (b) int.
    """

    x: Array
    y: Array
    valid: Array
    groups: Array | None
    index: Array


def info_nce(
    x: Array,
    y: Array,
    valid: Array,
    *,
    scale: float | Array = 1 / 0.07,
    symmetric: bool = True,
    positives: str = "pair",
    groups: Array | None = None,
    candidates: ViewRows | None = None,
) -> Array:
    """InfoNCE loss between rows of `x` and `y`.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import numpy as np
        >>> x = jnp.array([[1.0, 0.0], [0.0, 1.0]])
        >>> print(
        ...     np.asarray(mmf.ops.info_nce(x, x, jnp.ones(2, bool), scale=1.0)).round(
        ...         2
        ...     )
        ... )
        [0.31 0.31]

    Args:
        x: (... b d), usually `l2_normalize` vectors; leading axes are those of several
            pairs of views, whose similarities are one product.
        y: (... b d).
        valid: (... b) bool; other rows are not anchors, positives or negatives.
        scale: Factor of the inner products, 1 / tau.
        symmetric: Use rows of `x` and of `y` as anchors; if False, only of `x`.
        positives: Selects positives and negatives; designs A, B and C of Tables 7, 8.
            "pair" (A): the positive of row i is row i; all others are negatives.
            "pair_other_class" (B): the positive of row i is row i; rows of other
            groups are negatives.
            "same_class" (C): the positives of row i are the other rows of its group;
            rows of other groups are negatives, and row i itself is ignored.
        groups: Class of every row, (b), for "pair_other_class" and "same_class".
        candidates: Rows with which those of `x` and `y` are compared, such as those of
            all devices; None for the rows themselves.

    Returns:
        (... b) losses in nats; 0 for rows that are not valid or have no positive.

    Raises:
        ValueError: `positives` is unknown, or requires `groups`.

    Reference:
        MCL-MCF, Algorithm 1 and Eq. 4.
    Deviation:
        Eq. 4 has anchors in x only, Algorithm 1 in x and y. The algorithm multiplies by
        exp(tau), the equation divides by tau: the scale 1 / 0.07 is both, with tau of
        ln(1 / 0.07) and 0.07.
    """
    chex.assert_equal_shape([x, y])
    # In bfloat16 the logsumexp of logits with a standard deviation of 10 is off by
    # 0.11. Rows that are not valid are zeroed before the product: the gradient of x is
    # a sum over all y, in which 0 times NaN is NaN.
    wide = jnp.promote_types(x.dtype, jnp.float32)
    clean = lambda x, valid: zero_masked(x.astype(wide), valid)
    x, y = clean(x, valid), clean(y, valid)
    if candidates is None:
        others = ViewRows(x, y, valid, groups, jnp.arange(x.shape[-2]))
    else:
        others = candidates._replace(
            x=clean(candidates.x, candidates.valid),
            y=clean(candidates.y, candidates.valid),
        )
    positive, negative = _select(positives, groups, others)
    both = valid[..., :, None] & others.valid[..., None, :]
    positive, negative = positive & both, negative & both
    product = functools.partial(jnp.einsum, "...id,...jd->...ij", precision="highest")
    logits = product(x, others.y) * scale  # ... b n
    loss = contrast(logits, positive, negative)
    if symmetric:
        # Rows compared with themselves need no second product. All masks are symmetric.
        reverse = (
            product(y, others.x) * scale
            if candidates is not None
            else jnp.swapaxes(logits, -1, -2)
        )
        loss = (loss + contrast(reverse, positive, negative)) / 2
    return loss


def _select(
    positives: str, groups: Array | None, others: ViewRows
) -> tuple[Array, Array]:
    """Masks of positives and negatives, (b n) bool each."""
    own = others.index[:, None] == jnp.arange(others.x.shape[-2])[None, :]
    if positives == "pair":
        return own, ~own
    if positives not in POSITIVES:
        raise ValueError(
            f"positives={shown(positives)} is unknown; known: {join_names(POSITIVES)}."
        )
    if groups is None or others.groups is None:
        raise ValueError(f"positives={shown(positives)} requires groups.")
    same = groups[:, None] == others.groups[None, :]
    return (own, ~same) if positives == "pair_other_class" else (same & ~own, ~same)
