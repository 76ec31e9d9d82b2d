"""Two unimodal networks with fusion blocks inside: MMTM and MSAF (CFN-SR, Table 1)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown_name, type_name
from mmfusion_jax.fusion.multimodal_transfer import MultimodalTransfer
from mmfusion_jax.fusion.split_attention import SplitAttention
from mmfusion_jax.models.common import (
    AudioPooling,
    check_tokens,
    pool_modality,
    prediction_head,
)
from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.option_types import Fraction, Size
from mmfusion_jax.types import Array, Batch, Outputs, Streams

Block = Callable[..., Streams]


class MMTM(nn.Module):
    """Multimodal transfer modules inside two encoders, and the mean of their logits.

        X_1, X_2 = MMTM_1(inner site of encoder 1, inner site of encoder 2)
        Y_1, Y_2 = MMTM_2(rest of encoder 1 (X_1), rest of encoder 2 (X_2))
        prediction = (head_1(Y_1) + head_2(Y_2)) / 2

    Parameters: `encoders_<modality>`, `head_<modality>`, as in LateFusion; `fusion_1`,
    `fusion_2`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = {"audio": jnp.ones((2, 20, 13)), "video": jnp.ones((2, 4, 16, 16, 3))}
        >>> batch = mmf.Batch(x, {m: jnp.ones(v.shape[:2], bool) for m, v in x.items()})
        >>> video = mmf.encoders.ResNeXt3D(blocks=(1,), base_channels=4)
        >>> encoders = {"audio": mmf.encoders.AudioConv(8, pool=4), "video": video}
        >>> model = mmf.models.MMTM(encoders, head_size=3)
        >>> jax.eval_shape(
        ...     lambda: model.init_with_output(jax.random.key(0), batch, train=False)
        ... )[0].prediction.shape
        (2, 3)

    Attributes:
        encoders: Two encoders with an inner site, such as AudioConv and ResNeXt3D.
        head_size: k.
        reduction: See `MultimodalTransfer`.
        dropout: Dropout rate of the pooled audio.
        audio_pooling: Pooling of audio: "flatten", "mean" or "mean_std".
        dtype: Dtype of the computation; None keeps the encoders'.

    Reference:
        Vaezi Joze et al. 2020; CFN-SR, Table 1, "MMTM".
    Deviation:
        CFN-SR does not say where the modules are. Here they are where those of MSAF
        are: before the last stage of the video encoder and before the pooling of the
        audio encoder, and after both. The model has 31,496,512 parameters; Table 1
        prints 31.97M.
    """

    num_modalities: ClassVar[int] = 2
    unimodal_logits: ClassVar[bool] = True

    encoders: Mapping[str, nn.Module]
    head_size: int
    reduction: Size = 4
    dropout: Fraction = 0.4
    audio_pooling: AudioPooling = "flatten"
    dtype: Any = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns the mean of the logits (b k), or a score (b), of the present.

        Auxiliary outputs: the vector (b d) of each modality, with its name, and
        "logits/<modality>".

        Raises:
            ConfigError: An encoder has no inner site.
        """
        order = tuple(sorted(self.encoders))
        blocks = [
            MultimodalTransfer(order, self.reduction, self.dtype, name=f"fusion_{i}")
            for i in (1, 2)
        ]
        streams = encode_with_blocks(self.encoders, batch, blocks, train)
        logits, used, aux = _heads(self, streams, train)
        return Outputs(masked_mean(logits, used, axis=1), aux)


