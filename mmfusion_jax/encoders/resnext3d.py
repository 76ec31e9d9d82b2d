"""3D ResNeXt video encoder (CFN-SR)."""

from typing import Any, ClassVar, Literal

import einops
import flax.linen as nn
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.option_path import given_option, option_flag
from mmfusion_jax.layers.recompute import apply_block
from mmfusion_jax.ops.conv.conv3d import grouped_conv3d, pointwise_conv3d, stem_conv3d
from mmfusion_jax.ops.conv.max_pool3d import max_pool
from mmfusion_jax.ops.image_normalization import IMAGENET, normalize_image
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Depths, Size
from mmfusion_jax.types import Array, Tokens

ORDERS = ("rgb", "bgr")

kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNeXt3D(nn.Module):
    """3D ResNeXt: stem, max pooling and stages of grouped bottlenecks.

    Stage i (from 0) has `blocks[i]` bottlenecks with planes = 2 `base_channels` 2^i and
    2 planes output channels; the first block of every stage except the first halves
    s, h, w.

    Parameters (kernels DHWIO, or (in, out) for 1x1x1; no bias; every norm has
    `scale`, `bias`, and the statistics `mean`, `var`):

        stem/kernel (7 7 7 c width), stem_norm
        stage{i}_block{j}, i from 1, j from 0:
            reduce/kernel (in planes), reduce_norm
            conv/kernel (3 3 3 planes/groups planes), conv_norm
            expand/kernel (planes 2*planes), expand_norm
            shortcut/kernel (in 2*planes), shortcut_norm      only j = 0

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.ResNeXt3D(blocks=(1, 1), base_channels=8)
        >>> video, mask = jnp.ones((1, 4, 16, 16, 3)), jnp.ones((1, 4), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), video, mask, train=False
        ... )
        >>> tokens.values.shape, tokens.grid
        ((1, 4, 64), (1, 2, 2))

    Attributes:
        blocks: Number of bottlenecks of every stage.
        base_channels: Channels of the stem, even. Half as many are the groups of the
            3x3x3 convolutions: 4 channels per group in the first stage, as in the
            paper.
        stem_relu: Apply ReLU after the norm of the stem.
        channel_order: Channel order that the network expects, "rgb" or "bgr"; the data
            are RGB. "bgr" is for weights trained on images read by OpenCV.
        remat: Recompute the inside of a bottleneck in the backward pass, see
            `apply_block`.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None for the input's.
        inner_site: True: `until_site` and `from_site` work. The site is before the last
            stage.

    Reference:
        CFN-SR, Sec. 2.2, Eq. 4; the counts of Table 1.
    Deviation:
        The released fused network lacks the ReLU of the stem: `stem_relu=False`. The
        released code reads BGR frames and normalizes them with the statistics of RGB:
        `channel_order="bgr"`.
    """

    inner_site: ClassVar[bool] = True

    blocks: Depths = (3, 4, 6, 3)
    base_channels: Size = 64
    stem_relu: bool = True
    channel_order: Literal["rgb", "bgr"] = "rgb"
    remat: bool = False
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        values: Array,
        mask: Array,
        *,
        train: bool,
        until_site: bool = False,
        from_site: Tokens | None = None,
    ) -> Tokens:
        """Encodes clips.

        Args:
            values: (b t h w c); unsigned integers are pixels 0..255 and are
                normalized here, floats are unchanged.
            mask: (b t) bool; a masked step acts as the end of the clip.
            train: Use the statistics of the batch in the norms.
            until_site: Return the tokens of the inner site.
            from_site: Tokens of the inner site from which the encoding continues,
                instead of `values`.

        Returns:
            Tokens (b n d), d = 4 base_channels 2^(stages - 1), n = s h w and grid
            (s, h, w); s, h, w are t, h/2, w/2 halved once by the pooling and once by
            every stage except the first, rounded up.
        """
        last = len(self.blocks) - 1
        if from_site is None:
            x, mask = self._stem(values, mask, train)
            x, mask = self._stages(x, mask, range(last), train)
            if until_site:
                return _tokens(x, mask)
        else:
            x, mask = _maps(from_site)
        return _tokens(*self._stages(x, mask, range(last, last + 1), train))

    def _stem(self, values: Array, mask: Array, train: bool) -> tuple[Array, Array]:
        """Normalizes and applies the first convolution and the max pooling."""
        if self.channel_order not in ORDERS:
            raise ConfigError(
                "C03",
                f"channel_order={shown(self.channel_order)} is unknown.",
                suggest(self.channel_order, ORDERS),
            )
        if self.channel_order == "bgr":
            values = values[..., ::-1]
        x = zero_masked(normalize_image(values, IMAGENET), mask)
        x = x.astype(self.dtype or x.dtype)
        x = Stem(self.base_channels, self.dtype, name="stem")(x)
        x = BatchNorm(self.axis, dtype=self.dtype, name="stem_norm")(
            x, mask, train=train
        )
        if self.stem_relu:
            x = nn.relu(x)
        return max_pool(x, mask), mask[:, ::2]

    def _stages(
        self, x: Array, mask: Array, stages: range, train: bool
    ) -> tuple[Array, Array]:
        """Applies some stages to (b s h w c), mask (b s)."""
        groups = self._groups()
        for i in stages:
            for j in range(self.blocks[i]):
                stride = 2 if i > 0 and j == 0 else 1
                block = Bottleneck(
                    planes=2 * self.base_channels * 2**i,
                    cardinality=groups,
                    stride=stride,
                    axis=self.axis,
                    dtype=self.dtype,
                    name=f"stage{i + 1}_block{j}",
                )
                x = apply_block(block, x, mask, train=train, remat=self.remat)
                mask = mask[:, ::stride]
        return x, mask

    def _groups(self) -> int:
        """Number of groups of the 3x3x3 convolutions."""
        if self.base_channels % 2:
            raise ConfigError(
                "C25",
                f"{given_option(self, 'base_channels')} of encoder 'resnext_3d' is "
                "odd: half as many are the groups of its convolutions.",
                option_flag(self, "base_channels", self.base_channels + 1),
            )
        return self.base_channels // 2


