"""3x3 convolution over attention maps, with a backward pass that is fast on CPU."""

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.types import Array

SIDE = 3


def convolve_maps(x: Array, w: Array) -> Array:
    """3x3 convolution with zero padding that keeps the size.

    Args:
        x: (b h w c).
        w: (3 3 c k).

    Returns:
        (b h w k), in the dtype of `x`.
    """
    return _convolve(x, w)


def _definition(x: Array, w: Array) -> Array:
    axes = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=axes)


# With few maps XLA's gradients are slow on CPU: for one example at a time, as here, its
# kernel gradient takes seven times as long as the product below (MEA's shapes, 2
# cores). Saved are x and w; the gradients are another convolution and one product.
# Other platforms use them too; there they were not measured.
def _backward(
    arguments: tuple[Array, Array], saved: tuple[()], dy: Array
) -> tuple[Array, Array]:
    del saved
    x, w = arguments
    # The kernel has side 3 and the padding keeps the size, so the input gradient is the
    # same convolution with the kernel flipped and its channels swapped.
    dx = _definition(dy, w[::-1, ::-1].swapaxes(2, 3))
    return dx, _kernel_gradient(x, dy).astype(w.dtype)


_convolve = with_backward(_definition, _backward)


def _kernel_gradient(x: Array, dy: Array) -> Array:
    """One product over all positions, with three shifts per operand: (3 3 c k)."""
    # Shift p of x along h and shift q of dy along w make the nine pairs of shifts from
    # 3 + 3 copies instead of 9.
    height, width = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    dy = jnp.pad(dy, ((0, 0), (0, 0), (1, 1), (0, 0)))
    up = [x[:, p : p + height] for p in range(SIDE)]
    left = [dy[:, :, SIDE - 1 - q :][:, :, :width] for q in range(SIDE)]
    up, left = jnp.stack(up, axis=-2), jnp.stack(left, axis=-2)
    exact = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum("bhwpc,bhwqk->pqck", up, left, preferred_element_type=exact)
