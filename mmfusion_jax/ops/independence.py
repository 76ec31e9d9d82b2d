"""How much two sets of features depend on each other."""

import chex
import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array


def hsic(x: Array, y: Array, weight: Array) -> Array:
    """The Hilbert-Schmidt independence criterion with inner-product kernels.

        Tr(U K_x U K_y) / (n - 1)^2 = |x_c^T y_c|_F^2 / (n - 1)^2

    x_c and y_c are centered columns: O(n d e), no n by n matrix is built.

    Args:
        x: (b d).
        y: (b e).
        weight: (b) bool or float; rows that are not above 0 count for nothing, whatever
            they hold. n is the number of the others.

    Returns:
        () float, at least 0; 0 for fewer than two rows. It grows with the fourth power
        of the scale of the features.

    Reference:
        MEA, Eq. 13 and 14.
    """
    chex.assert_equal_shape_prefix([x, y], 1)
    valid = weight > 0
    n = jnp.sum(valid, dtype=jnp.int32)
    product = _centered(x, valid, n).T @ _centered(y, valid, n)
    return jnp.sum(jnp.square(product)) / jnp.square(jnp.maximum(n - 1, 1))


def squared_cross_correlation(x: Array, y: Array, weight: Array) -> Array:
    """The difference loss: how alike two sets of features are, column by column.

        mean((X^T Y)^2)

    The columns of X and Y are centered, then their rows are divided by their lengths,
    which get no gradient.

    Args:
        x: (b d).
        y: (b e).
        weight: (b) bool or float; rows that are not above 0 count for nothing.

    Returns:
        () float, at least 0; it does not change with the scale of the features.

    Reference:
        MISA (Hazarika et al. 2020), Eq. 10, and its code.
    """
    chex.assert_equal_shape_prefix([x, y], 1)
    valid = weight > 0
    n = jnp.sum(valid, dtype=jnp.int32)
    x, y = (_rows(_centered(z, valid, n)) for z in (x, y))
    return jnp.mean(jnp.square(x.T @ y))


def _rows(x: Array) -> Array:
    """`x` with rows of length 1, shorter ones where they were near 0."""
    length = jnp.linalg.norm(jax.lax.stop_gradient(x), axis=1, keepdims=True)
    return x / (length + 1e-6)


def _centered(x: Array, valid: Array, n: Array) -> Array:
    """`x` less its mean over the valid rows, at least float32; 0 on other rows."""
    x = zero_masked(x.astype(jnp.promote_types(x.dtype, jnp.float32)), valid)
    return zero_masked(x - jnp.sum(x, axis=0) / jnp.maximum(n, 1), valid)
