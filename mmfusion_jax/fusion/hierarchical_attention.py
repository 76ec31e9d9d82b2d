"""Hierarchical cross-modal attention: from all modalities down to single ones."""

from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, nearest
from mmfusion_jax.layers.reinforcement import Reinforcement
from mmfusion_jax.ops.masking import keep
from mmfusion_jax.types import Array, Streams, Tokens

SOURCES = ("updated", "preliminary")


class HierarchicalAttention(nn.Module):
    """Every modality is reinforced by all, then the others, then each other one.

        mixed  = MRU([Z_1 .. Z_M], Z_m)
        coarse = MRU([Z_s, s != m], mixed)
        fine   = sum_{s != m} MRU(Z_s, coarse)                        (10)

    Parameters: `<modality>_<layer>_mixed`, `_coarse`, and `_fine_<source>`.

    Attributes:
        order: the modalities; `[ ]` joins tokens in this order.
        unit: makes an MRU; takes its `name`.
        depth: number of layers, N; 0 is the ablation "w/o HCA Module".
        mixed, coarse, fine: False skips that step, the ablations "w/o MRU".
        sources: what layers after the first look at: the "updated" modalities, or the
            "preliminary" ones that the first layer was given.

    Source:
        MEA, Sec. III-D, Eq. 10.
    Reading:
        Eq. 10 is written for language; the others follow by symmetry, with weights of
        their own. A source that an example lacks is skipped.
    """

    order: tuple[str, ...]
    unit: Callable[..., Reinforcement]
    depth: int = 2
    mixed: bool = True
    coarse: bool = True
    fine: bool = True
    sources: Literal["updated", "preliminary"] = "updated"

    @nn.compact
    def __call__(self, streams: Streams, *, train: bool) -> Streams:
        """Reinforces the streams in `order`, each (b n d); others pass through.

        Raises:
            ConfigError: if `sources` is unknown.
        """
        if self.sources not in SOURCES:
            raise ConfigError(
                "C03",
                f"hca_sources={self.sources!r} is unknown.",
                nearest(self.sources, SOURCES),
            )
        targets = {name: streams[name] for name in self.order}
        seen = targets
        for i in range(self.depth):
            targets = {m: self._layer(i, m, seen, targets[m], train) for m in targets}
            if self.sources == "updated":
                seen = targets
        return {**streams, **targets}

    def _layer(
        self, i: int, name: str, seen: Streams, target: Tokens, train: bool
    ) -> Tokens:
        """One modality through the steps of one layer."""
        others = [s for s in self.order if s != name]

        def unit(step: str, source: Tokens) -> Tokens:
            return self.unit(name=f"{name}_{i}_{step}")(source, target, train=train)[0]

        if self.mixed:
            target = unit("mixed", joined([seen[s] for s in self.order]))
        if self.coarse and others:
            source = joined([seen[s] for s in others])
            target = chosen(source.present, unit("coarse", source), target)
        if self.fine and others:
            some = jnp.any(jnp.stack([seen[s].present for s in others]), axis=0)
            parts = [
                keep(unit(f"fine_{s}", seen[s]).values, seen[s].present) for s in others
            ]
            target = chosen(some, target.replace(values=sum(parts)), target)
        return target


def joined(parts: Sequence[Tokens]) -> Tokens:
    """The tokens of all parts in one sequence, (b n d)."""
    values = jnp.concatenate([part.values for part in parts], axis=1)
    return Tokens(values, jnp.concatenate([part.mask for part in parts], axis=1))


def chosen(rows: Array, one: Tokens, other: Tokens) -> Tokens:
    """`one` in the examples where `rows` (b) is True, else `other`."""
    values = jnp.where(rows[:, None, None], one.values, other.values)
    return other.replace(values=values)
