"""Hetero-Fusion-Net: modality attention, adaptive gating, joint representation."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.adaptive_gate import AdaptiveGate
from mmfusion_jax.fusion.modality_attention import ModalityAttention
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.models.common import (
    AudioPooling,
    encode,
    pool_modality,
    prediction_head,
    project_modality,
    weights_by_modality,
)
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Fraction, Heads, OptionalSize, Size
from mmfusion_jax.types import Array, Batch, Outputs, Streams, Tokens


class HeteroFusionNet(nn.Module):
    """Fuses any number of modalities, one vector each.

        f_m = LN(W_m x_m + b_m)
        f_att = modality attention of f, Eq. 1-2
        f_fused = sum_m g_m f_att_m, Eq. 3-4
        z = joint representation of f_fused, Eq. 6-8
        prediction = W_cls z + b_cls                                  (9)

    Parameters: `encoders_<modality>`, `align_<modality>`, `align_<modality>_norm`,
    `head_<modality>`, `attend`, `gate`, `joint`, `head`. The modalities are sorted by
    name.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio, video = jnp.ones((2, 5, 8)), jnp.ones((2, 5, 8))
        >>> mask = jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch(
        ...     {"audio": audio, "video": video}, {"audio": mask, "video": mask}
        ... )
        >>> encoders = {name: mmf.encoders.Precomputed() for name in batch.inputs}
        >>> model = mmf.models.HeteroFusionNet(
        ...     encoders, head_size=3, hidden_dim=8, latent_dim=4
        ... )
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2, 3)

    Attributes:
        encoders: Encoders of any number of modalities; x_m is the mean of the tokens.
        head_size: Number of outputs, k.
        hidden_dim: Width of f, d.
        num_heads: Number of attention heads.
        include_self, residual: Options of the attention, see `ModalityAttention`.
        gate: "sigmoid" or "softmax", see `AdaptiveGate`.
        gate_hidden_dim: Width of the gate's hidden layer; 0: Eq. 3 as printed.
        latent_dim: Width of z.
        detach_unimodal_heads: Stop the gradient of the unimodal heads to f.
        dropout: Dropout rate of the joint representation.
        audio_pooling: Pooling of audio, x_m: "mean", "flatten" or "mean_std", see
            `pool_modality`.
        dtype: Dtype of the computation; None keeps the encoders'.

    Reference:
        Hetero-Fusion-Net, Sec. 3, sizes of Sec. 5.2.
    Deviation:
        MIS and the consistency loss need unimodal predictions, which the paper does not
        define: we use a linear head on f_m. A missing modality is excluded from keys,
        gates and comparisons. If all are missing, z is 0 and the prediction is the
        bias of the head.
    """

    unimodal_logits: ClassVar[bool] = True

    encoders: Mapping[str, nn.Module]
    head_size: int
    hidden_dim: Size = 512
    num_heads: Heads = 8
    include_self: bool = True
    residual: bool = False
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    gate_hidden_dim: OptionalSize = 256
    latent_dim: Size = 256
    detach_unimodal_heads: bool = False
    dropout: Fraction = 0.3
    audio_pooling: AudioPooling = "mean"
    dtype: Any = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Fuses the modalities and predicts.

        Returns:
            Logits (b k), or a score (b) with one output. Auxiliary outputs: f_m (b d),
            with the modality as its name, "logits/<modality>", the unimodal prediction,
            "gate" (b m), "weight/<modality>" (b), g_m / sum g, and "joint", z.

        Raises:
            ConfigError: `encoders` is empty, or an option is unknown.
        """
        if not self.encoders:
            raise ConfigError(
                "C22", "model hetero_fusion_net requires at least one encoder."
            )
        # Sorted: the gate concatenates the tokens, so its kernel depends on their
        # order, which should not depend on the order of the encoders in a config.
        order = tuple(sorted(self.encoders))
        aligned = self._aligned(encode(self.encoders, batch, train=train), train)
        aux = {name: first(aligned[name]) for name in order}
        aux |= {f"logits/{m}": self._unimodal_head(m, aux[m]) for m in order}

        attend = ModalityAttention(
            order,
            self.num_heads,
            self.include_self,
            self.residual,
            self.dtype,
            name="attend",
        )
        gate = AdaptiveGate(
            order, self.gate_hidden_dim, self.gate, dtype=self.dtype, name="gate"
        )
        streams = gate(attend(aligned, train=train), train=train)
        joint = JointRepresentation(
            self.hidden_dim, self.latent_dim, self.dropout, self.dtype, name="joint"
        )
        fused = streams["joint"]
        z = zero_masked(joint(fused.values[:, 0], train=train), fused.present)
        aux |= {"gate": streams["gate"].values[..., 0], "joint": z}
        aux |= weights_by_modality(order, aux["gate"])
        return Outputs(prediction_head(z, self.head_size), aux)

    def _aligned(self, streams: Streams, train: bool) -> dict[str, Tokens]:
        """Projects every modality to a stream of one token."""
        aligned = {}
        for name in sorted(streams):
            present = streams[name].present
            x = pool_modality(streams, name, 0.0, self.audio_pooling, train=train)
            f = project_modality(x, present, self.hidden_dim, name, self.dtype)
            aligned[name] = Tokens(f[:, None], present[:, None])
        return aligned

    def _unimodal_head(self, name: str, f: Array) -> Array:
        """Prediction of one modality."""
        x = jax.lax.stop_gradient(f) if self.detach_unimodal_heads else f
        return prediction_head(x, self.head_size, f"head_{name}")


class JointRepresentation(nn.Module):
    """Three linear layers, the second with a residual connection.

        h_1 = LN(Dropout(ReLU(W_1 f + b_1)))                          (6)
        h_2 = LN(Dropout(ReLU(W_2 h_1 + b_2)) + h_1)                  (7)
        z = W_3 h_2 + b_3                                             (8)

    Parameters: `linear_1`, `norm_1`, `linear_2`, `norm_2`, `linear_3`.

    Attributes:
        hidden_dim: Width of h.
        latent_dim: Width of z.
        dropout: Dropout rate after each ReLU.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        Hetero-Fusion-Net, Sec. 3.4, Eq. 6-8.
    Deviation:
        Sec. 5.2 has two layers of 512 and 256 units; the residual of Eq. 7 requires
        equal widths: 512 for h_1 and h_2, 256 for z.
    """

    hidden_dim: Size = 512
    latent_dim: Size = 256
    dropout: Fraction = 0.3
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        """Maps (b d) to (b latent)."""

        def layer(x: Array, features: int, number: int) -> Array:
            name = f"linear_{number}"
            return torch_dense(x.shape[-1], features, dtype=self.dtype, name=name)(x)

        def hidden(x: Array, number: int) -> Array:
            y = nn.relu(layer(x, self.hidden_dim, number))
            return nn.Dropout(self.dropout, deterministic=not train)(y)

        x = layer_norm(self.dtype, "norm_1")(hidden(x, 1))
        x = layer_norm(self.dtype, "norm_2")(hidden(x, 2) + x)
        return layer(x, self.latent_dim, 3)
