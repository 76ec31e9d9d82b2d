"""Stacks modalities of one token each to one sequence, and the reverse."""

import chex
import jax.numpy as jnp

from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Streams, Tokens


def stack(streams: Streams, modalities: tuple[str, ...]) -> Tokens:
    """Stacks streams (b 1 d) to tokens (b m d), 0 where a modality is missing."""
    parts = [streams[name] for name in modalities]
    chex.assert_axis_dimension(parts[0].values, 1, 1)
    chex.assert_equal_shape([part.values for part in parts])
    values = jnp.concatenate([part.values for part in parts], axis=1)
    mask = jnp.concatenate([part.mask for part in parts], axis=1)
    return Tokens(zero_masked(values, mask), mask)


def unstack(tokens: Tokens, modalities: tuple[str, ...]) -> dict[str, Tokens]:
    """Splits tokens (b m d) into one stream (b 1 d) per modality."""
    return {
        name: Tokens(tokens.values[:, i : i + 1], tokens.mask[:, i : i + 1])
        for i, name in enumerate(modalities)
    }
