"""Hierarchical cross-modal attention: from all modalities down to single ones."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.fusion.reinforcement_unit import ReinforcementUnit
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Array, Streams, Tokens

SOURCES = ("updated", "preliminary")


class HierarchicalAttention(nn.Module):
    """Every modality is reinforced by all, then the others, then each other one.

        mixed  = MRU([Z_1 .. Z_M], Z_m)
        coarse = MRU([Z_s, s != m], mixed)
        fine   = sum_{s != m} MRU(Z_s, coarse)                        (10)

    Parameters: `mixed_<layer>`, `coarse_<layer>`, their units in the order of the
    modalities, and `fine_<layer>`, target by target, its sources in that order.

    Attributes:
        modality_order: the modalities; `[ ]` joins tokens in this order.
        block: makes MRUs side by side; takes what they see, `sees`, and its `name`.
        num_layers: number of layers, N; 0 is the ablation "w/o HCA Module".
        mixed, coarse, fine: False skips that step, the ablations "w/o MRU".
        sources: what layers after the first look at: the "updated" modalities, or the
            "preliminary" ones that the first layer was given.

    Reference:
        MEA, Sec. III-D, Eq. 10.
    Deviation:
        Eq. 10 is written for language; the others follow by symmetry, with weights of
        their own. A source that an example lacks is skipped.
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
        """Reinforces the streams in `modality_order`, (b n d); others pass through.

        Raises:
            ConfigError: if `sources` is unknown.
        """
        if self.sources not in SOURCES:
            raise ConfigError(
                "C03",
                f"hca_sources={self.sources!r} is unknown.",
                suggest(self.sources, SOURCES),
            )
        seen = targets = [streams[m] for m in self.modality_order]
        for i in range(self.num_layers):
            targets = self._layer(i, seen, list(targets), train)
            if self.sources == "updated":
                seen = targets
        return {**streams, **dict(zip(self.modality_order, targets, strict=True))}

    def _layer(
        self, i: int, seen: list[Tokens], targets: list[Tokens], train: bool
    ) -> list[Tokens]:
        """Every modality through the steps of one layer."""
        places = range(len(seen))
        others = tuple(tuple(s for s in places if s != t) for t in places)

        def step(name: str, sees: tuple[tuple[int, ...], ...], asking: list[Tokens]):
            unit = self.block(sees=sees, name=f"{name}_{i}")
            return unit(seen, asking, train=train)[0]

        if self.mixed:
            targets = step("mixed", (tuple(places),) * len(seen), targets)
        if self.coarse and len(seen) > 1:
            made = step("coarse", others, targets)
            targets = [
                chosen(some(seen, others[t]), made[t], targets[t]) for t in places
            ]
        if self.fine and len(seen) > 1:
            pairs = [(t, s) for t in places for s in others[t]]
            sees = tuple((s,) for _, s in pairs)
            made = step("fine", sees, [targets[t] for t, _ in pairs])
            parts = {
                (t, s): zero_masked(tokens.values, seen[s].present)
                for (t, s), tokens in zip(pairs, made, strict=True)
            }
            for t in places:
                values = sum(parts[t, s] for s in others[t])
                target = targets[t].replace(values=values)
                targets[t] = chosen(some(seen, others[t]), target, targets[t])
        return targets


def some(streams: Sequence[Tokens], places: Sequence[int]) -> Array:
    """In which examples any of the streams at `places` is present, (b) bool."""
    return functools.reduce(jnp.logical_or, [streams[i].present for i in places])


def chosen(rows: Array, one: Tokens, other: Tokens) -> Tokens:
    """`one` in the examples where `rows` (b) is True, else `other`."""
    values = jnp.where(rows[:, None, None], one.values, other.values)
    return other.replace(values=values)
