"""MEA: modality-exclusive and modality-agnostic representations, and their fusion."""

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
from mmfusion_jax.layers.linear import zero_bias_dense
from mmfusion_jax.layers.mlp import MLP
from mmfusion_jax.layers.modality_discriminator import ModalityDiscriminator
from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.losses.adversarial import importance_weight
from mmfusion_jax.models.common import (
    check_choices,
    check_widths,
    encode,
    ordered,
    prediction_head,
)
from mmfusion_jax.ops.gradient_reversal import ramp
from mmfusion_jax.ops.masking import last_valid, masked_mean, zero_masked
from mmfusion_jax.ops.parameter_free_layer_norm import layer_normalize
from mmfusion_jax.option_types import (
    AnyFloat,
    Depth,
    Fraction,
    ModalityOrder,
    Size,
    Weight,
)
from mmfusion_jax.types import Array, Batch, Outputs, Streams

CHOICES = {
    "fusion": ("graph", "addition", "multiplication", "concat"),
    "pool": ("mean", "last"),
    "head_type": ("mlp", "residual_mlp"),
    "standardize": ("affine", "layer_norm", "off"),
}


class MEA(nn.Module):
    """An exclusive branch within and an agnostic branch across modalities (Fig. 1).

        h^e_m = S_m(PSA(Z)_m)                                         (11)
        h^a_m = A(HCA(Z)_m)                                           (12)
        prediction = head([h^e_fin, h^a_fin])

    Parameters: `encoders_<modality>`, `self_attention` and `exclusive_<modality>`,
    `cross_attention` and `shared`, `graph_exclusive`, `graph_agnostic`,
    `discriminators`, `hidden`, `head`, and `back` with head_type="residual_mlp".

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
        >>> model = mmf.models.MEA(
        ...     encoders,
        ...     head_size=3,
        ...     hidden_dim=8,
        ...     num_heads=2,
        ...     psa_layers=1,
        ...     hca_layers=1,
        ... )
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape
        (2, 3)

    Attributes:
        encoders: Encoders of any number of modalities, with the same token width d.
        head_size: Number of outputs.
        modality_order: Names of the modalities; the index of a modality is its class
            in the discriminators. () sorts them by name.
        hidden_dim: Width of h, d_h.
        num_heads: Number of heads of all attention layers, K; divides d.
        psa_layers: Number of predictive self-attention (PSA) layers, M; 0 is "w/o PSA
            Module", Table V.
        psa: Form of Eq. 2, "literal" or "logit", see `predict_attention`.
        mu: Weight of the prediction in Eq. 2; 0 is "w/o Prediction Chain".
        wal: Weighted attention layer (WAL): "token", "dense", or "off", "w/o Weighted
            Attention Layer".
        hca_layers: Number of hierarchical cross-modal attention (HCA) layers, N; 0 is
            "w/o HCA Module".
        mixed, coarse, fine: False is "w/o MRU" of that granularity.
        hca_sources: Sources of later layers: "updated" or "preliminary" modalities.
        exclusive, agnostic: False removes that branch and everything that reads it.
        pool: Pooling of tokens to a vector: "mean" or "last".
        fusion: "graph"; "concat" is "w/o Decoupled Graph Fusion Mechanism"; "addition"
            is that of Table V; "multiplication" is the elementwise product of the
            modalities, see Deviation.
        self_loops: Add self-loops to the graph.
        adversarial: Build the discriminators.
        omega: "detached", "joint" or "one", as in the loss term of the same option;
            see `ModalityDiscriminator`.
        grl_lambda: Strength of the gradient reversal layer before D_m, lambda.
        grl_warmup: Increase it from 0 during training.
        head_type: "mlp", or "residual_mlp", which adds the fused vector to the hidden
            layer.
        scale, out_proj, ffn_mult: Options of all attention layers, see
            `ReinforcementUnit`.
        dropout: Dropout rate of attention outputs and hidden layers.
        remat: Recompute predicted maps in the backward pass, to save memory; other maps
            are always recomputed.
        dtype: Dtype of the computation; None keeps the encoders'.
        standardize: What the head reads of the fused vector x of each branch: "affine",
            4 (x - M / 2) after the graph, with M present modalities; "layer_norm",
            layer normalization without parameters; "off", x, Eq. 19 as printed.
        output_bias_init: Constant added to a score, about which training starts.

    Reference:
        MEA, Sec. III, Table V.
    Deviation:
        A missing modality is skipped everywhere, and weights are renormalized over the
        others. Sec. III-E.1 does not define the pooling of a sequence to a vector: we
        use the mean of its tokens, since A is shared by modalities of different
        lengths. The sigmoids of Eq. 19 sum to nearly M / 2 in every example: a head
        that reads the sums as printed stays at chance level. Sec. III-F only has "fully
        connected layers" for the head: ours reads 4 (x - M / 2), which the first of
        them could compute itself. The paper has no initialization: ours is Xavier with
        biases of 0. With PyTorch's defaults, whose biases are larger than many of the
        products, less than .0001 (exclusive) and .001 (agnostic) of the energy of the
        sums differs between examples of the digits before training; here .001 and .03.
        Table V's "w/ Feature Multiplication" cites the fusion of Yang et al. 2022,
        ECCV, which the paper does not repeat: ours is a plain product.
    """

    encoders: Mapping[str, nn.Module]
    head_size: int
    modality_order: ModalityOrder = ()
    hidden_dim: Size = 64
    num_heads: Size = 8
    psa_layers: Depth = 3
    psa: Literal["literal", "logit"] = "literal"
    mu: Fraction = 0.25
    wal: Literal["token", "dense", "off"] = "token"
    hca_layers: Depth = 2
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
    grl_lambda: Weight = 1.0
    grl_warmup: bool = False
    head_type: Literal["mlp", "residual_mlp"] = "mlp"
    scale: Literal["head", "width"] = "head"
    out_proj: bool = False
    ffn_mult: Size = 4
    dropout: Fraction = 0.1
    remat: bool = True
    dtype: Any = None
    standardize: Literal["affine", "layer_norm", "off"] = "affine"
    output_bias_init: AnyFloat = 0.0

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Fuses the modalities and predicts.

        Returns:
            Logits (b k), or a score (b) with one output. Auxiliary outputs, for every
            modality m: "exclusive/<m>" and "agnostic/<m>" (b d_h), and the logits (b M)
            "discriminator/exclusive/<m>", "discriminator/agnostic/<m>",
            "importance/<m>", if they are built; in training the mean importance weight
            of the examples with that modality, "log/omega/<m>" (b), the same number for
            all.

        Raises:
            ConfigError: An option is unknown, `modality_order` does not match the
                encoders, or every branch is disabled.
        """
        self._check()
        order = ordered(self.modality_order, self.encoders)
        streams = encode(self.encoders, batch, train=train)
        check_widths(streams)
        present = jnp.stack([streams[m].present for m in order], axis=1)  # b m
        exclusive = self._exclusive(order, streams, train) if self.exclusive else {}
        agnostic = self._agnostic(order, streams, train) if self.agnostic else {}
        aux = {f"exclusive/{m}": h for m, h in exclusive.items()}
        aux |= {f"agnostic/{m}": h for m, h in agnostic.items()}
        if self.adversarial:
            aux |= self._discriminate(
                len(order), exclusive, agnostic, batch.train_fraction
            )
        if train:
            aux |= mean_importance(order, aux, present)
        joint = [
            self._fuse(branch, h, present)
            for branch, h in (("exclusive", exclusive), ("agnostic", agnostic))
            if h
        ]
        joint = [self._standardize(x, present) for x in joint]
        return Outputs(self._head(jnp.concatenate(joint, axis=-1)), aux)

    def _exclusive(
        self, order: tuple[str, ...], streams: Streams, train: bool
    ) -> dict[str, Array]:
        """h^e of every modality, (b d_h) each."""
        unit = functools.partial(self._unit(), mu=self.mu, form=self.psa)
        attend = PredictiveSelfAttention(
            order, unit, self.psa_layers, self.wal, self.dtype, name="self_attention"
        )
        pooled = self._pooled(order, attend(streams, train=train))
        return {m: self._mlp(f"exclusive_{m}")(pooled[m], train=train) for m in order}

    def _agnostic(
        self, order: tuple[str, ...], streams: Streams, train: bool
    ) -> dict[str, Array]:
        """h^a of every modality, (b d_h) each."""
        attend = HierarchicalAttention(
            order,
            self._unit(),
            self.hca_layers,
            self.mixed,
            self.coarse,
            self.fine,
            self.hca_sources,
            name="cross_attention",
        )
        pooled = self._pooled(order, attend(streams, train=train))
        # One module, called for every modality: A of Eq. 12 has shared weights.
        shared = self._mlp("shared")
        return {m: shared(pooled[m], train=train) for m in order}

    def _unit(self) -> functools.partial[ReinforcementUnit]:
        """Returns a constructor of attention layers."""
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

    def _mlp(self, name: str) -> MLP:
        return MLP(self.hidden_dim, self.hidden_dim, dtype=self.dtype, name=name)

    def _pooled(self, order: tuple[str, ...], streams: Streams) -> dict[str, Array]:
        """Pools each modality to one vector (b d); 0 where it is missing."""
        pool = last_valid if self.pool == "last" else mean
        return {m: pool(streams[m]) for m in order}

    def _fuse(self, branch: str, h: Mapping[str, Array], present: Array) -> Array:
        """Computes h_fin of a branch, (b d_h), or the concatenation of all h."""
        nodes = jnp.stack(list(h.values()), axis=1)  # b m d
        if self.fusion == "graph":
            graph = GraphFusion(self.self_loops, self.dtype, name=f"graph_{branch}")
            return graph(nodes, present)
        if self.fusion == "multiplication":
            # 1 for a missing modality: 0 would erase the others.
            return jnp.prod(jnp.where(present[..., None], nodes, 1), axis=1)
        nodes = zero_masked(nodes, present)
        if self.fusion == "addition":
            return jnp.sum(nodes, axis=1)
        return nodes.reshape(len(nodes), -1)

    def _standardize(self, x: Array, present: Array) -> Array:
        """Makes the input of the head differ between examples, see Deviation."""
        if self.standardize == "layer_norm":
            return layer_normalize(x)
        if self.standardize == "affine" and self.fusion == "graph":
            # The derivative of a sigmoid at 0 is 1/4: this is about the sum of the
            # arguments of the sigmoids.
            count = jnp.sum(present, axis=1, keepdims=True, dtype=jnp.int32)
            return 4 * x - 2 * count.astype(x.dtype)
        return x

    def _discriminate(
        self,
        classes: int,
        exclusive: Mapping[str, Array],
        agnostic: Mapping[str, Array],
        train_fraction: Array | None,
    ) -> dict[str, Array]:
        """Logits of the discriminators, by the names of the auxiliary outputs."""
        # At full strength from the start, the adversaries kept one of three seeds near
        # chance on the digits: accuracy .23 after twelve epochs, with the ramp .36
        # after four.
        warmup = ramp(train_fraction) if self.grl_warmup else 1.0
        discriminator = ModalityDiscriminator(
            self.omega, self.dtype, name="discriminators"
        )
        return discriminator(exclusive, agnostic, classes, self.grl_lambda * warmup)

    def _head(self, x: Array) -> Array:
        residual = self.head_type == "residual_mlp"
        size = x.shape[-1] if residual else self.hidden_dim
        hidden = zero_bias_dense(size, dtype=self.dtype, name="hidden")(x)
        hidden = nn.gelu(hidden, approximate=False)
        if residual:
            back = zero_bias_dense(size, dtype=self.dtype, name="back")
            hidden = x + back(hidden)
        return prediction_head(hidden, self.head_size, bias_init=self.output_bias_init)

    def _check(self) -> None:
        check_choices(self, CHOICES)
        if not (self.exclusive or self.agnostic):
            raise ConfigError(
                "C10",
                "config.model.exclusive and config.model.agnostic must not both be "
                "False.",
            )


def mean_importance(
    order: tuple[str, ...], aux: Mapping[str, Array], present: Array
) -> dict[str, Array]:
    """Averages omega of Eq. 15 over the examples with each modality, to be logged.

    Args:
        order: Names of the modalities; the index is the class in D_i.
        aux: Auxiliary outputs; with omega="one" none is "importance/<m>".
        present: (b m) bool.

    Returns:
        "log/omega/<m>" (b), the same number for all examples.
    """
    means = {}
    for index, name in enumerate(order):
        if (logits := aux.get(f"importance/{name}")) is not None:
            omega = importance_weight(logits, index)
            mean_omega = masked_mean(omega, present[:, index], axis=0)
            means[f"log/omega/{name}"] = jnp.full(len(present), mean_omega)
    return means
