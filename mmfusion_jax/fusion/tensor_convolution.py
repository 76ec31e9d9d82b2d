"""Tensor convolution over the outer product of two vectors (MCL-MCF)."""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.layers.linear import torch_uniform, xavier_normal
from mmfusion_jax.layers.option_path import given_option
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.ops.chunked_map import map_in_chunks
from mmfusion_jax.ops.conv.few_channel_conv2d import SIDE, convolve2d
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Modality, Name, NonNegativeInt, Sizes
from mmfusion_jax.types import Array, Streams, Tokens

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "none": lambda x: x,
}
VARIANTS = ("paper", "released_code")


class TensorConvolution(nn.Module):
    """Convolves the outer product of two vectors and flattens the result.

        image = r_x r_y^T                                             (14)
        F = flatten(relu(conv(.. relu(conv(image)))))                 (15)

    All convolutions are 3x3 without padding. The image is never materialized: the
    first convolution of an image of rank 1 is bilinear in windows of its two vectors.

    Parameters: `kernel_{i}` (3 3 c_in c_out), `bias_{i}` (c_out).

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 1), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 1, 16)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.TensorConvolution(
        ...     "audio", "video", into="joint", channels=(2, 1)
        ... )
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["joint"].values.shape
        (2, 1, 144)

    Attributes:
        x: Name of the stream of the rows; its first token is used.
        y: Name of the stream of the columns.
        into: Name of the added stream.
        channels: Output channels of the convolutions.
        last_activation: After the last one: "relu", "leaky_relu" or "none".
        chunk: Examples at a time, to save memory; 0 for all at once.
        dtype: Dtype of the computation; None keeps the input's.
        variant: Initial values, "paper" or "released_code": see Deviation.

    Reference:
        MCL-MCF, Sec. 3.3.3, Eq. 14-15.
    Deviation:
        Tensor fusion networks append 1 to the vectors; this paper does not. Its
        initialization is Xavier, which biases cannot have: ours are 0. PyTorch's
        default, as in the released code, is up to 1/3, which is several times larger
        than products of small vectors: the last ReLU is then often 0 for all examples,
        or the image equal for all. Xavier leaves the sign open: ours makes the sum of
        every filter positive, since for inputs of at least 0 another one may be 0
        everywhere after its ReLU (a dead image in 1 of 300 draws).
    """

    x: Modality
    y: Modality
    into: Name
    channels: Sizes = (4, 6, 1)
    last_activation: Literal["relu", "leaky_relu", "none"] = "relu"
    chunk: NonNegativeInt = 16
    dtype: Any = None
    variant: Literal["paper", "released_code"] = "paper"

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Adds `into`, one token (b 1 n*n*c), masked where either vector is.

        Intermediate activations are recomputed in the backward pass. Under a mesh,
        `chunk` should be a multiple of the number of devices.

        Args:
            streams: Must contain `x` (b n d) and `y` (b n e).
            train: Unused; part of the interface of all fusion blocks.

        Raises:
            ConfigError: A vector is too short for the convolutions, or the variant is
                unknown.
        """
        del train
        rows, columns = streams[self.x], streams[self.y]
        self._check(rows.values.shape[-1], columns.values.shape[-1])
        # Created here, because Linen cannot create parameters inside `lax.map`.
        layers = self._layers(self.dtype or rows.values.dtype)
        last = ACTIVATIONS[self.last_activation]
        convolve = jax.checkpoint(functools.partial(convolve_outer, layers, last))
        flat = map_in_chunks(convolve, (first(rows), first(columns)), self.chunk)
        both = rows.present & columns.present
        return {
            **streams,
            self.into: Tokens(zero_masked(flat, both)[:, None], both[:, None]),
        }

    def _layers(self, dtype: Any) -> list[tuple[Array, Array]]:
        """Kernels and biases of the convolutions."""
        layers = []
        for i, (c, k) in enumerate(
            zip((1, *self.channels[:-1]), self.channels, strict=True)
        ):
            shape = (SIDE, SIDE, c, k)
            if self.variant == "released_code":
                inits = xavier_normal, torch_uniform(SIDE * SIDE * c)
            else:
                inits = positive_xavier, nn.initializers.zeros
            kernel = self.param(f"kernel_{i}", inits[0], shape)
            bias = self.param(f"bias_{i}", inits[1], (k,))
            layers.append((kernel.astype(dtype), bias.astype(dtype)))
        return layers

    def _check(self, *widths: int) -> None:
        if self.variant not in VARIANTS:
            raise ConfigError(
                "C03",
                f"variant={shown(self.variant)} is unknown.",
                suggest(self.variant, VARIANTS),
            )
        needed = (SIDE - 1) * len(self.channels) + 1
        if min(widths) < needed:
            raise ConfigError(
                "C29",
                f"{given_option(self, 'channels')}: {len(self.channels)} convolutions "
                "of 3x3 need vectors of at least "
                f"{needed:d} elements, but {shown(self.x)} and {shown(self.y)} have "
                f"{shown(widths)}.",
            )


def positive_xavier(key: Array, shape: Any, dtype: Any = float) -> Array:
    """Xavier initializer of filters (... k), negated where their sum is negative."""
    kernel = xavier_normal(key, shape, dtype)
    total = jnp.sum(kernel, axis=tuple(range(len(shape) - 1)))
    return jnp.where(total < 0, -kernel, kernel)


def convolve_outer(
    layers: list[tuple[Array, Array]], last: Any, x: Array, y: Array
) -> Array:
    """Convolves the outer product of (b d) and (b e), and flattens the result.

    Reference:
        MCL-MCF, Eq. 14-15.
    """
    # The outer product has one channel and rank 1, so its convolution is two small
    # products with windows of the vectors; no n by n image is read.
    (kernel, bias), *rest = layers
    rows = jnp.einsum("bip,pqk->bqki", windows(x), kernel[:, :, 0])
    z = jnp.einsum("bqki,bjq->bkij", rows, windows(y)) + bias[:, None, None]
    for kernel, bias in rest:
        z = convolve2d(jax.nn.relu(z), kernel) + bias[:, None, None]
    return jnp.moveaxis(last(z), 1, -1).reshape(len(z), -1)


def windows(x: Array) -> Array:
    """Sliding windows of `SIDE` elements of every vector (b d), (b d-2 3)."""
    ends = range(x.shape[-1] - SIDE + 1, x.shape[-1] + 1)
    return jnp.stack([x[:, i:end] for i, end in enumerate(ends)], axis=-1)
