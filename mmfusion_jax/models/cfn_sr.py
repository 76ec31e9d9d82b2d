"""CFN-SR: residual cross-modal attention from audio to video."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, join_names
from mmfusion_jax.fusion.residual_attention import ResidualAttention
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import mean, mean_per_frame
from mmfusion_jax.layers.transformer import Transformer
from mmfusion_jax.models.common import (
    AudioPooling,
    check_choices,
    encode,
    pool_modality,
    prediction_head,
)
from mmfusion_jax.option_types import Depth, Fraction, Heads, Modality, Scale, Size
from mmfusion_jax.types import Array, Batch, Outputs, Streams

CHOICES = {
    "cross": ("audio_to_video", "video_to_audio", "none"),
    "variant": ("paper", "released_code"),
}


class CFNSR(nn.Module):
    """Self-attention in one modality, then attention over the other (Fig. 1).

        prediction = W_1 [mean(X_o), flatten(X_A)] + b_1             (9)

    Parameters: `encoders_audio`, `encoders_<attended_modality>`, `select` (the
    self-attention), `cross` (Eq. 7-8), `head`, and `narrow` with
    cross="video_to_audio".

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio, video = jnp.ones((2, 5, 8)), jnp.ones((2, 4, 8, 8, 1))
        >>> masks = {"audio": jnp.ones((2, 5), bool), "video": jnp.ones((2, 4), bool)}
        >>> batch = mmf.Batch({"audio": audio, "video": video}, masks)
        >>> video_encoder = mmf.encoders.ResNeXt3D(blocks=(1,), base_channels=4)
        >>> encoders = {"audio": mmf.encoders.Precomputed(), "video": video_encoder}
        >>> model = mmf.models.CFNSR(encoders, head_size=3, num_layers=1, num_heads=2)
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2, 3)

    Attributes:
        encoders: "audio" and `attended_modality`; each maps (values, mask) to Tokens.
        head_size: Number of emotions, k of the prediction.
        hidden_dim: Width of the common space of audio and video.
        num_layers, num_heads: Sizes of the self-attention; `num_heads` divides the
            width of the audio tokens, or `hidden_dim` with cross="video_to_audio".
        causal: Use causal self-attention, as the released code does; the paper does
            not say.
        cross: Attention direction. Table 2: "audio_to_video" is the paper's model,
            "video_to_audio" the alternative, "none" is "w/o cross-modal blocks".
        self_attention: False is "w/o self-attention", Table 2.
        residual: False is "w/o residual", Table 2.
        softmax_axes: Positions over which the attention is normalized, see
            ResidualAttention.
        variant: "released_code" sums the attention over the batch, as the released code
            does. Its other deviations belong to the encoder (`stem_relu=False`) and to
            the data.
        dropout: Dropout rate of the pooled audio.
        audio_pooling: Pooling of audio in Eq. 9: "flatten" as in the paper, "mean" or
            "mean_std" (mean and standard deviation over time), for small datasets.
        embed_dropout, layer_dropout: Dropout rates of the self-attention: of its input;
            of attention weights, hidden layers and residual branches. Those of the
            released code; the paper gives none.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None keeps the encoders'.
        attended_modality: Modality used instead of video: any stream with positions,
            such as a clip, an image, or a few vectors per clip.
        pre_norm: Normalize before each residual branch of the self-attention, as the
            released code does; False normalizes after it, as Eq. 6 prints.
        attention_scale: Factor of the attention in Eq. 8. The released code sums the
            attention of a batch of 16: 16 has its strength, without its dependence on
            the other examples.

    Reference:
        CFN-SR, Sec. 2, Tables 1 and 2.
    Deviation:
        Eq. 8 adds little: one part in as many as a time step has positions, as long as
        the attention is even. That is 2.04 % of the pooled video for 7 x 7 positions,
        where the released code adds 32.7 % with its batch of 16. The default is Eq. 8,
        `variant="released_code"` the code, and `attention_scale=16` the code without
        the sum over the batch. "log/added/video" is the fraction that a model adds.
        Eq. 6 and the code differ too, see `Transformer`: the default is the code's,
        with which the paper's accuracies were made.
        Sec. 3.5 and Table 2 name the directions in opposite ways; we follow the table.
        "video_to_audio" is not defined in text or code: we project the steps of the
        clip, each the mean of its positions, apply self-attention, and use the last
        one as the query over the steps of the audio. Table 2 prints 25.67M parameters
        for it, fewer than the two encoders have.
    """

    num_modalities: ClassVar[int] = 2

    encoders: Mapping[str, nn.Module]
    head_size: int
    hidden_dim: Size = 64
    num_layers: Depth = 5
    num_heads: Heads = 8
    causal: bool = True
    cross: Literal["audio_to_video", "video_to_audio", "none"] = "audio_to_video"
    self_attention: bool = True
    residual: bool = True
    softmax_axes: Literal["HW", "SHW"] = "HW"
    variant: Literal["paper", "released_code"] = "paper"
    dropout: Fraction = 0.4
    audio_pooling: AudioPooling = "flatten"
    embed_dropout: Fraction = 0.3
    layer_dropout: Fraction = 0.1
    axis: str | None = None
    dtype: Any = None
    attended_modality: Modality = "video"
    pre_norm: bool = True
    attention_scale: Scale = 1.0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Fuses audio and video and classifies.

        Returns:
            Logits (b k). Auxiliary outputs: "audio" (b n*d) and `attended_modality`
            (b d), the inputs of the head, and, unless cross="none", "attention" (b n),
            the weight of every token of the modality that the block changes, and
            "log/added/<modality>" (b), what the block adds to the mean of its tokens:
            the norm of the addition over the norm of the mean. Training logs its mean.

        Raises:
            ConfigError: An option is unknown, or "audio" or `attended_modality` is
                missing.
        """
        self._check()
        streams, added = encode(self.encoders, batch, train=train), {}
        if self.cross != "none":
            streams, added = self._fuse(streams, train)

        options = (self.dropout, self.audio_pooling)
        audio = pool_modality(streams, "audio", *options, train=train)
        attended = pool_modality(streams, self.attended_modality, *options, train=train)
        joint = jnp.concatenate([attended, audio], axis=-1)  # I in Sec. 2.4
        aux = {"audio": audio, self.attended_modality: attended, **added}
        if "attention" in streams:
            aux["attention"] = streams["attention"].values[..., 0]
        return Outputs(prediction_head(joint, self.head_size), aux)  # Eq. 9

    def _fuse(self, streams: Streams, train: bool) -> tuple[Streams, dict[str, Array]]:
        """Applies the cross-modal block, Sec. 2.3; the source stream is unchanged.

        Returns:
            The streams, and the auxiliary output "log/added/<target>".
        """
        names = {"audio": "audio", "video": self.attended_modality}
        source, target = (names[name] for name in self.cross.split("_to_"))
        query = streams[source]
        if source == self.attended_modality:
            steps = mean_per_frame(query)
            narrow = torch_dense(
                steps.values.shape[-1],
                self.hidden_dim,
                use_bias=False,
                dtype=self.dtype,
                name="narrow",
            )
            query = steps.replace(values=narrow(steps.values))
        if self.self_attention:
            query = self._transformer()(query, train=train)  # Eq. 5-6
        fuse = ResidualAttention(
            self.hidden_dim,
            target,
            "query",
            project_source=source == "audio",
            residual=self.residual,
            softmax_axes=self.softmax_axes,
            attention="batch_sum" if self.variant == "released_code" else "per_sample",
            axis=self.axis,
            dtype=self.dtype,
            scale=self.attention_scale,
            name="cross",
        )
        fused = fuse({**streams, "query": query}, train=train)
        before, after = mean(streams[target]), mean(fused[target])
        added = after - before if self.residual else after
        return fused, {f"log/added/{target}": _relative_norm(added, before)}

    def _transformer(self) -> Transformer:
        return Transformer(
            self.num_layers,
            self.num_heads,
            self.causal,
            embed_dropout=self.embed_dropout,
            attention_dropout=self.layer_dropout,
            relu_dropout=self.layer_dropout,
            residual_dropout=self.layer_dropout,
            dtype=self.dtype,
            pre_norm=self.pre_norm,
            name="select",
        )

    def _check(self) -> None:
        if missing := {"audio", self.attended_modality} - self.encoders.keys():
            raise ConfigError(
                "C22",
                f"model cfn_sr requires encoders for {join_names(sorted(missing))}, "
                f"but config.model.encoders has {join_names(sorted(self.encoders))}.",
            )
        check_choices(self, CHOICES)


def _relative_norm(x: Array, of: Array) -> Array:
    """Norm of every row of `x` over that of the row of `of`, (b); 0 where that is 0."""
    x, of = (jnp.sum(jnp.square(a.astype(jnp.float32)), axis=-1) for a in (x, of))
    # Zero rows are those of missing modalities; the root of 0 has no gradient.
    some = (x > 0) & (of > 0)
    ratio = jnp.where(some, x, 1) / jnp.where(some, of, 1)
    return jnp.where(some, jnp.sqrt(ratio), 0)
