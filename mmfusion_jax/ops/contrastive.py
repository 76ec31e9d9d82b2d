"""Contrast: what belongs together must be found among what does not."""

import chex
import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array

POSITIVES = ("A", "B", "C")


def l2_normalize(x: Array) -> Array:
    """Vectors of length 1, (... d); one shorter than 1e-6 becomes 0, with gradient 0.

    Args:
        x: (... d).

    Deviation:
        The gradient of x / |x| grows without bound towards 0, where a dead layer would
        push the whole model away; it is cut off there.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    long = square > 1e-12
    return jnp.where(long, x / jnp.sqrt(jnp.where(long, square, 1)), 0)


def contrast(logits: Array, positive: Array, negative: Array) -> Array:
    """The loss of every anchor, in nats.

        L_i = -mean_{p in P_i} log(exp(s_ip) / sum_{j in P_i or N_i} exp(s_ij))

    Args:
        logits: s, (... n s); finite, also where neither mask is True.
        positive: P, (... n s) bool.
        negative: N, (... n s) bool.

    Returns:
        (... n); 0 for an anchor without a positive.

    Reference:
        MCL-MCF, Eq. 4; with several positives, Khosla et al. 2020, Eq. 2.
    """
    shape = jnp.broadcast_shapes(logits.shape, positive.shape, negative.shape)
    found = jnp.any(positive, axis=-1, keepdims=True)
    # An anchor without a positive sees everything: any finite number does.
    seen = jnp.broadcast_to(positive | negative | ~found, shape)
    lowest = jnp.finfo(logits.dtype).min
    log_p = jax.nn.log_softmax(jnp.where(seen, logits, lowest), axis=-1)
    count = jnp.maximum(jnp.sum(positive, axis=-1, dtype=jnp.int32), 1)
    return -jnp.sum(jnp.where(positive, log_p, 0), axis=-1) / count


def info_nce(
    x: Array,
    y: Array,
    valid: Array,
    *,
    scale: float | Array = 1 / 0.07,
    symmetric: bool = True,
    positives: str = "A",
    groups: Array | None = None,
) -> Array:
    """InfoNCE: row i of `x` must find its partners in `y`, and the reverse.

    Args:
        x: (b d), as they are to be compared: usually `l2_normalize` vectors.
        y: (b d).
        valid: (b) bool; another row is no anchor, no positive and no negative.
        scale: what the inner products are multiplied by, 1 / tau.
        symmetric: False: only `x` looks for `y`.
        positives: which rows belong together, and which do not; Tables 7 and 8.
            "A": row i with row i; all others are negatives.
            "B": row i with row i; rows of other groups are negatives.
            "C": row i with the other rows of its group; rows of other groups are
            negatives, and the row with its own partner counts for nothing.
        groups: (b), for designs "B" and "C".

    Returns:
        (b) losses in nats; 0 on rows that are not valid or have no partner.

    Raises:
        ValueError: `positives` is unknown, or needs `groups`.

    Reference:
        MCL-MCF, Algorithm 1 and Eq. 4.
    Deviation:
        Eq. 4 shows rows only, Algorithm 1 rows and columns; it multiplies by exp(tau),
        the equation divides by tau: 1 / 0.07 is both, for tau of .07 and of ln(1/.07).
    """
    chex.assert_equal_shape([x, y])
    positive, negative = _design(positives, groups, len(x))
    both = valid[:, None] & valid[None, :]
    positive, negative = positive & both, negative & both
    wide = jnp.promote_types(x.dtype, jnp.float32)
    x, y = zero_masked(x.astype(wide), valid), zero_masked(y.astype(wide), valid)
    logits = x @ y.T * scale  # b b
    loss = contrast(logits, positive, negative)
    if symmetric:
        loss = (loss + contrast(logits.T, positive.T, negative.T)) / 2
    return loss


def _design(design: str, groups: Array | None, size: int) -> tuple[Array, Array]:
    """Which rows are partners and which are not, (b b) bool each."""
    own = jnp.eye(size, dtype=bool)
    if design == "A":
        return own, ~own
    if design not in POSITIVES:
        raise ValueError(
            f"design={design!r} is unknown; known: {', '.join(POSITIVES)}."
        )
    if groups is None:
        raise ValueError(f"design={design!r} needs groups, the class of every row.")
    same = groups[:, None] == groups[None, :]
    return (own, ~same) if design == "B" else (same & ~own, ~same)
