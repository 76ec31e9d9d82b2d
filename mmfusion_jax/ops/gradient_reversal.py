"""Gradient reversal layer."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


def reverse_gradient(x: Array, strength: float | Array = 1.0) -> Array:
    """Returns `x`; its gradient is multiplied by -strength, and so is its tangent.

    Example:
        >>> import jax
        >>> import mmfusion_jax as mmf
        >>> float(jax.grad(lambda x: mmf.ops.reverse_gradient(x, 0.5))(1.0))
        -0.5

    Args:
        x: (b ...).
        strength: Factor, () or (b); it has no gradient.

    Reference:
        Ganin and Lempitsky 2015; used in MEA, Sec. III-E.3, without a strength.
    """
    return _reverse(x, jnp.asarray(strength, x.dtype))


def ramp(train_fraction: Array | None, sharpness: float = 10.0) -> Array | float:
    """Schedule of the strength from 0 to 1 during the training.

        2 / (1 + exp(-sharpness * train_fraction)) - 1

    Args:
        train_fraction: `Batch.train_fraction`, 0..1; None outside training.
        sharpness: Factor of the fraction; a higher one approaches 1 earlier.

    Returns:
        The shape of `train_fraction`; 1, the final value, if that is None.

    Reference:
        Ganin and Lempitsky 2015, Sec. 5.
    """
    if train_fraction is None:
        return 1.0
    # 2 / (1 + exp(-z)) - 1 is tanh(z / 2), which cannot overflow.
    return jnp.tanh(sharpness / 2 * train_fraction)


# No function has this gradient, so autodiff cannot derive it. The sum (1 + strength)
# stop_gradient(x) - strength x would have it, but is x only up to rounding. The rule is
# for tangents, of which JAX derives the one for gradients, the same product.
@jax.custom_jvp
def _reverse(x: Array, strength: Array) -> Array:
    del strength
    return x


@_reverse.defjvp
def _reverse_tangent(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (x, strength), (dx, _) = primals, tangents
    factor = strength.reshape(strength.shape + (1,) * (jnp.ndim(x) - strength.ndim))
    # x and not _reverse(x): a second derivative is that of the reversed gradient, which
    # is a function of x like any other, and is reversed once.
    return x, -factor * dx
