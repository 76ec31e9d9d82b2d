"""MCL-MCF: contrast at three levels of fusion, and fusion by two narrow layers."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.fusion.tensor_convolution import ACTIVATIONS, TensorConvolution
from mmfusion_jax.layers.linear import xavier_dense, xavier_normal
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.layers.projection_heads import ProjectionHeads
from mmfusion_jax.models.common import encode, prediction_head
from mmfusion_jax.models.mcl_mcf_heads import IMAGE_ENCODERS, ImageHead
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Batch, Outputs, Streams, Tokens

LEVELS = (1, 2, 3)
KNOWN = {
    "parity": ("paper", "official"),
    "tcf_last_activation": tuple(ACTIVATIONS),
    "image_encoder": ("none", "tslc", *IMAGE_ENCODERS),
}


class MCLMCF(nn.Module):
    """Three modalities t, a, v, contrasted while they are fused (Fig. 1).

        t' = relu(W_t t + b_t), and so a', v'                         (13, 20)
        q = relu(W_q [t, a, v] + b_q)                                 (19)
        h = W_h [t', a', v', q] + b_h                                 (21)
        prediction = W_3 tanh(W_2 tanh(W_1 h))

    Only the losses need the rest, which is not built for prediction: at level 1 the
    three pairs of modalities, at level 2 a modality against a mixture of others, at
    level 3 the pairs of `TensorConvolution`s of t', a', v'.

    Parameters: `encoders_<modality>`; `lift_<modality>`, `mix`, `fuse`, or with an
    image encoder `image_head`; `hidden_0`, `hidden_1`, `head`; for the losses
    `mix_<m>_<m>..`, `tcf_<m>_<m>`, and `level{1,2,3}_<x>_<y>` for each pair of views.

    Attributes:
        encoders: of three modalities; the first real token of each counts.
        head_size: number of outputs.
        modality_order: the modalities that stand for t, a, v.
        mixture_dim: width of the mixtures of level 2.
        projection_dim: width of t', a', v', q and h.
        hidden_dim: width of the layers of the head.
        contrastive_dim: width of the space where views are compared.
        channels: of the tensor convolutions.
        levels: of the contrast that are built; Table 5, "w/o MCL-F" is (2, 3).
        mcf: False is "w/o MCF", Table 5: the head reads [t, a, v].
        variant: of the projections, "paper" or "official", see `ProjectionHeads`.
        learnable_scale: see `ProjectionHeads`.
        tcf_last_activation: see `TensorConvolution`.
        chunk: examples that a tensor convolution takes at a time; 0 for all.
        dropout: on what the head reads.
        dtype: type of the computation; None keeps that of the encoders.
        image_encoder: of Table 9: the head reads what this one makes of the outer
            products of t', a' and v' in place of h, whatever `mcf` says; see
            `ImageHead`. "none" for the model of the paper.
        image_encoder_kwargs: other arguments of the image encoder, such as its `width`.
        axis: pmap axis over which the batch is spread; None under jit.
        output_bias_init: what a score is before anything is learned, about.

    Reference:
        MCL-MCF, Sec. 3, Tables 5 and 9.
    Deviation:
        Activations, the tanh head and the one set of weights for Eq. 13 and 20 are
        the released code's. It concatenates in several orders, which says no more
        than how the rows of a kernel are numbered: ours is `modality_order` everywhere.
            A
        missing modality is 0 in every concatenation, and no view of it is compared.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    modality_order: tuple[str, ...] = ("text", "audio", "video")
    mixture_dim: int = 64
    projection_dim: int = 512
    hidden_dim: int = 128
    contrastive_dim: int = 128
    channels: tuple[int, ...] = (4, 6, 1)
    levels: tuple[int, ...] = LEVELS
    mcf: bool = True
    variant: Literal["paper", "official"] = "paper"
    learnable_scale: bool = False
    tcf_last_activation: Literal["relu", "leaky_relu", "none"] = "relu"
    chunk: int = 16
    dropout: float = 0.1
    dtype: Any = None
    image_encoder: str = "none"
    image_encoder_kwargs: Any = None
    axis: str | None = None
    output_bias_init: float = 0.0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Predicts.

        Returns:
            Logits (b k), or a score (b) with one output; aux: the vector (b d) of
            every modality by its name, "fused" (b e), what the head reads, and in
            training, for every pair of views, "level1/text_audio/x", "../y" (b k) and
            "../valid" (b) bool, as level2/text_video_audio and
            level3/text_video_text_audio; "active/text_video" (b), the part of a
            tensor convolution that is not 0.

        Raises:
            ConfigError: an option is unknown, or `modality_order` is not that of the
                encoders.
        """
        self._check()
        streams = encode(self.encoders, batch, train=train)
        streams = {m: single(first(x), x.present) for m, x in streams.items()}
        learning = train or self.is_initializing()
        pictured = self.image_encoder != "none"
        if self.mcf or pictured or (learning and 3 in self.levels):
            lifted = self._lifted(streams)
        else:
            lifted = {}
        if pictured:
            fused = self._pictured(lifted, train)
        else:
            fused = self._fused(streams, lifted)
        aux = {m: first(x) for m, x in streams.items()} | {"fused": fused}
        if learning:
            aux |= self._contrasts(streams, lifted, train)
        x = nn.Dropout(self.dropout, deterministic=not train)(fused)
        for i in range(2):
            x = jnp.tanh(xavier_dense(x, self.hidden_dim, f"hidden_{i}", self.dtype))
        said = prediction_head(
            x,
            self.head_size,
            kernel_init=xavier_normal,
            bias_init=self.output_bias_init,
        )
        return Outputs(said, aux)

    def _lifted(self, streams: Streams) -> Streams:
        """t', a' and v', Eq. 13."""
        return {
            m: single(
                jax.nn.relu(
                    xavier_dense(first(x), self.projection_dim, f"lift_{m}", self.dtype)
                ),
                x.present,
            )
            for m, x in streams.items()
        }

    def _fused(self, streams: Streams, lifted: Streams) -> Array:
        """h, Eq. 19-21; [t, a, v] without MCF."""
        joint = self._joined(streams, self.modality_order)
        if not self.mcf:
            return joint
        q = jax.nn.relu(xavier_dense(joint, self.projection_dim, "mix", self.dtype))
        parts = [self._joined(lifted, self.modality_order), q]
        return xavier_dense(
            jnp.concatenate(parts, axis=-1), self.projection_dim, "fuse", self.dtype
        )

    def _pictured(self, lifted: Streams, train: bool) -> Array:
        """What an image encoder makes of the outer products, Table 9."""
        t, a, v = self.modality_order
        read = ImageHead(
            ((t, v), (t, a), (v, a)),
            self.image_encoder,
            self.hidden_dim,
            self.tcf_last_activation,
            self.chunk,
            self.image_encoder_kwargs,
            self.axis,
            self.dtype,
            name="image_head",
        )
        return read(lifted, train=train)

    def _contrasts(
        self, streams: Streams, lifted: Streams, train: bool
    ) -> dict[str, Array]:
        """The views of every level that is built, by the names of aux."""
        t, a, v = self.modality_order
        tv, ta, va = (t, v), (t, a), (v, a)
        pairs, aux = {}, {}
        if 1 in self.levels:
            pairs |= {
                f"level1/{x}_{y}": (streams[x], streams[y]) for x, y in (ta, tv, va)
            }
        if 2 in self.levels:
            for x, names in ((t, va), (v, ta), (a, tv), (a, (t, v, a))):
                mixture = self._mixture(streams, names)
                pairs[f"level2/{'_'.join((x, *names))}"] = streams[x], mixture
        if 3 in self.levels:
            images = {pair: self._image(lifted, pair, train) for pair in (tv, ta, va)}
            for x, y in ((tv, ta), (tv, va), (ta, va)):
                pairs[f"level3/{'_'.join(x + y)}"] = images[x], images[y]
            aux = {
                f"active/{'_'.join(pair)}": jnp.mean(first(image) != 0, axis=-1)
                for pair, image in images.items()
            }
        for name, (x, y) in pairs.items():
            aux |= self._views(name, x, y)
        return aux

    def _mixture(self, streams: Streams, names: tuple[str, ...]) -> Tokens:
        """One vector of several modalities, Eq. 6-7; masked unless all are present."""
        present = jnp.all(jnp.stack([streams[m].present for m in names]), axis=0)
        joint = self._joined(streams, names)
        name = f"mix_{'_'.join(names)}"
        return single(xavier_dense(joint, self.mixture_dim, name, self.dtype), present)

    def _image(self, lifted: Streams, pair: tuple[str, str], train: bool) -> Tokens:
        """The tensor convolution of a pair, Eq. 14-15."""
        block = TensorConvolution(
            *pair,
            "image",
            self.channels,
            self.tcf_last_activation,
            self.chunk,
            self.dtype,
            name=f"tcf_{'_'.join(pair)}",
        )
        return block(lifted, train=train)["image"]

    def _views(self, name: str, x: Tokens, y: Tokens) -> dict[str, Array]:
        """What the loss term `info_nce` reads of one pair."""
        project = ProjectionHeads(
            self.contrastive_dim,
            self.variant,
            self.learnable_scale,
            self.dtype,
            name=name.replace("/", "_"),
        )
        left, right = project(first(x), first(y))
        valid = x.present & y.present
        return {f"{name}/x": left, f"{name}/y": right, f"{name}/valid": valid}

    def _joined(self, streams: Streams, names: tuple[str, ...]) -> Array:
        return jnp.concatenate([first(streams[m]) for m in names], axis=-1)

    def _check(self) -> None:
        if (
            len(self.modality_order) != 3
            or set(self.modality_order) != self.encoders.keys()
        ):
            raise ConfigError(
                "C22",
                f"modality_order={self.modality_order} must name the three encoders "
                f"{sorted(self.encoders)}.",
                "three modalities, each once, in the order text, audio, video",
            )
        if unknown := set(self.levels) - set(LEVELS):
            raise ConfigError(
                "C03", f"levels={self.levels}: {sorted(unknown)} is none of {LEVELS}."
            )
        for name, known in KNOWN.items():
            if (value := getattr(self, name)) not in known:
                raise ConfigError(
                    "C03", f"{name}={value!r} is unknown.", suggest(value, known)
                )


def single(x: Array, present: Array) -> Tokens:
    """Vectors (b d) as a stream of one token, 0 and masked where not present."""
    return Tokens(zero_masked(x, present)[:, None], present[:, None])
