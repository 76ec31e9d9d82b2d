"""MCL-MCF: contrastive learning at three levels of fusion."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, join_names, shown
from mmfusion_jax.fusion.tensor_convolution import ACTIVATIONS, TensorConvolution
from mmfusion_jax.layers.linear import xavier_dense, xavier_normal
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.layers.projection_heads import ProjectionHeads
from mmfusion_jax.models.common import check_choices, encode, prediction_head
from mmfusion_jax.models.mcl_mcf_heads import IMAGE_ENCODERS, ImageHead
from mmfusion_jax.ops.feature_variation import varying_energy
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import (
    AnyFloat,
    Distinct,
    Fraction,
    ModalityOrder,
    NonNegativeInt,
    Size,
    Sizes,
)
from mmfusion_jax.types import Array, Batch, Outputs, Streams, Tokens

LEVELS = (1, 2, 3)
CHOICES = {
    "variant": ("paper", "released_code"),
    "tcf_last_activation": tuple(ACTIVATIONS),
    "image_encoder": ("none", "tslc", *IMAGE_ENCODERS),
}


class MCLMCF(nn.Module):
    """Fuses three modalities t, a, v with contrastive losses at three levels (Fig. 1).

        t' = relu(W_t t + b_t), and so a', v'                         (13, 20)
        q = relu(W_q [t, a, v] + b_q)                                 (19)
        h = W_h [t', a', v', q] + b_h                                 (21)
        prediction = W_3 tanh(W_2 tanh(W_1 h))

    The contrastive views are built in training only: at level 1 the pairs of
    modalities, at level 2 a modality and a mixture of others, at level 3 pairs of
    `TensorConvolution`s of t', a', v'.

    Parameters: `encoders_<modality>`; `lift_<modality>`, `mix`, `fuse`, or with an
    image encoder `image_head`, without MCF `linear_0`, `linear_1`; `hidden_0`,
    `hidden_1`, `head`; for the losses `mix_<m>_<m>..`, `tcf_<m>_<m>`, and
    `level{1,2,3}_<x>_<y>` for each pair of views.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> names, mask = ("text", "audio", "video"), jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(
        ...     {name: jnp.ones((2, 5, 8)) for name in names},
        ...     {name: mask for name in names},
        ... )
        >>> encoders = {name: mmf.encoders.Precomputed() for name in names}
        >>> model = mmf.models.MCLMCF(
        ...     encoders, head_size=1, mixture_dim=16, projection_dim=16, hidden_dim=8
        ... )
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2,)

    Attributes:
        encoders: Encoders of three modalities; the first valid token of each is used.
        head_size: Number of outputs.
        modality_order: The modalities used as t, a, v.
        mixture_dim: Width of the mixtures of level 2.
        projection_dim: Width of t', a', v', q and h.
        hidden_dim: Width of the hidden layers of the head.
        contrastive_dim: Width of the space in which views are compared.
        channels: Output channels of the tensor convolutions.
        levels: Levels of the contrastive losses; Table 5, "w/o MCL-F" is (2, 3).
        mcf: False is "w/o MCF", Table 5: h is that of two linear layers,
            W_2 relu(W_1 [t, a, v]), instead of Eq. 19-21.
        variant: "paper", or "released_code": projection heads, see `ProjectionHeads`,
            and initial biases, which are PyTorch's default there and 0 here; those of
            the encoders have the same option.
        learnable_scale: See `ProjectionHeads`.
        tcf_last_activation: See `TensorConvolution`.
        chunk: Examples that a tensor convolution processes at a time; 0 for all.
        dropout: Dropout rate of the input of the head.
        dtype: Dtype of the computation; None keeps the encoders'.
        image_encoder: Image encoder of Table 9: the head reads its output for the outer
            products of t', a' and v' instead of h, independent of `mcf`; see
            `ImageHead`. "none" for the model of the paper.
        image_encoder_kwargs: Other arguments of the image encoder, such as its
            `hidden_dim`.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        output_bias_init: Constant added to a score, about which training starts.

    Reference:
        MCL-MCF, Sec. 3 and 4, Tables 5 and 9.
    Deviation:
        Activations, the tanh head and shared weights for Eq. 13 and 20 are from the
        released code. It concatenates in several orders, which only permutes the rows
        of a kernel: ours is always `modality_order`. A missing modality is 0 in every
        concatenation, and its views are not compared. Sec. 5.5 replaces MCF by "linear
        layers" without their number and sizes. A convolution of Eq. 19-21 is a linear
        layer too, of one vector: what MCF adds is that the second layer also reads the
        modalities, t', a' and v'. Ours are as many layers as MCF has, of its width and
        with its ReLU, without t', a' and v'.
    """

    num_modalities: ClassVar[int] = 3

    encoders: Mapping[str, nn.Module]
    head_size: int
    modality_order: ModalityOrder = ("text", "audio", "video")
    mixture_dim: Size = 64
    projection_dim: Size = 512
    hidden_dim: Size = 128
    contrastive_dim: Size = 128
    channels: Sizes = (4, 6, 1)
    levels: Annotated[tuple[Literal[1, 2, 3], ...], Distinct()] = LEVELS
    mcf: bool = True
    variant: Literal["paper", "released_code"] = "paper"
    learnable_scale: bool = False
    tcf_last_activation: Literal["relu", "leaky_relu", "none"] = "relu"
    chunk: NonNegativeInt = 16
    dropout: Fraction = 0.1
    dtype: Any = None
    image_encoder: Literal[
        "none", "tslc", "resnet18", "resnet34", "resnet50", "vit"
    ] = "none"
    image_encoder_kwargs: Any = None
    axis: str | None = None
    output_bias_init: AnyFloat = 0.0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Fuses the modalities and predicts.

        Returns:
            Logits (b k), or a score (b) with one output. Auxiliary outputs: the vector
            (b d) of every modality, with its name, "fused" (b e), the input of the
            head, and in training, for every pair of views, "level1/text_audio/x",
            "../y" (b k) and "../valid" (b) bool, and likewise for
            level2/text_video_audio and level3/text_video_text_audio;
            "log/varying_energy/text_video" (b), the fraction of the energy of a tensor
            convolution that differs between the examples, the same number for all.

        Raises:
            ConfigError: An option is unknown, or `modality_order` does not match the
                encoders.
        """
        self._check()
        streams = encode(self.encoders, batch, train=train)
        streams = {m: single(first(x), x.present) for m, x in streams.items()}
        # An evaluation needs no views, but init, which runs with train=False, must
        # create their parameters.
        with_views = train or self.is_initializing()
        has_image_encoder = self.image_encoder != "none"
        if self.mcf or has_image_encoder or (with_views and 3 in self.levels):
            projected = self._project(streams)
        else:
            projected = {}
        if has_image_encoder:
            fused = self._encode_images(projected, train)
        else:
            fused = self._fuse(streams, projected)
        aux = {m: first(x) for m, x in streams.items()} | {"fused": fused}
        if with_views:
            aux |= self._contrastive_views(streams, projected, train)
        x = nn.Dropout(self.dropout, deterministic=not train)(fused)
        for i in range(2):
            x = jnp.tanh(self._dense(x, self.hidden_dim, f"hidden_{i}"))
        prediction = prediction_head(
            x,
            self.head_size,
            kernel_init=xavier_normal,
            bias_init=self.output_bias_init,
        )
        return Outputs(prediction, aux)

    def _project(self, streams: Streams) -> Streams:
        """Computes t', a' and v', Eq. 13."""
        return {
            m: single(
                jax.nn.relu(self._dense(first(x), self.projection_dim, f"lift_{m}")),
                x.present,
            )
            for m, x in streams.items()
        }

    def _fuse(self, streams: Streams, projected: Streams) -> Array:
        """Computes h, Eq. 19-21, or from linear layers without MCF."""
        joint = self._concatenate(streams, self.modality_order)
        if not self.mcf:
            x = self._dense(joint, self.projection_dim, "linear_0")
            x = jax.nn.relu(x)
            return self._dense(x, self.projection_dim, "linear_1")
        q = jax.nn.relu(self._dense(joint, self.projection_dim, "mix"))
        parts = [self._concatenate(projected, self.modality_order), q]
        return self._dense(jnp.concatenate(parts, axis=-1), self.projection_dim, "fuse")

    def _dense(self, x: Array, features: int, name: str) -> Array:
        """Dense layer; only the released code has a bias that is not 0 initially."""
        default_bias = self.variant == "released_code"
        return xavier_dense(x, features, name, self.dtype, default_bias=default_bias)

    def _encode_images(self, projected: Streams, train: bool) -> Array:
        """Encodes the outer products with an image encoder, Table 9."""
        t, a, v = self.modality_order
        image_head = ImageHead(
            ((t, v), (t, a), (v, a)),
            self.image_encoder,
            self.hidden_dim,
            self.tcf_last_activation,
            self.chunk,
            self.image_encoder_kwargs,
            self.axis,
            self.dtype,
            self.variant,
            name="image_head",
        )
        return image_head(projected, train=train)

    def _contrastive_views(
        self, streams: Streams, projected: Streams, train: bool
    ) -> dict[str, Array]:
        """Builds the views of every level, by the names of the auxiliary outputs."""
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
            images = {
                pair: self._image(projected, pair, train) for pair in (tv, ta, va)
            }
            for x, y in ((tv, ta), (tv, va), (ta, va)):
                pairs[f"level3/{'_'.join(x + y)}"] = images[x], images[y]
            # init runs outside of pmap, where its axis is not defined.
            axis = None if self.is_initializing() else self.axis
            aux = {
                f"log/varying_energy/{'_'.join(pair)}": jnp.full(
                    len(image.values), varying_energy(first(image), image.present, axis)
                )
                for pair, image in images.items()
            }
        for name, (x, y) in pairs.items():
            aux |= self._views(name, x, y)
        return aux

    def _mixture(self, streams: Streams, names: tuple[str, ...]) -> Tokens:
        """Mixture of several modalities, Eq. 6-7; masked unless all are present."""
        present = jnp.all(jnp.stack([streams[m].present for m in names]), axis=0)
        joint = self._concatenate(streams, names)
        name = f"mix_{'_'.join(names)}"
        return single(self._dense(joint, self.mixture_dim, name), present)

    def _image(self, projected: Streams, pair: tuple[str, str], train: bool) -> Tokens:
        """Tensor convolution of a pair, Eq. 14-15."""
        block = TensorConvolution(
            *pair,
            "image",
            self.channels,
            self.tcf_last_activation,
            self.chunk,
            self.dtype,
            self.variant,
            name=f"tcf_{'_'.join(pair)}",
        )
        return block(projected, train=train)["image"]

    def _views(self, name: str, x: Tokens, y: Tokens) -> dict[str, Array]:
        """Outputs of one pair for the loss term `info_nce`."""
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

    def _concatenate(self, streams: Streams, names: tuple[str, ...]) -> Array:
        return jnp.concatenate([first(streams[m]) for m in names], axis=-1)

    def _check(self) -> None:
        if (
            len(self.modality_order) != 3
            or set(self.modality_order) != self.encoders.keys()
        ):
            raise ConfigError(
                "C22",
                f"config.model.modality_order={shown(self.modality_order)} must "
                f"contain the three encoders {join_names(sorted(self.encoders))}.",
                "list the three modalities once each, in the order text, audio, video",
            )
        if not set(self.levels) <= set(LEVELS):
            raise ConfigError(
                "C03",
                f"config.model.levels={shown(self.levels)} must be a subset of "
                f"{LEVELS}.",
            )
        check_choices(self, CHOICES)


def single(x: Array, present: Array) -> Tokens:
    """Returns vectors (b d) as a stream of one token, masked where not present."""
    return Tokens(zero_masked(x, present)[:, None], present[:, None])
