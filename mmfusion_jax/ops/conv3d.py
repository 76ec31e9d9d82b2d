"""Convolutions over clips (b s h w c), kernels DHWIO."""

import jax

from mmfusion_jax.types import Array


def grouped_conv3d(
    x: Array, w: Array, *, stride: int, groups: int, method: str | None = None
) -> Array:
    """A 3x3x3 convolution in groups, zero padding 1.

    Args:
        x: (b s h w c).
        w: (3 3 3 c/groups k).
        stride: step along s, h and w.
        groups: number of groups; divides c and k.
        method: None for the fastest form known for the platform.

    Returns:
        (b s' h' w' k) with s' = ceil(s / stride), and so on.
    """
    del method
    return _lax_conv(x, w, (stride,) * 3, 1, groups)


def stem_conv3d(x: Array, w: Array) -> Array:
    """A 7x7x7 convolution of stride (1, 2, 2), zero padding 3.

    Args:
        x: (b s h w c), any number of channels.
        w: (7 7 7 c k).

    Returns:
        (b s ceil(h/2) ceil(w/2) k).
    """
    return _lax_conv(x, w, (1, 2, 2), 3, 1)


def pointwise_conv3d(x: Array, w: Array, *, stride: int = 1) -> Array:
    """A 1x1x1 convolution: a matrix product at every position kept.

    Args:
        x: (b s h w c).
        w: (c k).
        stride: step along s, h and w.
    """
    if stride > 1:
        x = x[:, ::stride, ::stride, ::stride]
    return x @ w


def _lax_conv(
    x: Array, w: Array, strides: tuple[int, ...], padding: int, groups: int
) -> Array:
    """The convolution as XLA does it."""
    return jax.lax.conv_general_dilated(
        x,
        w,
        strides,
        ((padding, padding),) * 3,
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=groups,
    )
