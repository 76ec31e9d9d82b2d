"""Multimodal split attention fusion (MSAF)."""

from typing import Any

import einops
import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.batch_norm import BatchNorm
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.option_path import given_option, option_flag
from mmfusion_jax.ops.masking import masked_mean, masked_softmax, zero_masked
from mmfusion_jax.option_types import Fraction, Modalities, Size
from mmfusion_jax.types import Array, Streams


class SplitAttention(nn.Module):
    """Attention over blocks of channels of all modalities, one weight per channel.

        g = sum_m mean(sum_k X_mk)                 X_mk: block k of modality m
        z = relu(BN(W g + b))
        A = softmax over all blocks of all modalities (W_mk z + b_mk)
        X_mk = A_mk * X_mk

    The weights of a channel sum to 1 over the blocks, so a stream becomes as many times
    smaller as there are blocks; a normalization or a linear layer after it scales it.

    Parameters: `joint`, `joint_norm`, `attend_<modality>`, of which every `block_dim`
    outputs belong to a block.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> mask = jnp.ones((2, 5), bool)
        >>> audio = mmf.Tokens(jnp.ones((2, 5, 4)), mask)
        >>> streams = {"audio": audio, "video": mmf.Tokens(jnp.ones((2, 5, 8)), mask)}
        >>> block = mmf.fusion.SplitAttention(("audio", "video"), block_dim=4)
        >>> y, variables = block.init_with_output(
        ...     jax.random.key(0), streams, train=False
        ... )
        >>> y["audio"].values.shape, y["video"].values.shape
        ((2, 5, 4), (2, 5, 8))

    Attributes:
        modality_order: Names of the streams, of any widths.
        block_dim: Channels of a block; a stream whose width is not a multiple of it
            ends with a smaller block.
        reduction: Factor by which z is narrower than a block.
        block_dropout: Probability that training drops a block of an example.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation except the softmax; None keeps the input's.

    Reference:
        Su et al. 2020, "MSAF", Sec. 3 and the released code; CFN-SR, Table 1, "MSAF".
    Deviation:
        As in the code, a block that is kept in training is divided by
        1 - `block_dropout` before g and again in the result. The blocks of a missing
        modality get no weight, and an example without any changes no statistic.
    """

    modality_order: Modalities
    block_dim: Size = 16
    reduction: Size = 4
    block_dropout: Fraction = 0.2
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Weights the streams of `modality_order`, (b n d); others are unchanged.

        Raises:
            ConfigError: The width of z is 0.
        """
        if self.block_dim < self.reduction:
            raise ConfigError(
                "C10",
                f"{given_option(self, 'block_dim')} of fusion block 'split_attention' "
                f"is less than reduction={self.reduction:d}.",
                f"{option_flag(self, 'block_dim', self.reduction)} or more",
            )
        order = self.modality_order
        blocks = {m: self._split(streams, m) for m in order}
        kept = self._kept(blocks, train)
        blocks = {m: blocks[m] * kept[m] for m in order}
        weights = self._weights(streams, blocks, train)
        fused = dict(streams)
        for m in order:
            b, n, d = streams[m].values.shape
            y = blocks[m] * (kept[m] * weights[m]).astype(blocks[m].dtype)
            fused[m] = streams[m].replace(values=y.reshape(b, n, -1)[..., :d])
        return fused

    def _split(self, streams: Streams, m: str) -> Array:
        """Blocks of the channels of a stream, (b n k block_dim); 0 where masked."""
        x = zero_masked(streams[m].values, streams[m].mask)
        lacking = -x.shape[-1] % self.block_dim
        x = jnp.pad(x, [(0, 0), (0, 0), (0, lacking)])
        return einops.rearrange(x, "b n (k e) -> b n k e", e=self.block_dim)

    def _kept(self, blocks: dict[str, Array], train: bool) -> dict[str, Array]:
        """Factor of every block by modality, (b 1 k 1): 0 where it is dropped."""
        kept = {}
        for m, x in blocks.items():
            drop = nn.Dropout(self.block_dropout, deterministic=not train)
            kept[m] = drop(jnp.ones((len(x), 1, x.shape[2], 1), x.dtype))
        return kept

    def _weights(
        self, streams: Streams, blocks: dict[str, Array], train: bool
    ) -> dict[str, Array]:
        """Weight of every channel of every block by modality, (b 1 k block_dim)."""
        order = self.modality_order
        means = [
            masked_mean(jnp.sum(blocks[m], axis=2), streams[m].mask, axis=1)
            for m in order
        ]
        g = jnp.sum(jnp.stack(means), axis=0)
        present = jnp.stack([streams[m].present for m in order], axis=1)
        width = self.block_dim // self.reduction
        joint = torch_dense(self.block_dim, width, dtype=self.dtype, name="joint")
        norm = BatchNorm(self.axis, dtype=self.dtype, name="joint_norm")
        z = nn.relu(norm(joint(g), jnp.any(present, axis=1), train=train))
        scores, masks = [], []
        for i, m in enumerate(order):
            count = blocks[m].shape[2]
            attend = torch_dense(
                width, count * self.block_dim, dtype=self.dtype, name=f"attend_{m}"
            )
            scores.append(attend(z).reshape(len(z), count, self.block_dim))
            masks.append(jnp.repeat(present[:, i : i + 1], count, axis=1))
        scores = jnp.concatenate(scores, axis=1)
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        weights = masked_softmax(scores, jnp.concatenate(masks, axis=1), axis=1)
        ends = np.cumsum([blocks[m].shape[2] for m in order])
        parts = jnp.split(weights, ends[:-1], axis=1)
        return {m: part[:, None] for m, part in zip(order, parts, strict=True)}
