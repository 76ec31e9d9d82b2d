"""A small 2D CNN over images and spectrograms."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import DataError
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.ops.image_normalization import frames
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Tokens


class ImageConv(nn.Module):
    """Convolutions with a pooling after each.

        x = MaxPool_2(ReLU(BN(Conv_3x3(x))))        for each of `channels`

    Parameters: `conv_{i}`, `norm_{i}`.

    Attributes:
        channels: of the convolutions.
        flatten: one token for each image, its positions side by side, rather than one
            for each position: what is where is then kept by a mean over tokens.
        axis: pmap axis over which the batch is spread; None under jit.
        dtype: type of the computation; None keeps that of the input.
        downsample: first take the mean over windows of so many pixels a side, which
            spares most of the work where an image is finer than need be.
    """

    channels: tuple[int, ...] = (8, 16, 32)
    flatten: bool = False
    axis: str | None = None
    dtype: Any = None
    downsample: int = 1

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes images.

        Args:
            values: (b t h w c), t images, or (b h w c), one; unsigned integers are
                pixels 0..255, scaled to 0..1.
            mask: (b t) bool; of one image (b h), which is real if a row is.
            train: use the statistics of the batch.

        Returns:
            Tokens (b t*h*w d) with grid (t, h, w), h and w divided by `downsample` and
            halved (rounded down) by each convolution; with `flatten` (b t h*w*d).

        Raises:
            DataError: if an image is too small to be halved so often.
        """
        values, mask = frames(values, mask)
        side = self.downsample * 2 ** len(self.channels)
        if min(values.shape[2:4]) < side:
            raise DataError(
                "D13",
                f"an image has {values.shape[2]}x{values.shape[3]} pixels; ImageConv "
                f"halves it {len(self.channels)} times and needs {side}x{side}, with "
                f"shrink={self.downsample}.",
                "give larger images, fewer `channels`, or a smaller `shrink`",
            )
        if jnp.issubdtype(values.dtype, jnp.unsignedinteger):
            values = values / jnp.float32(255)
        x = _means(zero_masked(values, mask), self.downsample)
        x = x.astype(self.dtype or x.dtype)
        for i, features in enumerate(self.channels):
            x = self._convolve(x, mask, features, i, train)
        t, h, w = x.shape[1:4]
        if self.flatten:
            return Tokens(einops.rearrange(x, "b t h w d -> b t (h w d)"), mask)
        tokens = einops.rearrange(x, "b t h w d -> b (t h w) d")
        return Tokens(tokens, jnp.repeat(mask, h * w, axis=1), (t, h, w))

    def _convolve(
        self, x: Array, mask: Array, features: int, number: int, train: bool
    ) -> Array:
        """One convolution, its norm and its pooling."""
        start = torch_uniform(9 * x.shape[-1])
        convolve = nn.Conv(
            features,
            (3, 3),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=start,
            name=f"conv_{number}",
        )
        norm = BatchNorm(self.axis, dtype=self.dtype, name=f"norm_{number}")
        x = nn.relu(norm(convolve(x), mask, train=train))
        return _max_pool(x)


def _means(x: Array, side: int) -> Array:
    """Means over windows of side x side, (b t h w c) to (b t h//side w//side c)."""
    if side == 1:
        return x
    x = x[..., : x.shape[-3] // side * side, : x.shape[-2] // side * side, :]
    windows = "b t (h i) (w j) c -> b t h w c"
    return einops.reduce(x, windows, "mean", i=side, j=side)


def _max_pool(x: Array) -> Array:
    """Maximum over windows of 2x2, (b t h w c) to (b t h//2 w//2 c).

    As a maximum of slices: the gradient of `nn.max_pool` takes ten times as long on a
    CPU. Equal values share the gradient.
    """
    *rest, h, w, c = x.shape
    x = x[..., : h - h % 2, : w - w % 2, :]
    pairs = x.reshape(*rest, h // 2, 2, w // 2, 2 * c)
    rows = jnp.maximum(pairs[..., 0, :, :], pairs[..., 1, :, :])
    return jnp.maximum(rows[..., :c], rows[..., c:])
