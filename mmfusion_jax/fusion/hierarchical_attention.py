"""Hierarchical cross-modal attention (MEA)."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown, suggest
from mmfusion_jax.fusion.reinforcement_unit import ReinforcementUnit
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Streams, Tokens

SOURCES = ("updated", "preliminary")


class HierarchicalAttention(nn.Module):
    """Attention from each modality to all, then the others, then each other modality.

        mixed  = MRU([Z_1 .. Z_M], Z_m)
        coarse = MRU([Z_s, s != m], mixed)
        fine   = sum_{s != m} MRU(Z_s, coarse)                        (10)

    Parameters: `mixed_<layer>` and `coarse_<layer>`, with units in the order of the
    modalities, and `fine_<layer>`, with units ordered by target, then by source.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> from functools import partial
        >>> key, mask = jax.random.key(0), jnp.ones((2, 5), bool)
        >>> streams = {
        ...     m: mmf.Tokens(jnp.ones((2, 5, 8)), mask) for m in ("audio", "video")
        ... }
        >>> block = mmf.fusion.HierarchicalAttention(
        ...     ("audio", "video"),
        ...     partial(mmf.fusion.ReinforcementUnit, num_heads=2),
        ...     num_layers=1,
        ... )
        >>> fused, variables = block.init_with_output(key, streams, train=False)
        >>> fused["audio"].values.shape
        (2, 5, 8)

    Attributes:
        modality_order: Names of the modalities; `[ ]` concatenates in this order.
        block: Creates MRUs with arguments `sources` and `name`.
        num_layers: Number of layers, N; 0 is the ablation "w/o HCA Module".
        mixed, coarse, fine: False skips that step, the ablations "w/o MRU".
        sources: Sources of the layers after the first: the "updated" modalities, or
            the "preliminary" inputs of the first layer.

    Reference:
        MEA, Sec. III-D, Eq. 10.
    Deviation:
        Eq. 10 is written for language; the others follow by symmetry, with separate
        weights. A missing source is skipped.
    """

    modality_order: tuple[str, ...]
    block: Callable[..., ReinforcementUnit]
    num_layers: int = 2
    mixed: bool = True
    coarse: bool = True
    fine: bool = True
    sources: Literal["updated", "preliminary"] = "updated"

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Updates the streams in `modality_order`, (b n d); others are unchanged.

        Raises:
            ConfigError: `sources` is unknown.
        """
        if self.sources not in SOURCES:
            raise ConfigError(
                "C03",
                f"hca_sources={shown(self.sources)} is unknown.",
                suggest(self.sources, SOURCES),
            )
        sources = targets = [streams[m] for m in self.modality_order]
        for i in range(self.num_layers):
            targets = self._layer(i, sources, list(targets), train)
            if self.sources == "updated":
                sources = targets
        return {**streams, **dict(zip(self.modality_order, targets, strict=True))}

    def _layer(
        self, i: int, sources: list[Tokens], targets: list[Tokens], train: bool
    ) -> list[Tokens]:
        """Applies one layer to every modality."""
        indices = range(len(sources))
        others = tuple(tuple(s for s in indices if s != t) for t in indices)

        def step(name: str, of: tuple[tuple[int, ...], ...], queries: list[Tokens]):
            unit = self.block(sources=of, name=f"{name}_{i}")
            return unit(sources, queries, train=train)[0]

        if self.mixed:
            targets = step("mixed", (tuple(indices),) * len(sources), targets)
        if self.coarse and len(sources) > 1:
            updated = step("coarse", others, targets)
            # Without any source, attention is 0, but the feed-forward network of the
            # unit would still change the target; such an example keeps it.
            targets = [
                select(any_present(sources, others[t]), updated[t], targets[t])
                for t in indices
            ]
        if self.fine and len(sources) > 1:
            pairs = [(t, s) for t in indices for s in others[t]]
            of = tuple((s,) for _, s in pairs)
            updated = step("fine", of, [targets[t] for t, _ in pairs])
            # All sources of a batch are computed; those missing in an example are not
            # added.
            parts = {
                (t, s): zero_masked(tokens.values, sources[s].present)
                for (t, s), tokens in zip(pairs, updated, strict=True)
            }
            for t in indices:
                values = sum(parts[t, s] for s in others[t])
                target = targets[t].replace(values=values)
                some = any_present(sources, others[t])
                targets[t] = select(some, target, targets[t])
        return targets


def any_present(streams: Sequence[Tokens], indices: Sequence[int]) -> Array:
    """Returns whether any of the streams at `indices` is present, (b) bool."""
    return functools.reduce(jnp.logical_or, [streams[i].present for i in indices])


def select(condition: Array, tokens: Tokens, other: Tokens) -> Tokens:
    """Returns `tokens` in examples where `condition` (b) is True, else `other`."""
    values = jnp.where(condition[:, None, None], tokens.values, other.values)
    return other.replace(values=values)
