"""Grouped 3x3x3 convolutions as sums over taps, for CPU.

Few channels in many groups use `grouped_cpu_simd`, with the groups as SIMD lanes;
everything else uses `grouped_cpu_matmul`, batches of matrix products. Each has a
convolution and a filter gradient; the input gradient is a convolution again. Narrower
dtypes than float32 are computed in float32.
"""

import jax.numpy as jnp
import numpy as np

from mmfusion_jax.ops.conv import grouped_cpu_matmul, grouped_cpu_simd
from mmfusion_jax.types import Array

# With up to 8 channels in a group a matrix product is too small to be fast, but
# elementwise loops over the groups fill the SIMD lanes (AVX-512: 16 of float32). With
# 16 or 32 channels per group, products are faster.
FEW_CHANNELS = 8
MANY_GROUPS = 16


def conv(x: Array, w: Array, *, stride: int, groups: int) -> Array:
    """Computes the convolution; see `conv3d.grouped_conv3d`."""
    y = _conv(_exact(x), _exact(w), stride, groups, (1, 1))
    return y.astype(x.dtype)


def gradients(
    x: Array, w: Array, dy: Array, *, stride: int, groups: int
) -> tuple[Array, Array]:
    """Computes the gradients with respect to `x` and `w`."""
    kernel, dy = _exact(w), _exact(dy)
    dw = _implementation(w, groups).filter_gradient(_exact(x), dy, stride, groups)
    input_gradient = _input_of_stride_1 if stride == 1 else _input_of_stride_2
    dx = input_gradient(dy, kernel, groups, x.shape)
    return dx.astype(x.dtype), dw.astype(w.dtype)


def _conv(x: Array, w: Array, stride: int, groups: int, pad: tuple[int, int]) -> Array:
    """Convolution of any size, with the same padding along s, h and w."""
    return _implementation(w, groups).conv(x, w, stride, groups, pad)


def _implementation(w: Array, groups: int):
    """Returns the module that is fastest for this kernel."""
    # Both modules have the same functions and layout of kernels, so that a checkpoint
    # does not depend on the choice.
    lanes = w.shape[3] <= FEW_CHANNELS and groups >= MANY_GROUPS
    return grouped_cpu_simd if lanes else grouped_cpu_matmul


def _exact(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _input_of_stride_1(
    dy: Array, w: Array, groups: int, shape: tuple[int, ...]
) -> Array:
    """Convolution of dy with the flipped kernel, inputs and outputs swapped."""
    inner = w.shape[3]
    # A convolution of the same kind, so it uses the same fast implementation.
    w = w[::-1, ::-1, ::-1].reshape(3, 3, 3, inner, groups, -1)
    w = w.transpose(0, 1, 2, 5, 4, 3).reshape(3, 3, 3, -1, shape[-1])
    return _conv(dy, w, 1, groups, (1, 1))


def _input_of_stride_2(
    dy: Array, w: Array, groups: int, shape: tuple[int, ...]
) -> Array:
    """2x2x2 convolution of dy to the eight parities of a position, then interleaved.

    Along one axis, x[2q] contributes to y[q] through tap 1; x[2q+1] contributes to
    y[q] through tap 2 and to y[q+1] through tap 0.
    """
    inner = w.shape[3]
    # XLA would dilate dy, and multiply the 7 of 8 positions that are zeros.
    tap = np.array([[1, 3], [2, 0]])  # parity, step from q; tap 3 is zero
    w = jnp.pad(w, ((0, 1), (0, 1), (0, 1), (0, 0), (0, 0)))
    w = w.reshape(4, 4, 4, inner, groups, -1)
    w = w[tap][:, :, tap][:, :, :, :, tap]  # parity, step; three times; c g k
    w = w.transpose(1, 3, 5, 8, 7, 0, 2, 4, 6)
    w = w.reshape(2, 2, 2, -1, 8 * shape[-1])
    y = grouped_cpu_matmul.conv(dy, w, 1, groups, (0, 1))
    b, s, h, width = y.shape[:4]
    y = y.reshape(b, s, h, width, groups, 2, 2, 2, inner)
    y = y.transpose(0, 1, 5, 2, 6, 3, 7, 4, 8)
    y = y.reshape(b, 2 * s, 2 * h, 2 * width, shape[-1])
    return y[:, : shape[1], : shape[2], : shape[3]]