def _tokens(x: Array, mask: Array) -> Tokens:
    """Flattens maps (b s h w d), mask (b s), to tokens."""
    grid = x.shape[1:4]
    tokens = einops.rearrange(x, "b s h w d -> b (s h w) d")
    return Tokens(tokens, jnp.repeat(mask, grid[1] * grid[2], axis=1), grid)


def _maps(tokens: Tokens) -> tuple[Array, Array]:
    """Returns maps (b s h w d), 0 where masked, and their mask (b s)."""
    s, h, w = tokens.grid
    values = zero_masked(tokens.values, tokens.mask)
    x = einops.rearrange(values, "b (s h w) d -> b s h w d", s=s, h=h, w=w)
    return x, tokens.mask[:, :: h * w]


class Bottleneck(nn.Module):
    """1x1x1, grouped 3x3x3 and 1x1x1 convolutions with a shortcut connection.

    Attributes:
        planes: Channels of the grouped convolution; the output has twice as many.
        cardinality: Number of groups.
        stride: Stride along s, h, w.
        axis: Axis of pmap or shard_map of the norms.
        dtype: Dtype of the computation.

    Reference:
        Xie et al. 2017 (ResNeXt); CFN-SR, Sec. 2.2.
    """

    planes: int
    cardinality: int
    stride: int = 1
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, mask: Array, *, train: bool) -> Array:
        """Maps (b s h w c) to (b s' h' w' 2*planes), 0 where the step is masked."""
        strided_mask = mask[:, :: self.stride]

        def norm(y: Array, mask: Array, name: str) -> Array:
            layer = BatchNorm(self.axis, dtype=self.dtype, name=name)
            return layer(y, mask, train=train)

        y = Pointwise(self.planes, 1, self.dtype, name="reduce")(x)
        y = nn.relu(norm(y, mask, "reduce_norm"))
        y = Grouped(
            self.planes, self.cardinality, self.stride, self.dtype, name="conv"
        )(y)
        y = nn.relu(norm(y, strided_mask, "conv_norm"))
        y = Pointwise(2 * self.planes, 1, self.dtype, name="expand")(y)
        y = norm(y, strided_mask, "expand_norm")
        if self.stride > 1 or x.shape[-1] != y.shape[-1]:
            x = Pointwise(y.shape[-1], self.stride, self.dtype, name="shortcut")(x)
            x = norm(x, strided_mask, "shortcut_norm")
        return nn.relu(x + y)


class Stem(nn.Module):
    """7x7x7 convolution with stride (1, 2, 2)."""

    features: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps (b t h w c) to (b t h/2 w/2 features)."""
        shape = (7, 7, 7, x.shape[-1], self.features)
        x, w = promote_dtype(x, self.param("kernel", kaiming, shape), dtype=self.dtype)
        return stem_conv3d(x, w)


class Grouped(nn.Module):
    """Grouped 3x3x3 convolution that keeps the number of channels."""

    features: int
    groups: int
    stride: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps (b s h w c) to (b s' h' w' features)."""
        shape = (3, 3, 3, x.shape[-1] // self.groups, self.features)
        x, w = promote_dtype(x, self.param("kernel", kaiming, shape), dtype=self.dtype)
        return grouped_conv3d(x, w, stride=self.stride, groups=self.groups)


class Pointwise(nn.Module):
    """1x1x1 convolution."""

    features: int
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps (b s h w c) to (b s' h' w' features)."""
        shape = (x.shape[-1], self.features)
        x, w = promote_dtype(x, self.param("kernel", kaiming, shape), dtype=self.dtype)
        return pointwise_conv3d(x, w, stride=self.stride)
