"""Blocks of the papers with another interface, as maps from Streams to Streams.

The models of the papers call `GraphFusion`, `ModalityWeighting`, `ReinforcementUnit`
and the layers that are made of it directly; a config names these classes instead.
"""

import functools
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.fusion.graph_fusion import GraphFusion
from mmfusion_jax.fusion.hierarchical_attention import (
    HierarchicalAttention,
    any_present,
    select,
)
from mmfusion_jax.fusion.modality_weighting import ModalityWeighting
from mmfusion_jax.fusion.predictive_self_attention import PredictiveSelfAttention
from mmfusion_jax.fusion.reinforcement_unit import ReinforcementUnit
from mmfusion_jax.fusion.stack_modalities import same_width
from mmfusion_jax.layers.pooling import mean
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.option_types import Depth, Fraction, Modalities, Name, Size
from mmfusion_jax.types import Streams, Tokens


class Identity(nn.Module):
    """Returns the streams unchanged: the modalities meet in the head only.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> mask = jnp.ones((2, 5), bool)
        >>> streams = {"audio": mmf.Tokens(jnp.ones((2, 5, 8)), mask)}
        >>> block = mmf.fusion.Identity()
        >>> fused, variables = block.init_with_output(
        ...     jax.random.key(0), streams, train=False
        ... )
        >>> fused["audio"].values.shape, variables
        ((2, 5, 8), {})
    """

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Returns `streams`."""
        del train
        return streams


class StackedModalities(nn.Module):
    """Concatenates the tokens of all modalities to one sequence.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> video = mmf.Tokens(jnp.ones((2, 3, 8)), jnp.ones((2, 3), bool))
        >>> block = mmf.fusion.StackedModalities(("audio", "video"))
        >>> fused, variables = block.init_with_output(
        ...     jax.random.key(0), {"audio": audio, "video": video}, train=False
        ... )
        >>> fused["joint"].values.shape
        (2, 8, 8)

    Attributes:
        modality_order: Names of the streams, with the same token width d.
        target: Name of the added stream.
    """

    modality_order: Modalities
    target: Name = "joint"

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Adds the stream `target`, (b n d), n the tokens of all modalities."""
        del train
        parts = same_width(streams, self.modality_order)
        mask = jnp.concatenate([part.mask for part in parts], axis=1)
        values = jnp.concatenate([part.values for part in parts], axis=1)
        return {**streams, self.target: Tokens(zero_masked(values, mask), mask)}


class ModalityGraph(nn.Module):
    """`GraphFusion` of the mean token of every modality.

    Parameters: `graph`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.ModalityGraph(("audio", "video"))
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["joint"].values.shape
        (2, 1, 8)

    Attributes:
        modality_order: Names of the streams, with the same token width d.
        self_loops: See `GraphFusion`.
        target: Name of the added stream.
        dtype: Dtype of the computation except the softmax; None keeps the input's.

    Reference:
        MEA, Sec. III-F, Eq. 17-19.
    """

    modality_order: Modalities
    self_loops: bool = False
    target: Name = "joint"
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Adds the stream `target`, (b 1 d), masked if no modality is present."""
        del train
        parts = same_width(streams, self.modality_order)
        nodes = jnp.stack([mean(part) for part in parts], axis=1)
        present = jnp.stack([part.present for part in parts], axis=1)
        fused = GraphFusion(self.self_loops, self.dtype, name="graph")(nodes, present)
        some = jnp.any(present, axis=1, keepdims=True)
        return {**streams, self.target: Tokens(fused[:, None], some)}


class WeightedModalities(nn.Module):
    """Multiplies every modality by its weight, see `ModalityWeighting`.

    Parameters: `weighting`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio = mmf.Tokens(jnp.ones((2, 5, 8)), jnp.ones((2, 5), bool))
        >>> video = audio.replace(mask=jnp.array([[True] * 5, [False] * 5]))
        >>> block = mmf.fusion.WeightedModalities(("audio", "video"), hidden_dim=4)
        >>> fused, variables = block.init_with_output(
        ...     jax.random.key(0), {"audio": audio, "video": video}, train=False
        ... )
        >>> fused["weights"].values[..., 0].round(2).tolist()
        [[0.5, 0.5], [1.0, 0.0]]

    Attributes:
        modality_order: Names of the streams, with the same token width d.
        hidden_dim: Width of the hidden layer.
        dtype: Dtype of the computation; None keeps the input's.

    Reference:
        OF-CMAER-CAT, Sec. 3, Eq. 8-10.
    """

    modality_weights: ClassVar[str] = "weights"

    modality_order: Modalities
    hidden_dim: Size = 64
    dtype: Any = None

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Scales the streams in `modality_order`, and adds "weights", (b m 1)."""
        del train
        parts = same_width(streams, self.modality_order)
        weighting = ModalityWeighting(self.hidden_dim, self.dtype, name="weighting")
        weights = weighting(parts)
        scaled = {}
        for i, (m, part) in enumerate(zip(self.modality_order, parts, strict=True)):
            values = zero_masked(part.values, part.mask)
            weight = weights[:, i, None, None].astype(values.dtype)
            scaled[m] = part.replace(values=weight * values)
        present = jnp.stack([part.present for part in parts], axis=1)
        return {**streams, **scaled, "weights": Tokens(weights[..., None], present)}


