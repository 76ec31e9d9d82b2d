"""MEA: what is a modality's own and what all share, kept apart, then fused."""

import functools
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.fusion.graph_fusion import GraphFusion
from mmfusion_jax.fusion.hierarchical_attention import HierarchicalAttention
from mmfusion_jax.fusion.predictive_self_attention import PredictiveSelfAttention
from mmfusion_jax.fusion.reinforcement_unit import ReinforcementUnit
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.mlp import MLP
from mmfusion_jax.layers.modality_discriminator import ModalityDiscriminator
from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.models.common import (
    check_choices,
    check_widths,
    encode,
    ordered,
    prediction_head,
)
from mmfusion_jax.ops.gradient_reversal import ramp
from mmfusion_jax.ops.masking import last_valid, zero_masked
from mmfusion_jax.ops.parameter_free_layer_norm import layer_normalize
from mmfusion_jax.types import Array, Batch, Outputs, Streams

KNOWN = {
    "fusion": ("graph", "addition", "multiplication", "concat"),
    "pool": ("mean", "last"),
    "head_form": ("perceptron", "residual"),
}


class MEA(nn.Module):
    """Two branches, one for each modality alone and one across them (Fig. 1).

        h^e_m = S_m(PSA(Z)_m)                                         (11)
        h^a_m = A(HCA(Z)_m)                                           (12)
        prediction = head([h^e_fin, h^a_fin])

    Parameters: `encoders_<modality>`, `self_attention` and `exclusive_<modality>`,
    `cross_attention` and `shared`, `graph_exclusive`, `graph_agnostic`,
    `discriminators`, `hidden`, `head`, and `back` with a residual head.

    Attributes:
        encoders: of any number of modalities; all make tokens of one width d.
        head_size: number of outputs.
        modality_order: the modalities; a modality's place is its class to the
            discriminators. () sorts their names.
        hidden_dim: of h, d_h.
        num_heads: of all attention, K; divides d.
        psa_layers: M; 0 is "w/o PSA Module", Table V.
        psa: form of Eq. 2, "literal" or "logit", see `PredictiveMap`.
        mu: of Eq. 2; 0 is "w/o Prediction Chain".
        wal: "token", "dense", or "off", "w/o Weighted Attention Layer".
        hca_layers: N; 0 is "w/o HCA Module".
        mixed, coarse, fine: False is "w/o MRU" of that grain.
        hca_sources: what later layers look at: "updated" or "preliminary" modalities.
        exclusive, agnostic: False leaves out that branch and all that reads it.
        pool: tokens to a vector: "mean" or "last".
        fusion: "graph"; "concat" is "w/o Decoupled Graph Fusion Mechanism"; "addition"
            and "multiplication" are those of Table V.
        self_loops: a modality is also its own neighbor in the graph.
        adversarial: build the discriminators.
        omega: "detached", "joint" or "one", as in the loss term of the same option;
            see `ModalityDiscriminator`.
        grl_lambda: strength of the reversed gradient, lambda of D_m.
        grl_warmup: let it grow from 0 during the training.
        head_type: "residual" adds the fused vector to the hidden layer's.
        scale, out_proj, ffn_mult: of all attention, see `ReinforcementUnit`.
        dropout: on attention weights and hidden layers of the feed-forward networks.
        remat: compute predicted maps again on the way back, to save memory; others
            always are.
        dtype: type of the computation; None keeps that of the encoders.
        standardize: normalize the fused vector of each branch, without parameters,
            before the head; False hands it over as Eq. 19 makes it.
        output_bias_init: what a score is before anything is learned, about.

    Reference:
        MEA, Sec. III, Table V.
    Deviation:
        A missing modality is skipped everywhere, and the others share what it had.
        Sec. III-E.2 does not say how a sequence becomes a vector: the mean of its
        tokens, since A is shared by modalities of different lengths.
        The sigmoids of Eq. 19 add up to nearly M / 2 in every example: at first its
        entries differ between examples by .002 (exclusive) to .02 (agnostic) of their
        size, and a head that is given them so stays at chance. Sec. III-F says no more
        of the head than "fully connected layers": ours normalizes them first.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    modality_order: tuple[str, ...] = ()
    hidden_dim: int = 64
    num_heads: int = 8
    psa_layers: int = 3
    psa: Literal["literal", "logit"] = "literal"
    mu: float = 0.25
    wal: Literal["token", "dense", "off"] = "token"
    hca_layers: int = 2
    mixed: bool = True
    coarse: bool = True
    fine: bool = True
    hca_sources: Literal["updated", "preliminary"] = "updated"
    exclusive: bool = True
    agnostic: bool = True
    pool: Literal["mean", "last"] = "mean"
    fusion: Literal["graph", "addition", "multiplication", "concat"] = "graph"
    self_loops: bool = False
    adversarial: bool = True
    omega: Literal["detached", "joint", "one"] = "detached"
    grl_lambda: float = 1.0
    grl_warmup: bool = False
    head_type: Literal["perceptron", "residual"] = "perceptron"
    scale: Literal["head", "width"] = "head"
    out_proj: bool = False
    ffn_mult: int = 4
    dropout: float = 0.1
    remat: bool = True
    dtype: Any = None
    standardize: bool = True
    output_bias_init: float = 0.0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Predicts.

        Returns:
            Logits (b k), or a score (b) with one output; aux, for every modality
            m: "exclusive/<m>" and "agnostic/<m>" (b d_h), and the logits (b M)
            "discriminator/exclusive/<m>", "discriminator/agnostic/<m>",
            "importance/<m>", as far as they are built.

        Raises:
            ConfigError: an option is unknown, `modality_order` is not that of the
                encoders, or there is no branch.
        """
        self._check()
        order = ordered(self.modality_order, self.encoders)
        streams = encode(self.encoders, batch, train=train)
        check_widths(streams)
        present = jnp.stack([streams[m].present for m in order], axis=1)  # b m
        own = self._exclusive(order, streams, train) if self.exclusive else {}
        common = self._agnostic(order, streams, train) if self.agnostic else {}
        aux = {f"exclusive/{m}": h for m, h in own.items()}
        aux |= {f"agnostic/{m}": h for m, h in common.items()}
        if self.adversarial:
            aux |= self._discriminated(len(order), own, common, batch.train_fraction)
        joint = [
            self._fuse(branch, h, present)
            for branch, h in (("exclusive", own), ("agnostic", common))
            if h
        ]
        if self.standardize:
            joint = [layer_normalize(x) for x in joint]
        return Outputs(self._head(jnp.concatenate(joint, axis=-1)), aux)

    def _exclusive(
        self, order: tuple[str, ...], streams: Streams, train: bool
    ) -> dict[str, Array]:
        """h^e of every modality, (b d_h) each."""
        unit = functools.partial(self._unit(), mu=self.mu, form=self.psa)
        refine = PredictiveSelfAttention(
            order, unit, self.psa_layers, self.wal, self.dtype, name="self_attention"
        )
        pooled = self._pooled(order, refine(streams, train=train))
        return {
            m: self._perceptron(f"exclusive_{m}")(pooled[m], train=train) for m in order
        }

    def _agnostic(
        self, order: tuple[str, ...], streams: Streams, train: bool
    ) -> dict[str, Array]:
        """h^a of every modality, (b d_h) each."""
        reinforce = HierarchicalAttention(
            order,
            self._unit(),
            self.hca_layers,
            self.mixed,
            self.coarse,
            self.fine,
            self.hca_sources,
            name="cross_attention",
        )
        pooled = self._pooled(order, reinforce(streams, train=train))
        shared = self._perceptron("shared")
        return {m: shared(pooled[m], train=train) for m in order}

    def _unit(self) -> functools.partial[ReinforcementUnit]:
        """An attention layer but for its name."""
        return functools.partial(
            ReinforcementUnit,
            num_heads=self.num_heads,
            scale=self.scale,
            out_proj=self.out_proj,
            ffn_mult=self.ffn_mult,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
        )

    def _perceptron(self, name: str) -> MLP:
        return MLP(self.hidden_dim, self.hidden_dim, dtype=self.dtype, name=name)

    def _pooled(self, order: tuple[str, ...], streams: Streams) -> dict[str, Array]:
        """One vector (b d) per modality; 0 where it is missing."""
        pool = last_valid if self.pool == "last" else mean
        return {m: pool(streams[m]) for m in order}

    def _fuse(self, branch: str, h: Mapping[str, Array], present: Array) -> Array:
        """h_fin of a branch, (b d_h), or all h side by side."""
        nodes = jnp.stack(list(h.values()), axis=1)  # b m d
        if self.fusion == "graph":
            graph = GraphFusion(self.self_loops, self.dtype, name=f"graph_{branch}")
            return graph(nodes, present)
        if self.fusion == "multiplication":
            return jnp.prod(jnp.where(present[..., None], nodes, 1), axis=1)
        nodes = zero_masked(nodes, present)
        if self.fusion == "addition":
            return jnp.sum(nodes, axis=1)
        return nodes.reshape(len(nodes), -1)

    def _discriminated(
        self,
        classes: int,
        own: Mapping[str, Array],
        common: Mapping[str, Array],
        progress: Array | None,
    ) -> dict[str, Array]:
        """What the discriminators say, by the names of the aux."""
        strength = self.grl_lambda * (ramp(progress) if self.grl_warmup else 1.0)
        judges = ModalityDiscriminator(self.omega, self.dtype, name="discriminators")
        return judges(own, common, classes, strength)

    def _head(self, x: Array) -> Array:
        residual = self.head_type == "residual"
        size = x.shape[-1] if residual else self.hidden_dim
        hidden = torch_dense(x.shape[-1], size, dtype=self.dtype, name="hidden")(x)
        hidden = nn.gelu(hidden, approximate=False)
        if residual:
            back = torch_dense(size, size, dtype=self.dtype, name="back")
            hidden = x + back(hidden)
        return prediction_head(hidden, self.head_size, bias_init=self.output_bias_init)

    def _check(self) -> None:
        check_choices(self, KNOWN)
        if not (self.exclusive or self.agnostic):
            raise ConfigError(
                "C10", "exclusive=False and agnostic=False leave MEA nothing to see."
            )
