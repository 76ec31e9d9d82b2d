"""The blocks of residual networks, over images and over clips."""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
from flax.linen.dtypes import promote_dtype

from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.ops.conv.conv3d import convolve3d, grouped_conv3d, pointwise_conv3d
from mmfusion_jax.types import Array

WIDENS = {"basic": 1, "bottleneck": 4}
"""Kind of a block -> channels out over channels inside."""

kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResidualBlock(nn.Module):
    """Convolutions with a norm after each, and a shortcut around them.

        y = relu(BN(Conv_3(relu(BN(Conv_3(x))))) + x)                       basic
        y = relu(BN(Conv_1(relu(BN(Conv_3(relu(BN(Conv_1(x)))))))) + x)     bottleneck

    Where x has another shape, BN(Conv_1(x)) takes its place.

    Parameters: `conv_{i}`, `conv_{i}_norm`, i from 1; `shortcut`, `shortcut_norm`.

    Attributes:
        planes: channels inside.
        kind: "basic" or "bottleneck", which gives four times as many channels.
        stride: of the first 3x3 along all axes.
        axis: pmap axis of the norms.
        dtype: type of the computation.

    Reference:
        He et al. 2016.
    Deviation:
        The stride of a bottleneck is that of its 3x3, as in torchvision.
    """

    planes: int
    kind: Literal["basic", "bottleneck"] = "basic"
    stride: int = 1
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, mask: Array, *, train: bool) -> tuple[Array, Array]:
        """Maps images (b h w c), mask (b), or clips (b s h w c), mask (b s).

        Returns:
            Values with h, w and s divided by `stride`, 0 where masked, and their mask.
        """
        short = mask[:, :: self.stride] if mask.ndim > 1 else mask
        wide, stride = WIDENS[self.kind] * self.planes, self.stride
        step = functools.partial(self._step, train=train)
        if self.kind == "basic":
            y = nn.relu(step(x, short, "conv_1", 3, self.planes, stride))
            y = step(y, short, "conv_2", 3, wide)
        else:
            y = nn.relu(step(x, mask, "conv_1", 1, self.planes))
            y = nn.relu(step(y, short, "conv_2", 3, self.planes, stride))
            y = step(y, short, "conv_3", 1, wide)
        if x.shape[-1] != wide or stride > 1:
            x = step(x, short, "shortcut", 1, wide, stride)
        return nn.relu(x + y), short

    def _step(
        self,
        x: Array,
        mask: Array,
        name: str,
        size: int,
        features: int,
        stride: int = 1,
        *,
        train: bool,
    ) -> Array:
        """A convolution and its norm."""
        dims = x.ndim - 2
        conv = Conv(features, (size,) * dims, (stride,) * dims, self.dtype, name=name)
        norm = BatchNorm(self.axis, dtype=self.dtype, name=f"{name}_norm")
        return norm(conv(x), mask, train=train)


class Conv(nn.Module):
    """A convolution of odd size without bias, zero padding of half the kernel.

    Parameters: `kernel` (*size c features).

    Attributes:
        features: channels out.
        size: of the kernel along every axis, two or three.
        strides: as many.
        dtype: type of the computation.
    """

    features: int
    size: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps (b *space c) to (b *space' features)."""
        shape = (*self.size, x.shape[-1], self.features)
        x, w = promote_dtype(x, self.param("kernel", kaiming, shape), dtype=self.dtype)
        if len(self.size) == 2:
            return conv2d(x, w, self.strides)
        if self.size == (1, 1, 1):
            return pointwise_conv3d(x, w[0, 0, 0], stride=self.strides[0])
        if self.size == (3, 3, 3):
            return grouped_conv3d(x, w, stride=self.strides[0], groups=1)
        return convolve3d(x, w, strides=self.strides)


def conv2d(x: Array, w: Array, strides: tuple[int, ...]) -> Array:
    """Maps (b h w c) by a kernel (i j c k) to (b h' w' k)."""
    return jax.lax.conv_general_dilated(
        x,
        w,
        strides,
        tuple((size // 2, size // 2) for size in w.shape[:2]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
