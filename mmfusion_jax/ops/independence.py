"""Measures of statistical dependence between two sets of features."""

import chex
import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array


def hsic(x: Array, y: Array, weight: Array) -> Array:
    """Returns the Hilbert-Schmidt independence criterion with inner-product kernels.

        Tr(U K_x U K_y) / (n - 1)^2 = |x_c^T y_c|_F^2 / (n - 1)^2

    x_c and y_c have centered columns; the cost is O(n d e), without an n by n matrix.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = jnp.array([[1.0], [-1.0], [0.0]])
        >>> (
        ...     float(mmf.ops.hsic(x, x, jnp.ones(3))),
        ...     float(mmf.ops.hsic(x, 0 * x, jnp.ones(3))),
        ... )
        (1.0, 0.0)

    Args:
        x: (b d).
        y: (b e).
        weight: (b) bool or float; rows with a weight of 0 are ignored, whatever their
            values. n is the number of the others.

    Returns:
        () float, at least 0; 0 for fewer than two rows. It scales with the fourth power
        of the features.

    Reference:
        MEA, Eq. 13, with the inner product as kernel.
    """
    chex.assert_equal_shape_prefix([x, y], 1)
    valid = weight > 0
    n = jnp.sum(valid, dtype=jnp.int32)
    x, y = _centered(x, valid, n), _centered(y, valid, n)
    product = jnp.matmul(x.T, y, precision="highest")
    return jnp.sum(jnp.square(product)) / jnp.square(jnp.maximum(n - 1, 1))


def squared_cross_correlation(x: Array, y: Array, weight: Array) -> Array:
    """Difference loss: mean squared cross-correlation of two sets of features.

        mean((X^T Y)^2)

    The columns of X and Y are centered, then their rows are divided by their norms,
    which have no gradient.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = jnp.array([[1.0], [-1.0]])
        >>> round(float(mmf.ops.squared_cross_correlation(x, x, jnp.ones(2))), 2)
        4.0

    Args:
        x: (b d).
        y: (b e).
        weight: (b) bool or float; rows with a weight of 0 are ignored.

    Returns:
        () float, at least 0; invariant to the scale of the features.

    Reference:
        MISA (Hazarika et al. 2020), difference loss, as in its code.
    """
    chex.assert_equal_shape_prefix([x, y], 1)
    valid = weight > 0
    n = jnp.sum(valid, dtype=jnp.int32)
    x, y = (_normalize_rows(_centered(z, valid, n)) for z in (x, y))
    return jnp.mean(jnp.square(jnp.matmul(x.T, y, precision="highest")))


def _normalize_rows(x: Array) -> Array:
    """Divides rows by their norm; the result is shorter than 1 for norms near 0."""
    # MISA's code treats norms as constants; this also avoids their gradient, which is
    # NaN for a row of zeros.
    norm = jnp.linalg.norm(jax.lax.stop_gradient(x), axis=1, keepdims=True)
    return x / (norm + 1e-6)


def _centered(x: Array, valid: Array, n: Array) -> Array:
    """Subtracts the mean over the valid rows, in float32 or wider; 0 on other rows."""
    # Masked twice: before the sum, so that NaN in a masked row stays out of the mean,
    # and after the subtraction, which makes masked rows -mean.
    x = zero_masked(x.astype(jnp.promote_types(x.dtype, jnp.float32)), valid)
    return zero_masked(x - jnp.sum(x, axis=0) / jnp.maximum(n, 1), valid)
