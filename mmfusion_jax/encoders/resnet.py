"""ResNet image encoder; frames of a clip are encoded separately."""

from typing import Any, Literal

import einops
import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.recompute import apply_block
from mmfusion_jax.layers.residual_block import WIDENS, Conv, ResidualBlock
from mmfusion_jax.ops.image_normalization import IMAGENET, frames, normalize_image
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Depths, Size
from mmfusion_jax.types import Array, Tokens

WINDOW: Any = ((1, 1), (1, 1))


class ResNet(nn.Module):
    """Residual network: a 7x7 convolution, max pooling and stages of blocks.

    Stage i (from 0) has `blocks[i]` blocks with `base_channels` 2^i channels inside;
    the first block of every stage except the first halves h and w. The defaults are
    those of ResNet-50; ResNet-18 has blocks=(2, 2, 2, 2) and ResNet-34 (3, 4, 6, 3),
    both with kind="basic".

    Parameters: `stem`, `stem_norm`, and a `ResidualBlock` `stage{i}_block{j}` with i
    from 1, j from 0.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> encoder = mmf.encoders.ResNet(blocks=(1, 1), kind="basic", base_channels=4)
        >>> image, mask = jnp.ones((1, 16, 16, 3)), jnp.ones((1, 16), bool)
        >>> tokens, variables = encoder.init_with_output(
        ...     jax.random.key(0), image, mask, train=False
        ... )
        >>> tokens.values.shape
        (1, 4, 8)

    Attributes:
        blocks: Number of blocks of every stage.
        kind: Kind of the blocks, "basic" or "bottleneck".
        base_channels: Channels of the stem.
        pooled: Return one token per image, the mean of its positions, rather than one
            per position.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None for the input's.
        freeze_batch_norm: Use the running statistics in training too, for frozen
            encoders and small batches.
        remat: Recompute the inside of a block in the backward pass, see `apply_block`.

    Reference:
        He et al. 2016, Table 1; Hetero-Fusion-Net, Sec. 5.2; MCL-MCF, Table 9.
    """

    blocks: Depths = (3, 4, 6, 3)
    kind: Literal["basic", "bottleneck"] = "bottleneck"
    base_channels: Size = 64
    pooled: bool = False
    axis: str | None = None
    dtype: Any = None
    freeze_batch_norm: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, values: Array, mask: Array, *, train: bool) -> Tokens:
        """Encodes images.

        Args:
            values: (b t h w c), t images, or (b h w c), one; unsigned integers are
                pixels 0..255 and are normalized here, floats are unchanged.
            mask: (b t) bool; for one image (b h), valid if any row is.
            train: Use the statistics of the batch, unless `freeze_batch_norm`.

        Returns:
            Tokens (b n d), 0 where masked, with n = t h' w' and grid (t, h', w'), h'
            and w' halved, rounded up, by the stem, the pooling and every stage except
            the first; with `pooled` (b t d).

        Raises:
            ConfigError: The kind is unknown.
        """
        if self.kind not in WIDENS:
            raise ConfigError(
                "C03",
                f"kind={shown(self.kind)} is unknown.",
                suggest(self.kind, WIDENS),
            )
        train = train and not self.freeze_batch_norm
        values, mask = frames(values, mask)
        b, t = mask.shape
        x = zero_masked(normalize_image(values, IMAGENET), mask)
        x = x.astype(self.dtype or x.dtype).reshape(b * t, *x.shape[2:])
        valid = mask.reshape(b * t)
        x = Conv(self.base_channels, (7, 7), (2, 2), self.dtype, name="stem")(x)
        norm = BatchNorm(self.axis, dtype=self.dtype, name="stem_norm")
        x = nn.relu(norm(x, valid, train=train))
        # Padding as numbers, as in PyTorch; "SAME" would pad even sizes only at the
        # end.
        x = nn.max_pool(x, (3, 3), (2, 2), WINDOW)
        for i, depth in enumerate(self.blocks):
            for j in range(depth):
                block = ResidualBlock(
                    self.base_channels * 2**i,
                    self.kind,
                    2 if i > 0 and j == 0 else 1,
                    self.axis,
                    self.dtype,
                    name=f"stage{i + 1}_block{j}",
                )
                x, _ = apply_block(block, x, valid, train=train, remat=self.remat)
        if self.pooled:
            return Tokens(jnp.mean(x, axis=(1, 2)).reshape(b, t, -1), mask)
        h, w = x.shape[1:3]
        tokens = einops.rearrange(x, "(b t) h w d -> b (t h w) d", b=b)
        return Tokens(tokens, jnp.repeat(mask, h * w, axis=1), (t, h, w))
