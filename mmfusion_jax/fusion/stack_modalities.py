"""Stacks modalities of one token each to one sequence, and the reverse."""

import chex
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shown
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Streams, Tokens


def same_width(streams: Streams, modalities: tuple[str, ...]) -> list[Tokens]:
    """Returns some streams in an order.

    Raises:
        ConfigError: Their tokens have different widths; raised while tracing.
    """
    widths = {name: streams[name].values.shape[-1] for name in modalities}
    if len(set(widths.values())) > 1:
        raise ConfigError(
            "C28",
            f"this fusion block requires streams of the same width, got "
            f"{shown(widths)}.",
            "--config.model.projection_dim=64, or the same hidden_dim for all encoders",
        )
    return [streams[name] for name in modalities]


def stack(streams: Streams, modalities: tuple[str, ...]) -> Tokens:
    """Stacks streams (b 1 d) to tokens (b m d), 0 where a modality is missing."""
    parts = same_width(streams, modalities)
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