class _WithUnits(nn.Module):
    """A block made of `ReinforcementUnit`s, whose options it has.

    Attributes:
        modality_order: Names of the streams, with the same token width d.
        num_heads: Number of attention heads; divides d.
        scale, out_proj, ffn_mult, dropout, remat: See `ReinforcementUnit`.
        dtype: Dtype of the computation except the softmax; None keeps the input's.
    """

    modality_order: Modalities
    num_heads: Size = 8
    scale: Literal["head", "width"] = "head"
    out_proj: bool = False
    ffn_mult: Size = 4
    dropout: Fraction = 0.1
    remat: bool = True
    dtype: Any = None

    def _unit(self, **options: Any) -> functools.partial[ReinforcementUnit]:
        """Returns a constructor of units."""
        return functools.partial(
            ReinforcementUnit,
            num_heads=self.num_heads,
            scale=self.scale,
            out_proj=self.out_proj,
            ffn_mult=self.ffn_mult,
            dropout=self.dropout,
            remat=self.remat,
            dtype=self.dtype,
            **options,
        )


class ModalityReinforcement(_WithUnits):
    """One `ReinforcementUnit` for each modality, which attends to the others.

    An example without the others keeps its tokens. A single modality attends to itself.

    Parameters: `units`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.ModalityReinforcement(("audio", "video"), num_heads=2)
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["audio"].values.shape
        (2, 5, 8)

    Attributes:
        modality_order: Names of the streams, with the same token width d.
        num_heads, scale, out_proj, ffn_mult, dropout, remat, dtype: See
            `ReinforcementUnit`.

    Reference:
        MEA, Sec. III-D, Eq. 7-9.
    """

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Updates the streams in `modality_order`, (b n d); others are unchanged."""
        parts = same_width(streams, self.modality_order)
        indices = range(len(parts))
        others = tuple(tuple(s for s in indices if s != t) or (t,) for t in indices)
        units = self._unit()(sources=others, name="units")
        updated, _ = units(parts, parts, train=train)
        kept = [
            select(any_present(parts, others[t]), updated[t], parts[t]) for t in indices
        ]
        return {**streams, **dict(zip(self.modality_order, kept, strict=True))}


class PredictiveFusion(_WithUnits):
    """`PredictiveSelfAttention` with units that predict attention maps.

    Parameters: `attention`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.PredictiveFusion(
        ...     ("audio", "video"), num_heads=2, num_layers=1
        ... )
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["audio"].values.shape
        (2, 5, 8)

    Attributes:
        modality_order: Names of the streams, with the same token width d.
        num_heads, scale, out_proj, ffn_mult, dropout, remat, dtype: See
            `ReinforcementUnit`.
        num_layers: Number of layers.
        mu, form: See `ReinforcementUnit`.
        modality_weighting: See `PredictiveSelfAttention`.

    Reference:
        MEA, Sec. III-C, Eq. 2-6.
    """

    num_layers: Depth = 3
    mu: Fraction = 0.25
    form: Literal["literal", "logit"] = "literal"
    modality_weighting: Literal["token", "dense", "off"] = "token"

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Updates the streams in `modality_order`, (b n d); others are unchanged."""
        same_width(streams, self.modality_order)
        attend = PredictiveSelfAttention(
            self.modality_order,
            self._unit(mu=self.mu, form=self.form),
            self.num_layers,
            self.modality_weighting,
            self.dtype,
            name="attention",
        )
        return attend(streams, train=train)


class HierarchicalFusion(_WithUnits):
    """`HierarchicalAttention` with the options of its units.

    Parameters: `attention`.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.HierarchicalFusion(
        ...     ("audio", "video"), num_heads=2, num_layers=1
        ... )
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["audio"].values.shape
        (2, 5, 8)

    Attributes:
        modality_order: Names of the streams, with the same token width d.
        num_heads, scale, out_proj, ffn_mult, dropout, remat, dtype: See
            `ReinforcementUnit`.
        num_layers, mixed, coarse, fine, sources: See `HierarchicalAttention`.

    Reference:
        MEA, Sec. III-D, Eq. 10.
    """

    num_layers: Depth = 2
    mixed: bool = True
    coarse: bool = True
    fine: bool = True
    sources: Literal["updated", "preliminary"] = "updated"

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Updates the streams in `modality_order`, (b n d); others are unchanged."""
        same_width(streams, self.modality_order)
        attend = HierarchicalAttention(
            self.modality_order,
            self._unit(),
            self.num_layers,
            self.mixed,
            self.coarse,
            self.fine,
            self.sources,
            name="attention",
        )
        return attend(streams, train=train)
