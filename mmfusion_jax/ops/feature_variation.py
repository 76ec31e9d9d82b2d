"""Fraction of the energy of a feature that differs between examples."""

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array

SCALES = (0, 60, -60)
"""Exponents of powers of 2; one of them brings the squares of any float32 into range,
except for those of subnormal numbers."""


def varying_energy(x: Array, valid: Array, axis: str | None = None) -> Array:
    """Computes the fraction of the energy of a feature that differs between examples.

        sum_i |x_i - mean_j x_j|^2 / sum_i |x_i|^2

    It is 0 for a feature that is 0, such as a dead ReLU; 0 up to rounding, about 1e-7
    in float32, for one that is equal for all examples; and 1 for one whose mean over
    the examples is 0. Smaller fractions than about 1e-6 are not resolved.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> valid = jnp.ones(2, bool)
        >>> print(mmf.ops.varying_energy(jnp.array([[3.0], [1.0]]), valid).round(3))
        0.2

    Args:
        x: Feature of every example, (b ...), arbitrary where not valid.
        valid: Examples to compare, (b) bool.
        axis: Axis of pmap or shard_map over which the examples are split; None
            under jit.

    Returns:
        The fraction, () float32 or wider, 0..1; 0 if the feature is 0 everywhere, or
        without valid examples.
    """
    rows = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(len(x), -1)
    rows = zero_masked(rows, valid)
    # Sums alone, which devices add in one exchange: with the mean first, or divided by
    # the largest element, they would wait for each other three times.
    sums = (
        jnp.sum(rows, axis=0),
        jnp.sum(valid, dtype=rows.dtype),  # as the others, to be added with them
        # Squares of small features underflow, and those of large ones overflow.
        jnp.stack([jnp.sum(jnp.square(rows * 2.0**k)) for k in SCALES]),
    )
    total, count, energies = sums if axis is None else jax.lax.psum(sums, axis)
    plain = energies[0]
    chosen = jnp.where(plain < 1e-12, 1, jnp.where(plain > 1e12, 2, 0))
    energy, scale = energies[chosen], jnp.exp2(jnp.array(SCALES, rows.dtype))[chosen]
    shared = jnp.sum(jnp.square(total * scale)) / jnp.maximum(count, 1)
    # Below 0 by rounding alone, for a feature that is equal for all examples.
    varying = jnp.maximum(energy - shared, 0)
    return varying / jnp.where(energy > 0, energy, 1)
