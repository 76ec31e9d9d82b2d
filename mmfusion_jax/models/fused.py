"""A model whose fusion block, pooling and encoders are all chosen by the config."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, join_names, shown, suggest, type_name
from mmfusion_jax.fusion.adapters import Identity
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import flatten, mean
from mmfusion_jax.models.common import (
    check_choices,
    check_tokens,
    encode,
    prediction_head,
    weights_by_modality,
)
from mmfusion_jax.ops.masking import (
    last_valid,
    masked_mean,
    masked_softmax,
    zero_masked,
)
from mmfusion_jax.option_types import Fraction, Name, OptionalSize
from mmfusion_jax.types import Array, Batch, Outputs, Streams, Tokens

POOLINGS = {"mean": mean, "last": last_valid, "flatten": flatten}
CHOICES = {
    "pooling": (*POOLINGS, "attention"),
    "combination": ("concat", "mean"),
}
JOINT = "joint"
"""Name of the stream in which a block stores the fused tokens of all modalities."""


class Fused(nn.Module):
    """Encoders, a projection to a common width, any fusion block, pooling and a head.

        Z_m = W_m E_m(x_m) + b_m
        Y = fusion(Z)
        prediction = head([pool(Y_1), .., pool(Y_M)])

    Parameters: `encoders_<modality>`, `project_<modality>`, `fusion`, `head`;
    `pool_<stream>` with pooling="attention".

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> audio, video = jnp.ones((2, 5, 8)), jnp.ones((2, 4, 6))
        >>> masks = {"audio": jnp.ones((2, 5), bool), "video": jnp.ones((2, 4), bool)}
        >>> batch = mmf.Batch({"audio": audio, "video": video}, masks)
        >>> encoders = {m: mmf.encoders.Precomputed() for m in masks}
        >>> block = mmf.fusion.ModalityGraph(("audio", "video"))
        >>> model = mmf.models.Fused(encoders, head_size=3, fusion=block)
        >>> outputs, variables = model.init_with_output(
        ...     jax.random.key(0), batch, train=False
        ... )
        >>> outputs.prediction.shape, outputs.aux["joint"].shape
        ((2, 3), (2, 64))

    Attributes:
        encoders: Encoders of any number of modalities.
        head_size: k.
        fusion: Fusion block, `(streams, *, train) -> streams`, or an array (b d), the
            vector that the head reads.
        projection_dim: Width d to which the tokens of every modality are projected; 0
            for no projection.
        pooling: Pooling of the tokens of a stream to a vector: "mean", "last",
            "flatten", or "attention", a softmax over learned scores of the tokens.
        combination: Combination of the vectors of several streams: "concat", or "mean"
            over those that are present.
        pooled_streams: Names of the streams that the head reads; () for "joint" if the
            block adds a stream of that name, else for the modalities.
        dropout: Dropout rate of the input of the head.
        dtype: Dtype of the computation; None keeps the encoders'.

    Deviation:
        This model is not from a paper. A block that requires one token per modality
        (`one_token = True`) gets the pooled vectors, projected after the pooling.
    """

    parts: ClassVar[Mapping[str, str]] = {"fusion": "identity"}

    encoders: Mapping[str, nn.Module]
    head_size: int
    fusion: Any = dataclasses.field(default_factory=Identity)
    projection_dim: OptionalSize = 64
    pooling: Literal["mean", "last", "flatten", "attention"] = "mean"
    combination: Literal["concat", "mean"] = "concat"
    pooled_streams: tuple[Name, ...] = ()
    dropout: Fraction = 0.1
    dtype: Any = None

    @nn.compact
    def __call__(self, batch: Batch, *, train: bool) -> Outputs:
        """Fuses the modalities and predicts.

        Returns:
            Logits (b k), or a score (b) with one output. Auxiliary outputs:
            "pooled/<m>" (b d), the mean of the tokens of every modality before the
            fusion, the vector of every stream that the head reads, with its name,
            "fused", the input of the head, and the values of all other streams that
            the block adds, such as "attention" or "alpha". For a block with modality
            weights these are (b m), and "weight/<m>" (b) are the same, with sum 1.

        Raises:
            ConfigError: An option is unknown, `fusion` is not a fusion block, or does
                not return the streams in `pooled_streams`.
        """
        check_choices(self, CHOICES)
        if not callable(self.fusion):
            raise ConfigError(
                "C33",
                f"config.model.fusion={shown(self.fusion)} is not a fusion block.",
                "config.model.fusion = dict(name=...) in the config file",
            )
        encoded = encode(self.encoders, batch, train=train)
        order = tuple(sorted(encoded))
        streams = {m: self._project(m, encoded[m]) for m in order}
        fused = self._fuse(streams, train)
        names = self._pooled_names(order, fused)
        aux = {f"pooled/{m}": mean(streams[m]) for m in order}
        aux |= self._added(order, names, fused)
        vectors = {name: self._pool(name, fused[name]) for name in names}
        x = self._combine(vectors, fused)
        aux |= vectors | {"fused": x}
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return Outputs(prediction_head(x, self.head_size), aux)

    def _project(self, m: str, tokens: Tokens) -> Tokens:
        """Projects the tokens of a modality; its pooled vector for some blocks."""
        if getattr(self.fusion, "one_token", False):
            x = self._pool(m, tokens)
            tokens = Tokens(x[:, None], tokens.present[:, None])
        x = zero_masked(tokens.values, tokens.mask)
        if self.projection_dim:
            project = torch_dense(
                x.shape[-1], self.projection_dim, dtype=self.dtype, name=f"project_{m}"
            )
            x = zero_masked(project(x), tokens.mask)
        return tokens.replace(values=x)

    def _fuse(self, streams: Streams, train: bool) -> Streams:
        """Applies the fusion block and checks its result."""
        b = len(next(iter(streams.values())).mask)
        fused = self.fusion(streams, train=train)
        if getattr(fused, "ndim", 0) == 2:  # the vector of all modalities
            present = jnp.stack([tokens.present for tokens in streams.values()])
            some = jnp.any(present, axis=0)[:, None]
            fused = {**streams, JOINT: Tokens(fused[:, None], some)}
        if not isinstance(fused, Mapping):
            raise ConfigError(
                "C33",
                f"config.model.fusion returns {type_name(fused)}, not streams or an "
                f"array (b d), b={b}.",
            )
        if missing := streams.keys() - fused.keys():
            raise ConfigError(
                "C33",
                f"config.model.fusion does not return {join_names(sorted(missing))}: a "
                "fusion block returns every stream that it gets, changed or not.",
            )
        for name, tokens in fused.items():
            check_tokens(
                f"config.model.fusion returns stream {shown(name)} as", tokens, b
            )
        return fused

    def _pooled_names(self, order: tuple[str, ...], fused: Streams) -> tuple[str, ...]:
        """Returns the names of the streams that the head reads."""
        default = (JOINT,) if JOINT in fused and JOINT not in order else order
        names = self.pooled_streams or default
        for name in names:
            if name not in fused:
                raise ConfigError(
                    "C22",
                    f"config.model.pooled_streams has {shown(name)}, which is not a "
                    "stream after the fusion.",
                    suggest(name, fused),
                )
        return names

    def _added(
        self, order: tuple[str, ...], names: tuple[str, ...], fused: Streams
    ) -> dict[str, Array]:
        """Values of the streams that the block adds and the head does not read."""
        aux = {
            name: zero_masked(tokens.values, tokens.mask)
            for name, tokens in fused.items()
            if name not in (*order, *names)
        }
        weights = getattr(self.fusion, "modality_weights", "")
        if weights in aux:
            aux[weights] = aux[weights][..., 0]
            for option in ("modality_order", "modalities"):
                order = getattr(self.fusion, option, order)
            aux |= weights_by_modality(order, aux[weights])
        return aux

    def _pool(self, name: str, tokens: Tokens) -> Array:
        """Pools a stream to one vector per example; 0 where it is missing."""
        # One token is its own pooling, and needs no learned scores.
        if tokens.values.shape[1] == 1:
            return mean(tokens)
        if self.pooling in POOLINGS:
            return POOLINGS[self.pooling](tokens)
        x = zero_masked(tokens.values, tokens.mask)
        score = torch_dense(x.shape[-1], 1, dtype=self.dtype, name=f"pool_{name}")
        scores = score(x)[..., 0]
        scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
        weights = masked_softmax(scores, tokens.mask, axis=1)
        return jnp.einsum("bn,bnd->bd", weights.astype(x.dtype), x)

    def _combine(self, vectors: Mapping[str, Array], fused: Streams) -> Array:
        """Combines the vectors of the streams to the input of the head, (b d)."""
        if self.combination == "concat":
            return jnp.concatenate(list(vectors.values()), axis=-1)
        widths = {name: x.shape[-1] for name, x in vectors.items()}
        if len(set(widths.values())) > 1:
            raise ConfigError(
                "C28",
                f"config.model.combination='mean' requires equal widths, got "
                f"{shown(widths)}.",
                "--config.model.combination=concat",
            )
        stacked = jnp.stack(list(vectors.values()), axis=1)
        present = jnp.stack([fused[name].present for name in vectors], axis=1)
        return masked_mean(stacked, present, axis=1)
