"""Gradient reversal layer."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


def reverse_gradient(x: Array, strength: float | Array = 1.0) -> Array:
    """Returns `x`; its gradient is multiplied by -strength.

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
# stop_gradient(x) - strength x would have it, but is x only up to rounding. Saved is
# the strength alone; the backward pass multiplies.
@jax.custom_vjp
def _reverse(x: Array, strength: Array) -> Array:
    del strength
    return x


def _forward(x: Array, strength: Array) -> tuple[Array, Array]:
    return x, strength


def _backward(strength: Array, dy: Array) -> tuple[Array, Array]:
    factor = strength.reshape(strength.shape + (1,) * (dy.ndim - strength.ndim))
    return -factor * dy, jnp.zeros_like(strength)


_reverse.defvjp(_forward, _backward)
