"""The 7x7x7 stem convolution with stride (1, 2, 2), for CPU."""

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array

# Two steps have 128 output channels: .20 s for two clips of 30x112x112 on 2 cores,
# instead of .32 s for one step at a time, which uses one core. An eighth of the
# products is by zeros. Ten or all sixty steps at once made no difference.
STEPS_PER_CALL = 2


def conv(x: Array, w: Array) -> Array:
    """Computes the convolution; see `conv3d.stem_conv3d`.

    The temporal taps become channels, which leaves 2D convolutions. Each computes
    STEPS_PER_CALL neighboring steps at once from their common inputs: XLA distributes
    the outputs of a 2D convolution over the cores, and one step has too few of them.
    """
    b, t, h, width, c = x.shape
    calls, inputs = -(-t // STEPS_PER_CALL), 6 + STEPS_PER_CALL
    pad = (3, 3 + calls * STEPS_PER_CALL - t)
    padded = jnp.pad(x, ((0, 0), pad, (0, 0), (0, 0), (0, 0)))
    padded = padded.transpose(0, 2, 3, 1, 4).reshape(b, h, width, -1)
    # Output step i of a call reads inputs i to i + 6: its kernel, shifted by i.
    shifted = [
        jnp.pad(w, ((i, STEPS_PER_CALL - 1 - i), *(((0, 0),) * 4)))
        for i in range(STEPS_PER_CALL)
    ]
    flat = jnp.concatenate(shifted, axis=-1).transpose(1, 2, 0, 3, 4)
    flat = flat.reshape(7, 7, inputs * c, -1)

    def call(_, i: Array):
        window = (i // calls, 0, 0, i % calls * STEPS_PER_CALL * c)
        near = jax.lax.dynamic_slice(padded, window, (1, h, width, inputs * c))
        y = jax.lax.conv_general_dilated(
            near,
            flat,
            (2, 2),
            ((3, 3),) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y.reshape(*y.shape[1:3], STEPS_PER_CALL, -1)
        return None, jnp.stack([y[:, :, i] for i in range(STEPS_PER_CALL)])

    y = jax.lax.scan(call, None, jnp.arange(b * calls))[1]
    return y.reshape(b, calls * STEPS_PER_CALL, *y.shape[2:])[:, :t]


def gradients(x: Array, w: Array, dy: Array) -> tuple[Array, Array]:
    """Computes the gradients with respect to `x` and `w`."""
    # The input is usually pixels, whose gradient is not used, and XLA then drops it: so
    # it has no faster form.
    dx = jax.vjp(lambda x: conv(x, w), x)[1](dy)[0]
    return dx, filter_gradient(x, dy)


def filter_gradient(x: Array, dy: Array) -> Array:
    """Computes the gradient of the kernel with two matrix products per step.

    Rows and columns of x are separated into even and odd ones, so that a stride of 2
    becomes a stride of 1. Tap j of the kernel is then the plane j % 2 shifted by
    j // 2: columns are shifted in x, rows in dy, and each product computes all taps
    with the same row parity.

    Args:
        x: (b t h w c).
        dy: (b t h' w' k).

    Returns:
        (7 7 7 c k).
    """
    b, t, _, _, c = x.shape
    rows, columns, k = dy.shape[2:]
    planes = _planes(x, rows + 3, columns + 3)
    dy = jnp.pad(dy.reshape(b * t, rows, columns, k), ((0, 0), (3, 3), (0, 0), (0, 0)))

    def shifted_x(odd: int, i: Array) -> Array:
        start = (i // t * (t + 6) + i % t, 0, 0)
        size = (7, c, rows + 3, columns)
        parts = [
            jax.lax.dynamic_slice(planes[odd, j % 2], (*start, j // 2), size)
            for j in range(7)
        ]
        return jnp.concatenate(parts).reshape(49 * c, -1)

    def shifted_dy(taps: int, i: Array) -> Array:
        frame = jax.lax.dynamic_index_in_dim(dy, i, keepdims=False)
        parts = [frame[3 - j : 6 - j + rows] for j in range(taps)]
        return jnp.concatenate(parts, axis=-1).reshape(-1, taps * k)

    # Even and odd rows in two products: 4 and 3 taps, all with full matrices.
    def add(i: Array, total: tuple[Array, Array]) -> tuple[Array, Array]:
        even, odd = total
        even = even + shifted_x(0, i) @ shifted_dy(4, i)
        odd = odd + shifted_x(1, i) @ shifted_dy(3, i)
        return even, odd

    zero = tuple(jnp.zeros((49 * c, taps * k), x.dtype) for taps in (4, 3))
    even, odd = jax.lax.fori_loop(0, b * t, add, zero)
    w = jnp.zeros((7, 7, 7, c, k), x.dtype)
    w = w.at[:, ::2].set(_kernel(even, c, k))
    return w.at[:, 1::2].set(_kernel(odd, c, k))


def _planes(x: Array, rows: int, columns: int) -> Array:
    """Pads x and separates row and column parity: (2 2 b*(t+6) c rows columns)."""
    b, t, h, width, c = x.shape
    below, right = 2 * rows - 3 - h, 2 * columns - 3 - width
    x = jnp.pad(x, ((0, 0), (3, 3), (3, below), (3, right), (0, 0)))
    x = x.reshape(b * (t + 6), rows, 2, columns, 2, c)
    return x.transpose(2, 4, 0, 5, 1, 3)


def _kernel(product: Array, c: int, k: int) -> Array:
    """Reshapes (columns steps c, rows k) to (steps rows columns c k)."""
    return product.reshape(7, 7, c, -1, k).transpose(1, 3, 0, 2, 4)
