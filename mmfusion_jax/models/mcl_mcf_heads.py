"""What MCL-MCF's Table 9 puts behind the outer products of its modalities."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.encoders.resnet import ResNet
from mmfusion_jax.encoders.vit import ViT
from mmfusion_jax.fusion.tensor_convolution import TensorConvolution
from mmfusion_jax.layers.linear import xavier_dense
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Streams

IMAGE_ENCODERS = {
    "resnet18": (ResNet, {"blocks": (2, 2, 2, 2), "kind": "basic"}),
    "resnet34": (ResNet, {"blocks": (3, 4, 6, 3), "kind": "basic"}),
    "resnet50": (ResNet, {"blocks": (3, 4, 6, 3), "kind": "bottleneck"}),
    "vit": (ViT, {"depth": 6, "patch": 16}),
}
CLASSES = 1000
"""Outputs of the networks of torchvision, which the paper takes as they are."""


class ImageHead(nn.Module):
    """Reads the outer products of three pairs of vectors as one image.

        image = [r_t r_v^T, r_t r_a^T, r_v r_a^T]             three channels
        y = W encode(image) + b

    With the encoder "tslc", three single convolutions:

        y = W [F_tv, F_ta, F_va] + b                          F of Eq. 14-15

    Parameters: `image`, the encoder, `classes` behind a ResNet, and `out`; of "tslc"
    `tslc_<m>_<m>` and `out`.

    Attributes:
        pairs: of modalities, in the order of the channels.
        encoder: "tslc", or a name in `IMAGE_ENCODERS`.
        features: of y.
        last_activation, chunk: of `TensorConvolution`; count for "tslc" only.
        encoder_kwargs: other arguments of the encoder, such as `width`.
        axis: pmap axis over which the batch is spread; None under jit.
        dtype: type of the computation; None keeps that of the vectors.

    Reference:
        MCL-MCF, Sec. 4.5 and Table 9.
    Deviation:
        The counts of Table 9 are those of torchvision's networks with their layer of
        1000 classes, and a linear layer of 128 behind. The vectors of a ResNet have
        128 numbers there, those of "tslc" 256. The size of the paper's ViT is not
        known: 6 layers and patches of 16 are, and the rest is that of ViT-base. The
        paper does not say what becomes of y: we let its head read it in place of h.
    """

    pairs: tuple[tuple[str, str], ...]
    encoder: str
    features: int = 128
    last_activation: str = "relu"
    chunk: int = 16
    encoder_kwargs: Any = None
    axis: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, lifted: Streams, *, train: bool) -> Array:
        """Maps vectors of every modality, (b 1 d) each, to y, (b features).

        A pair with a missing modality is an image of 0; where every pair is, so is y.
        """
        present = [lifted[x].present & lifted[y].present for x, y in self.pairs]
        if self.encoder == "tslc":
            x = jnp.concatenate([self._flat(lifted, p, train) for p in self.pairs], -1)
        else:
            images = [
                jnp.einsum("bi,bj->bij", first(lifted[x]), first(lifted[y]))
                for x, y in self.pairs
            ]
            x = self._encoded(jnp.stack(images, axis=-1), present, train)
        y = xavier_dense(x, self.features, "out", self.dtype)
        return zero_masked(y, jnp.any(jnp.stack(present), axis=0))

    def _flat(self, lifted: Streams, pair: tuple[str, str], train: bool) -> Array:
        """F of one pair."""
        block: Any = TensorConvolution
        name = f"tslc_{'_'.join(pair)}"
        options = (1,), self.last_activation, self.chunk, self.dtype
        return first(
            block(*pair, "image", *options, name=name)(lifted, train=train)["image"]
        )

    def _encoded(self, images: Array, present: list[Array], train: bool) -> Array:
        """What the encoder makes of images (b h w 3), (b d)."""
        make, options = IMAGE_ENCODERS[self.encoder]
        if make is ResNet:
            options = {**options, "axis": self.axis}
        encoder = make(
            **(options | dict(self.encoder_kwargs or {})),
            pooled=True,
            dtype=self.dtype,
            name="image",
        )
        mask = jnp.any(jnp.stack(present), axis=0)[:, None]
        x = first(encoder(images[:, None], mask, train=train))
        return xavier_dense(x, CLASSES, "classes", self.dtype) if make is ResNet else x