class MSAF(nn.Module):
    """Split attention inside two encoders, and the sum of their logits.

        X_1, X_2 = MSAF_1(inner site of encoder 1, inner site of encoder 2)
        Y_1, Y_2 = MSAF_2(rest of encoder 1 (X_1), rest of encoder 2 (X_2))
        prediction = head_1(Y_1) + head_2(Y_2)

    Parameters: `encoders_<modality>`, `head_<modality>`, as in LateFusion; `fusion_1`,
    `fusion_2`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> x = {"audio": jnp.ones((2, 20, 13)), "video": jnp.ones((2, 4, 16, 16, 3))}
        >>> batch = mmf.Batch(x, {m: jnp.ones(v.shape[:2], bool) for m, v in x.items()})
        >>> video = mmf.encoders.ResNeXt3D(blocks=(1,), base_channels=4)
        >>> encoders = {"audio": mmf.encoders.AudioConv(8, pool=4), "video": video}
        >>> model = mmf.models.MSAF(encoders, head_size=3, block_dims=(4, 4))
        >>> jax.eval_shape(
        ...     lambda: model.init_with_output(jax.random.key(0), batch, train=False)
        ... )[0].prediction.shape
        (2, 3)

    Attributes:
        encoders: Two encoders with an inner site, such as AudioConv and ResNeXt3D.
        head_size: k.
        block_dims: Channels of a block at the inner site and after the encoders.
        reduction, block_dropout: See `SplitAttention`.
        dropout: Dropout rate of the pooled audio.
        audio_pooling: Pooling of audio: "flatten", "mean" or "mean_std".
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None keeps the encoders'.

    Reference:
        Su et al. 2020, Sec. 4.1 and the released code; CFN-SR, Table 1, "MSAF".
    Deviation:
        The released network lacks the ReLU after the first norm of the video encoder:
        `--config.model.encoders.video.stem_relu=False`.
    """

    num_modalities: ClassVar[int] = 2
    unimodal_logits: ClassVar[bool] = True

    encoders: Mapping[str, nn.Module]
    head_size: int
    block_dims: tuple[Size, Size] = (16, 32)
    reduction: Size = 4
    block_dropout: Fraction = 0.2
    dropout: Fraction = 0.4
    audio_pooling: AudioPooling = "flatten"
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Returns the sum of the logits (b k), or of the scores (b), of the present.

        Auxiliary outputs: the vector (b d) of each modality, with its name, and
        "logits/<modality>".

        Raises:
            ConfigError: An encoder has no inner site.
        """
        order = tuple(sorted(self.encoders))
        blocks = [
            SplitAttention(
                order,
                width,
                self.reduction,
                self.block_dropout,
                self.axis,
                self.dtype,
                name=f"fusion_{i}",
            )
            for i, width in enumerate(self.block_dims, start=1)
        ]
        streams = encode_with_blocks(self.encoders, batch, blocks, train)
        logits, used, aux = _heads(self, streams, train)
        return Outputs(jnp.sum(zero_masked(logits, used), axis=1), aux)


def encode_with_blocks(
    encoders: Mapping[str, nn.Module],
    batch: Batch,
    blocks: Sequence[Block],
    train: bool,
) -> Streams:
    """Encodes all modalities, with a fusion block at the inner sites and at the end.

    Args:
        encoders: Encoders with an inner site.
        batch: A batch.
        blocks: The two fusion blocks.
        train: Passed to encoders and blocks.

    Raises:
        ConfigError: An encoder has no inner site.
    """
    for name, encoder in encoders.items():
        if not getattr(encoder, "inner_site", False):
            raise ConfigError(
                "C22",
                f"config.model.encoders.{shown_name(name)} is {type_name(encoder)}, "
                "which has no inner site for a fusion block.",
                "audio_cnn or resnext_3d",
            )
    inner, outer = blocks
    inputs = {m: (batch.inputs[m], batch.valid_mask(m)) for m in encoders}
    streams = {
        m: encoder(*inputs[m], train=train, until_site=True)
        for m, encoder in encoders.items()
    }
    streams = inner(streams, train=train)
    streams = {
        m: encoder(*inputs[m], train=train, from_site=streams[m])
        for m, encoder in encoders.items()
    }
    for m, tokens in streams.items():
        where = f"config.model.encoders.{shown_name(m)} returns"
        check_tokens(where, tokens, len(batch.weight))
    return outer(streams, train=train)


def _heads(
    model: MMTM | MSAF, streams: Streams, train: bool
) -> tuple[Array, Array, dict[str, Array]]:
    """Returns the logits (b m k) or scores (b m), and the auxiliary outputs.

    The second result, (b m) bool, are the modalities whose logits count: those present,
    or all if none is.
    """
    logits, aux = [], {}
    for m in sorted(streams):
        options = (model.dropout, model.audio_pooling)
        aux[m] = pool_modality(streams, m, *options, train=train)
        logits.append(prediction_head(aux[m], model.head_size, f"head_{m}"))
        aux[f"logits/{m}"] = logits[-1]
    present = jnp.stack([streams[m].present for m in sorted(streams)], axis=1)
    used = present | ~jnp.any(present, axis=1, keepdims=True)
    return jnp.stack(logits, axis=1), used, aux
