"""Image encoders for the outer products of modalities (MCL-MCF, Table 9)."""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.encoders.resnet import ResNet
from mmfusion_jax.encoders.vit import ViT
from mmfusion_jax.fusion.tensor_convolution import TensorConvolution
from mmfusion_jax.layers.linear import xavier_dense
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import NonNegativeInt
from mmfusion_jax.types import Array, Streams

IMAGE_ENCODERS = {
    "resnet18": (ResNet, {"blocks": (2, 2, 2, 2), "kind": "basic"}),
    "resnet34": (ResNet, {"blocks": (3, 4, 6, 3), "kind": "basic"}),
    "resnet50": (ResNet, {"blocks": (3, 4, 6, 3), "kind": "bottleneck"}),
    "vit": (ViT, {"num_layers": 6, "patch_size": 16}),
}
CLASSES = 1000
"""Output classes of the torchvision networks that the paper uses."""


class ImageHead(nn.Module):
    """Encodes the outer products of three pairs of vectors as one image.

        image = [r_t r_v^T, r_t r_a^T, r_v r_a^T]             three channels
        y = W encode(image) + b

    With the encoder "tslc", three single-layer convolutions:

        y = W [F_tv, F_ta, F_va] + b                          F of Eq. 14-15

    Parameters: `image` (the encoder), `classes` after a ResNet, and `out`; with "tslc"
    `tslc_<m>_<m>` and `out`.

    Attributes:
        pairs: Pairs of modalities, in the order of the channels.
        encoder: "tslc", or a key of `IMAGE_ENCODERS`.
        features: Width of y.
        last_activation, chunk: Options of `TensorConvolution`, for "tslc" only.
        encoder_kwargs: Other arguments of the encoder, such as `hidden_dim`.
        axis: Axis of pmap or shard_map over which the batch is split; None under jit.
        dtype: Dtype of the computation; None keeps the vectors'.
        variant: Initial biases, see `TensorConvolution`.

    Reference:
        MCL-MCF, Sec. 6.6 and Table 9.
    Deviation:
        The parameter counts of Table 9 are those of torchvision's networks including
        the layer of 1000 classes, plus a linear layer of 128. The vectors have 128
        elements for a ResNet, 256 for "tslc". Of the paper's ViT only 6 layers and
        patches of 16 are known; the rest is that of ViT-base. The paper does not
        define the use of y: our head reads it instead of h.
    """

    pairs: tuple[tuple[str, str], ...]
    encoder: str
    features: int = 128
    last_activation: str = "relu"
    chunk: NonNegativeInt = 16
    encoder_kwargs: Any = None
    axis: str | None = None
    dtype: Any = None
    variant: Literal["paper", "released_code"] = "paper"

    @nn.compact
    def __call__(self, projected: Streams, *, train: bool) -> Array:
        """Maps vectors of every modality, (b 1 d) each, to y, (b features).

        A pair with a missing modality is a channel of zeros; y is 0 if all pairs are.
        """
        present = [projected[x].present & projected[y].present for x, y in self.pairs]
        if self.encoder == "tslc":
            x = jnp.concatenate(
                [self._single_convolution(projected, p, train) for p in self.pairs], -1
            )
        else:
            images = [
                jnp.einsum("bi,bj->bij", first(projected[x]), first(projected[y]))
                for x, y in self.pairs
            ]
            x = self._encode(jnp.stack(images, axis=-1), present, train)
        y = self._dense(x, self.features, "out")
        return zero_masked(y, jnp.any(jnp.stack(present), axis=0))

    def _single_convolution(
        self, projected: Streams, pair: tuple[str, str], train: bool
    ) -> Array:
        """F of one pair."""
        block: Any = TensorConvolution
        name = f"tslc_{'_'.join(pair)}"
        options = (1,), self.last_activation, self.chunk, self.dtype, self.variant
        return first(
            block(*pair, "image", *options, name=name)(projected, train=train)["image"]
        )

    def _encode(self, images: Array, present: list[Array], train: bool) -> Array:
        """Encodes images (b h w 3) to (b d)."""
        module, options = IMAGE_ENCODERS[self.encoder]
        # Only the ResNet has batch statistics, so only it needs the axis.
        if module is ResNet:
            options = {**options, "axis": self.axis}
        encoder = module(
            **(options | dict(self.encoder_kwargs or {})),
            pooled=True,
            dtype=self.dtype,
            name="image",
        )
        mask = jnp.any(jnp.stack(present), axis=0)[:, None]
        x = first(encoder(images[:, None], mask, train=train))
        if module is not ResNet:
            return x
        return self._dense(x, CLASSES, "classes")

    def _dense(self, x: Array, features: int, name: str) -> Array:
        default_bias = self.variant == "released_code"
        return xavier_dense(x, features, name, self.dtype, default_bias=default_bias)
