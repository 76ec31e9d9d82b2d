"""Fraction of the energy of a feature that differs between examples."""

import jax.numpy as jnp

from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array


def varying_energy(x: Array, valid: Array) -> Array:
    """Computes the fraction of the energy of a feature that differs between examples.

        sum_i |x_i - mean_j x_j|^2 / sum_i |x_i|^2

    It is 0 for a feature that is equal for all examples, and hence for one that is 0,
    such as a dead ReLU; and 1 for one whose mean over the examples is 0.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> valid = jnp.ones(2, bool)
        >>> print(mmf.ops.varying_energy(jnp.array([[3.0], [1.0]]), valid).round(3))
        0.2

    Args:
        x: Feature of every example, (b ...), arbitrary where not valid.
        valid: Examples to compare, (b) bool.

    Returns:
        The fraction, () float32 or wider, 0..1; 0 if the feature is 0 everywhere, or
        without valid examples.
    """
    rows = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(len(x), -1)
    rows = zero_masked(rows, valid)
    # Divided by the largest element first: squares of small features would underflow.
    largest = jnp.max(jnp.abs(rows), initial=0.0)
    rows = rows / jnp.where(largest > 0, largest, 1)
    center = jnp.sum(rows, axis=0) / jnp.maximum(jnp.sum(valid), 1)
    varying = jnp.sum(jnp.square(zero_masked(rows - center, valid)))
    energy = jnp.sum(jnp.square(rows))
    return varying / jnp.where(energy > 0, energy, 1)
