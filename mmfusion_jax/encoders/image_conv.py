"""Small 2D CNN for images and spectrograms."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, DataError, shown
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.linear import torch_uniform
from mmfusion_jax.layers.option_path import given_option
from mmfusion_jax.ops.image_normalization import frames
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Size, Sizes
from mmfusion_jax.types import Array, Tokens


class ImageConv(nn.Module):
    """Convolutions, each followed by max pooling.

        x = MaxPool_2(ReLU(BN(Conv_3x3(x))))        for each of `channels`

    Parameters: `conv_{i}`, `norm_{i}`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.ImageConv(channels=(4, 8))
        >>> image, mask = jnp.ones((2, 8, 8, 1)), jnp.ones((2, 8), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), image, mask, train=False
        ... )
        >>> tokens.values.shape
        (2, 4, 8)

    Attributes:
        channels: Output channels of the convolutions.
        flatten: Return one token per image, with the positions concatenated, rather
            than one per position; a mean over tokens then keeps the positions.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None keeps the input's.
        downsample: Side of the windows, in pixels, that are averaged first, to reduce
            the cost for images of high resolution.
    """

    channels: Sizes = (8, 16, 32)
    flatten: bool = False
    axis: str | None = None
    dtype: Any = None
    downsample: Size = 1

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes images.

        Args:
            values: (b t h w c), t images, or (b h w c), one; unsigned integers are
                pixels 0..255, scaled to 0..1.
            mask: (b t) bool; for one image (b h), valid if any row is.
            train: Use the statistics of the batch.

        Returns:
            Tokens (b t*h*w d) with grid (t, h, w), h and w divided by `downsample` and
            halved (rounded down) by each convolution; with `flatten` (b t h*w*d).

        Raises:
            DataError: An image is too small for the number of convolutions.
        """
        values, mask = frames(values, mask)
        side = self.downsample * 2 ** len(self.channels)
        if min(values.shape[2:4]) < side:
            raise DataError(
                "D13",
                f"image too small: {values.shape[2]}x{values.shape[3]} pixels, but "
                f"image_cnn with {len(self.channels)} convolutions and "
                f"{given_option(self, 'downsample')} needs at least {side:d}x{side:d}.",
                "use larger images, fewer entries in channels, or a smaller downsample",
            )
        if jnp.issubdtype(values.dtype, jnp.unsignedinteger):
            # float32: uint8 / int would become the default float, float64 under x64.
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
        """Applies a convolution, its norm and pooling."""
        init = torch_uniform(9 * x.shape[-1])
        convolve = nn.Conv(
            features,
            (3, 3),
            use_bias=False,
            dtype=self.dtype,
            kernel_init=init,
            name=f"conv_{number}",
        )
        norm = BatchNorm(self.axis, dtype=self.dtype, name=f"norm_{number}")
        x = nn.relu(norm(convolve(x), mask, train=train))
        return _max_pool(x)


def encode_frames(
    values: Array,
    mask: Array,
    channels: Sizes,
    axis: str | None,
    dtype: Any,
    *,
    train: bool,
) -> Array:
    """Reduces every frame to a vector with `ImageConv`, called "frames"; (b t d).

    The frames are first averaged over windows of 2x2 pixels.

    Args:
        values: (b t h w c); unsigned integers are pixels 0..255.
        mask: (b t) bool.
        channels: Output channels of the convolutions.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None keeps the input's.
        train: Use the statistics of the batch.

    Raises:
        ConfigError: The values are not frames.
    """
    if values.ndim != 5:
        raise ConfigError(
            "C26",
            f"frame_channels={shown(channels)} expects frames (b, t, h, w, c), got "
            f"shape {values.shape}.",
            "frame_channels=() for feature vectors",
        )
    encoder = ImageConv(channels, True, axis, dtype, downsample=2, name="frames")
    return encoder(values, mask, train=train).values


def _means(x: Array, side: int) -> Array:
    """Means over windows of side x side, (b t h w c) to (b t h//side w//side c)."""
    if side == 1:
        return x
    x = x[..., : x.shape[-3] // side * side, : x.shape[-2] // side * side, :]
    windows = "b t (h i) (w j) c -> b t h w c"
    return einops.reduce(x, windows, "mean", i=side, j=side)


def _max_pool(x: Array) -> Array:
    """Maximum over windows of 2x2, (b t h w c) to (b t h//2 w//2 c).

    Computed as a maximum of slices: the gradient of `nn.max_pool` takes ten times as
    long on CPU. Equal values share the gradient.
    """
    *rest, h, w, c = x.shape
    x = x[..., : h - h % 2, : w - w % 2, :]
    pairs = x.reshape(*rest, h // 2, 2, w // 2, 2 * c)
    rows = jnp.maximum(pairs[..., 0, :, :], pairs[..., 1, :, :])
    return jnp.maximum(rows[..., :c], rows[..., c:])
