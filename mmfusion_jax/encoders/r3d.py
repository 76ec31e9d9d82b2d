"""R3D video encoder."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.recompute import apply_block
from mmfusion_jax.layers.residual_block import Conv, ResidualBlock
from mmfusion_jax.ops.image_normalization import KINETICS, normalize_image
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.option_types import Depths, Size
from mmfusion_jax.types import Array, Tokens


class R3D(nn.Module):
    """3D residual network: a 3x7x7 convolution and stages of basic 3x3x3 blocks.

    Stage i (from 0) has `blocks[i]` blocks with `base_channels` 2^i channels; the first
    block of every stage except the first halves s, h and w. The defaults are those of
    R3D-18.

    Parameters: `stem`, `stem_norm`, and a `ResidualBlock` `stage{i}_block{j}` with i
    from 1, j from 0.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.R3D(blocks=(1, 1), base_channels=4, pooled=True)
        >>> video, mask = jnp.ones((1, 4, 16, 16, 3)), jnp.ones((1, 4), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), video, mask, train=False
        ... )
        >>> tokens.values.shape
        (1, 1, 8)

    Attributes:
        blocks: Number of blocks of every stage.
        base_channels: Channels of the stem.
        pooled: Return one token per clip, the mean of its valid positions, rather than
            one per position.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None for the input's.
        freeze_batch_norm: Use the running statistics in training too, for frozen
            encoders and small batches.
        remat: Recompute the inside of a block in the backward pass, see `apply_block`.

    Reference:
        Tran et al. 2018, R3D; Hetero-Fusion-Net, Sec. 5.2.
    """

    blocks: Depths = (2, 2, 2, 2)
    base_channels: Size = 64
    pooled: bool = False
    axis: str | None = None
    dtype: Any = None
    freeze_batch_norm: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes clips.

        Args:
            values: (b t h w c); unsigned integers are pixels 0..255 and are
                normalized here, floats are unchanged.
            mask: (b t) bool; a masked step acts as the end of the clip.
            train: Use the statistics of the batch, unless `freeze_batch_norm`.

        Returns:
            Tokens (b n d), 0 where masked, with n = s h' w' and grid (s, h', w'); h'
            and w' are halved, rounded up, by the stem and, like s, by every stage
            except the first. With `pooled` (b 1 d).
        """
        train = train and not self.freeze_batch_norm
        # Masked after the normalization, so that padding is the mean color, 0, as the
        # convolution's own padding.
        x = zero_masked(normalize_image(values, KINETICS), mask)
        x = x.astype(self.dtype or x.dtype)
        x = Conv(self.base_channels, (3, 7, 7), (1, 2, 2), self.dtype, name="stem")(x)
        norm = BatchNorm(self.axis, dtype=self.dtype, name="stem_norm")
        x = nn.relu(norm(x, mask, train=train))
        for i, depth in enumerate(self.blocks):
            for j in range(depth):
                block = ResidualBlock(
                    self.base_channels * 2**i,
                    stride=2 if i > 0 and j == 0 else 1,
                    axis=self.axis,
                    dtype=self.dtype,
                    name=f"stage{i + 1}_block{j}",
                )
                x, mask = apply_block(block, x, mask, train=train, remat=self.remat)
        if self.pooled:
            present = jnp.any(mask, axis=1)[:, None]
            return Tokens(masked_mean(x, mask, axis=(1, 2, 3))[:, None], present)
        grid = x.shape[1:4]
        tokens = einops.rearrange(x, "b s h w d -> b (s h w) d")
        return Tokens(tokens, jnp.repeat(mask, grid[1] * grid[2], axis=1), grid)
