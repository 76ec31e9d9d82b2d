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
        axis: Axis of pmap or shard_map over which the examples are split; None
            under jit.

    Returns:
        The fraction, () float32 or wider, 0..1; 0 if the feature is 0 everywhere, or
        without valid examples.
    """
    rows = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(len(x), -1)
    rows = zero_masked(rows, valid)
    # Around the mean, not E[x^2] - E[x]^2, which rounding makes larger than 0 for a
    # feature that is equal for all examples. Each device centers on its own mean, so
    # that the devices communicate once.
    count = jnp.sum(valid, dtype=jnp.int32).astype(rows.dtype)
    mean, centered = _centered(rows, valid, valid.astype(rows.dtype))
    own = jnp.concatenate([mean, _squares(centered), count[None]])
    gathered = own[None] if axis is None else jax.lax.all_gather(own, axis)
    means, squares, counts = jnp.split(gathered, [len(mean), len(own) - 1], axis=1)
    counts = counts[:, 0]
    mean, between = _centered(means, counts > 0, counts)
    # Chan, Golub and LeVeque 1983: squares around the means of the devices, and those
    # of the means around the mean.
    varying = jnp.sum(squares, axis=0) + _squares(between)
    energies = varying + _squares(mean * jnp.sqrt(jnp.sum(counts)))
    plain = energies[0]
    chosen = jnp.where(plain < 1e-12, 1, jnp.where(plain > 1e12, 2, 0))
    energy = energies[chosen]
    return varying[chosen] / jnp.where(energy > 0, energy, 1)


def _centered(rows: Array, valid: Array, weight: Array) -> tuple[Array, Array]:
    """Returns the weighted mean of valid rows, and the rows around it.

    Args:
        rows: (n d).
        valid: (n) bool.
        weight: (n), 0 where not valid.

    Returns:
        The mean, (d), and the differences times sqrt(weight), (n d).
    """
    # Around one of them first: the mean of equal rows is then exactly that row.
    first = jax.lax.stop_gradient(rows[jnp.argmax(valid)])
    shifted = zero_masked(rows - first, valid)
    weight = weight[:, None]
    total = jnp.sum(weight)
    shift = jnp.sum(weight * shifted, axis=0) / jnp.where(total > 0, total, 1)
    return first + shift, jnp.sqrt(weight) * (shifted - shift)


def _squares(x: Array) -> Array:
    """Sums of the squares at every scale, (3)."""
    # Squares of small features underflow, and those of large ones overflow.
    return jnp.stack([jnp.sum(jnp.square(x * 2.0**k)) for k in SCALES])
