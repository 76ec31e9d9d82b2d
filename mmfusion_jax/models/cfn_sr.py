"""CFN-SR: self-attended audio tells video where to look, with a residual."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.fusion.residual_attention import ResidualAttention
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import mean_per_frame
from mmfusion_jax.layers.transformer import Transformer
from mmfusion_jax.models.common import encode, pool_modality, prediction_head
from mmfusion_jax.types import Batch, Outputs, Streams

KNOWN = {
    "cross": ("audio_to_video", "video_to_audio", "none"),
    "parity": ("paper", "official"),
}


class CFNSR(nn.Module):
    """One modality picks its own features, then tells the other where to look (Fig. 1).

        prediction = W_1 [mean(X_o), flatten(X_A)] + b_1             (9)

    Parameters: `encoders_audio`, `encoders_<watched>`, `select` (the self-attention),
    `cross` (Eq. 7-8), `head`, and `narrow` with cross="video_to_audio".

    Attributes:
        encoders: "audio" and `attended_modality`; each maps (values, mask) to Tokens.
        head_size: number of emotions, k of the prediction.
        hidden_dim: size of the space where audio and video meet.
        num_layers, num_heads: of the self-attention; heads divides the width of the
            audio tokens, or `hidden_dim` with cross="video_to_audio".
        causal: a token of the self-attention sees no later one.
        cross: who tells whom. Table 2: "audio_to_video" is the paper's model,
            "video_to_audio" the alternative, "none" is "w/o cross-modal blocks".
        self_attention: False is "w/o self-attention", Table 2.
        residual: False is "w/o residual", Table 2.
        softmax_axes: positions that share one unit of weight, see ResidualAttention.
        variant: "official" sums the attention over the batch, as the released code
            does. Its other departures belong to the encoder (`stem_relu=False`) and to
            the data.
        dropout: on the vector of audio.
        audio_pooling: the vector of audio in Eq. 9: "flat" as in the paper, "mean" or
            "moments" (mean and deviation over time), for little data.
        embed_dropout, layer_dropout: of the self-attention: on its input; on weights,
            hidden layers and residuals.
        axis: pmap axis over which the batch is spread; None under jit.
        dtype: type of the computation; None keeps that of the encoders.
        attended_modality: the modality in the place of video: any stream with
            positions, such as a clip, an image, or a few vectors per clip.

    Reference:
        CFN-SR, Sec. 2, Tables 1 and 2.
    Deviation:
        Sec. 3.5 names the directions the other way round than Table 2; we follow the
        table. For "video_to_audio" neither text nor code gives a definition: the
        steps of the clip, each the mean of its positions, are projected, attend to
        themselves, and the last one weighs the steps of the audio. Table 2 prints
        25.67M parameters for it, less than the two encoders together.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    hidden_dim: int = 64
    num_layers: int = 5
    num_heads: int = 8
    causal: bool = True
    cross: Literal["audio_to_video", "video_to_audio", "none"] = "audio_to_video"
    self_attention: bool = True
    residual: bool = True
    softmax_axes: Literal["HW", "SHW"] = "HW"
    variant: Literal["paper", "official"] = "paper"
    dropout: float = 0.4
    audio_pooling: str = "flat"
    embed_dropout: float = 0.3
    layer_dropout: float = 0.1
    axis: str | None = None
    dtype: Any = None
    attended_modality: str = "video"

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Classifies.

        Returns:
            Logits (b k); aux "audio" (b n*d) and `attended_modality` (b d), what the
            head sees, and "attention" (b n), the weight of every token of the modality
            that is told, if any is.

        Raises:
            ConfigError: if an option is unknown, or "audio" or `attended_modality` is
                missing.
        """
        self._check()
        streams = encode(self.encoders, batch, train=train)
        if self.cross != "none":
            streams = self._fuse(streams, train)

        options = (self.dropout, self.audio_pooling)
        audio = pool_modality(streams, "audio", *options, train=train)
        watched = pool_modality(streams, self.attended_modality, *options, train=train)
        joint = jnp.concatenate([watched, audio], axis=-1)  # I in Sec. 2.4
        aux = {"audio": audio, self.attended_modality: watched}
        if "attention" in streams:
            aux["attention"] = streams["attention"].values[..., 0]
        return Outputs(prediction_head(joint, self.head_size), aux)  # Eq. 9

    def _fuse(self, streams: Streams, train: bool) -> Streams:
        """The cross-modal block, Sec. 2.3; the stream that asks stays as it was."""
        names = {"audio": "audio", "video": self.attended_modality}
        source, target = (names[name] for name in self.cross.split("_to_"))
        question = streams[source]
        if source == self.attended_modality:
            steps = mean_per_frame(question)
            narrow = torch_dense(
                steps.values.shape[-1],
                self.hidden_dim,
                use_bias=False,
                dtype=self.dtype,
                name="narrow",
            )
            question = steps.replace(values=narrow(steps.values))
        if self.self_attention:
            question = self._transformer()(question, train=train)  # Eq. 5-6
        fuse = ResidualAttention(
            self.hidden_dim,
            target,
            "question",
            project_source=source == "audio",
            residual=self.residual,
            softmax_axes=self.softmax_axes,
            attention="batch_sum" if self.variant == "official" else "per_sample",
            axis=self.axis,
            dtype=self.dtype,
            name="cross",
        )
        return fuse({**streams, "question": question}, train=train)

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
            name="select",
        )

    def _check(self) -> None:
        if missing := {"audio", self.attended_modality} - self.encoders.keys():
            raise ConfigError(
                "C22",
                f"CFNSR needs encoders for {sorted(missing)}, but was given "
                f"{sorted(self.encoders)}.",
            )
        for name, known in KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    "C03", f"{name}={value!r} is unknown.", suggest(value, known)
                )
