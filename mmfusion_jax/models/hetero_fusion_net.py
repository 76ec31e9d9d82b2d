"""Hetero-Fusion-Net: modalities that attend to each other, a gate, a joint vector."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.adaptive_gate import AdaptiveGate
from mmfusion_jax.fusion.modality_attention import ModalityAttention
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import first
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.models.common import (
    encode,
    pool_modality,
    prediction_head,
    project_modality,
    weights_by_modality,
)
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Batch, Outputs, Streams, Tokens


class HeteroFusionNet(nn.Module):
    """Any number of modalities, each one vector.

        f_m = LN(W_m x_m + b_m)
        f_att = modality attention of f, Eq. 1-2
        f_fused = sum_m g_m f_att_m, Eq. 3-4
        z = joint representation of f_fused, Eq. 6-8
        prediction = W_cls z + b_cls                                  (9)

    Parameters: `encoders_<modality>`, `align_<modality>`, `align_<modality>_norm`,
    `head_<modality>`, `weighted_sum`, `gate`, `joint`, `head`. The order of modalities
    is that of their names.

    Attributes:
        encoders: of any number of modalities; x_m is the mean of the tokens.
        head_size: k.
        hidden_dim: d of f.
        num_heads: of the attention.
        include_self, residual: of the attention, see `ModalityAttention`.
        gate: "sigmoid" or "softmax", see `AdaptiveGate`.
        gate_hidden_dim: width of its hidden layer; 0: Eq. 3 as printed.
        latent_dim: width of z.
        detach_unimodal_heads: the heads of single modalities teach f nothing.
        dropout: of the joint representation.
        audio_pooling: x_m of audio: "mean", "flat" or "moments", see `vector`.
        dtype: type of the computation; None keeps that of the encoders.

    Reference:
        Hetero-Fusion-Net, Sec. 3, sizes of Sec. 5.2.
    Deviation:
        MIS and the consistency loss need a prediction of every modality, and the
        paper does not say where it comes from: a linear head on f_m. What a missing
        modality says is neither a key nor gated nor compared. Where all are missing,
        z is 0 and the head says its bias.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    hidden_dim: int = 512
    num_heads: int = 8
    include_self: bool = True
    residual: bool = False
    gate: Literal["sigmoid", "softmax"] = "sigmoid"
    gate_hidden_dim: int = 256
    latent_dim: int = 256
    detach_unimodal_heads: bool = False
    dropout: float = 0.3
    audio_pooling: str = "mean"
    dtype: Any = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Predicts.

        Returns:
            Logits (b k), or a score (b) with one output; aux: f_m (b d) by its
            modality's name, "logits/<modality>", what it says alone, "gate" (b m),
            its shares "share/<modality>" (b), g_m / sum g, and "joint", z.

        Raises:
            ConfigError: no encoder, or an option is unknown.
        """
        if not self.encoders:
            raise ConfigError("C22", "HeteroFusionNet has no encoder.")
        order = tuple(sorted(self.encoders))
        aligned = self._aligned(encode(self.encoders, batch, train=train), train)
        aux = {name: first(aligned[name]) for name in order}
        aux |= {f"logits/{m}": self._alone(m, aux[m]) for m in order}

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
        """The vector of every modality as a stream of one token."""
        found = {}
        for name in sorted(streams):
            present = streams[name].present
            x = pool_modality(streams, name, 0.0, self.audio_pooling, train=train)
            f = project_modality(x, present, self.hidden_dim, name, self.dtype)
            found[name] = Tokens(f[:, None], present[:, None])
        return found

    def _alone(self, name: str, f: Array) -> Array:
        """What one modality says."""
        x = jax.lax.stop_gradient(f) if self.detach_unimodal_heads else f
        return prediction_head(x, self.head_size, f"head_{name}")


class JointRepresentation(nn.Module):
    """Three linear layers, the second with a residual.

        h_1 = LN(Dropout(ReLU(W_1 f + b_1)))                          (6)
        h_2 = LN(Dropout(ReLU(W_2 h_1 + b_2)) + h_1)                  (7)
        z = W_3 h_2 + b_3                                             (8)

    Parameters: `linear_1`, `norm_1`, `linear_2`, `norm_2`, `linear_3`.

    Attributes:
        hidden_dim: of h.
        latent_dim: of z.
        dropout: after each ReLU.
        dtype: type of the computation; None keeps that of the input.

    Reference:
        Hetero-Fusion-Net, Sec. 3.4.
    Deviation:
        Sec. 5.2 has two layers of 512 and 256 units; the residual of Eq. 7 needs
        equal widths: 512 is that of h_1 and h_2, 256 that of z.
    """

    hidden_dim: int = 512
    latent_dim: int = 256
    dropout: float = 0.3
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
