"""Gradient reversal: what helps the layers above is unlearnt by the layers below."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array


def reverse_gradient(x: Array, strength: float | Array = 1.0) -> Array:
    """`x` itself; on the way back its gradient is multiplied by -strength.

    Args:
        x: (b ...).
        strength: a number, () or (b); it gets no gradient itself.

    Reference:
        Ganin and Lempitsky 2015; lambda of MEA, Eq. 15.
    """
    return _reverse(x, jnp.asarray(strength, x.dtype))


def ramp(progress: Array | None, sharpness: float = 10.0) -> Array | float:
    """A strength that grows from 0 to 1 during the training.

        2 / (1 + exp(-sharpness * progress)) - 1

    Args:
        progress: `Batch.progress`, 0..1; None outside training.
        sharpness: how soon it is near 1.

    Returns:
        The shape of `progress`; 1 where that is None, the strength that it ends with.

    Reference:
        Ganin and Lempitsky 2015, Sec. 5.
    """
    if progress is None:
        return 1.0
    return jnp.tanh(sharpness / 2 * progress)


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
