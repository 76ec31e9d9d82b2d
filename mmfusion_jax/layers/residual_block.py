"""Blocks of residual networks for images and clips."""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
from flax.linen.dtypes import promote_dtype

from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.ops.conv.conv3d import convolve3d, grouped_conv3d, pointwise_conv3d
from mmfusion_jax.types import Array

WIDENS = {"basic": 1, "bottleneck": 4}
"""Kind of a block -> output channels divided by inner channels."""

kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResidualBlock(nn.Module):
    """Convolutions with normalization, and a shortcut connection.

        y = relu(BN(Conv_3(relu(BN(Conv_3(x))))) + x)                       basic
        y = relu(BN(Conv_1(relu(BN(Conv_3(relu(BN(Conv_1(x)))))))) + x)     bottleneck

    If the shapes differ, the shortcut is BN(Conv_1(x)).

    Parameters: `conv_{i}`, `conv_{i}_norm`, i from 1; `shortcut`, `shortcut_norm`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x, mask = jnp.ones((2, 8, 8, 3)), jnp.ones(2, bool)
        >>> layer = mmf.layers.ResidualBlock(planes=4, stride=2)
        >>> (y, mask), variables = layer.init_with_output(
        ...     jax.random.key(0), x, mask, train=False
        ... )
        >>> y.shape
        (2, 4, 4, 4)

    Attributes:
        planes: Number of inner channels.
        kind: "basic", or "bottleneck" with four times as many output channels.
        stride: Stride of the first 3x3 convolution along all axes.
        axis: Axis of pmap or shard_map of the norms.
        dtype: Dtype of the computation.

    Reference:
        He et al. 2016.
    Deviation:
        A bottleneck has its stride in the 3x3 convolution, as in torchvision.
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
        strided_mask = mask[:, :: self.stride] if mask.ndim > 1 else mask
        wide, stride = WIDENS[self.kind] * self.planes, self.stride
        step = functools.partial(self._step, train=train)
        if self.kind == "basic":
            y = nn.relu(step(x, strided_mask, "conv_1", 3, self.planes, stride))
            y = step(y, strided_mask, "conv_2", 3, wide)
        else:
            y = nn.relu(step(x, mask, "conv_1", 1, self.planes))
            y = nn.relu(step(y, strided_mask, "conv_2", 3, self.planes, stride))
            y = step(y, strided_mask, "conv_3", 1, wide)
        if x.shape[-1] != wide or stride > 1:
            x = step(x, strided_mask, "shortcut", 1, wide, stride)
        return nn.relu(x + y), strided_mask

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
        """Applies a convolution and its norm."""
        dims = x.ndim - 2
        conv = Conv(features, (size,) * dims, (stride,) * dims, self.dtype, name=name)
        norm = BatchNorm(self.axis, dtype=self.dtype, name=f"{name}_norm")
        return norm(conv(x), mask, train=train)


class Conv(nn.Module):
    """Convolution of odd size without bias, with zero padding of half the kernel.

    Parameters: `kernel` (*size c features).

    Attributes:
        features: Number of output channels.
        size: Kernel size along each of two or three axes.
        strides: Stride along each axis.
        dtype: Dtype of the computation.
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
        # XLA's 3D convolution would be right for all sizes; these functions are faster
        # on CPU, see `ops/conv/conv3d.py`. The kernel has the same layout in each.
        if self.size == (1, 1, 1):
            return pointwise_conv3d(x, w[0, 0, 0], stride=self.strides[0])
        if self.size == (3, 3, 3):
            return grouped_conv3d(x, w, stride=self.strides[0], groups=1)
        return convolve3d(x, w, strides=self.strides)


def conv2d(x: Array, w: Array, strides: tuple[int, ...]) -> Array:
    """Convolves (b h w c) with a kernel (i j c k) to (b h' w' k)."""
    return jax.lax.conv_general_dilated(
        x,
        w,
        strides,
        # Not "SAME": with stride 2 it pads an even size only at the end, PyTorch at
        # both ends, so pretrained weights would see shifted images.
        tuple((size // 2, size // 2) for size in w.shape[:2]),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
