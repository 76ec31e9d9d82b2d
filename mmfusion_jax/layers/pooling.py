"""Fewer tokens: one vector per example, or one per time step."""

import einops
import jax.numpy as jnp

from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.types import Array, Tokens


def mean(tokens: Tokens) -> Array:
    """The mean of the real tokens, (b d); 0 where there is none."""
    return masked_mean(tokens.values, tokens.mask, axis=1)


def mean_std(tokens: Tokens) -> Array:
    """Mean and standard deviation of every channel over the real tokens, (b 2d).

    Both are 0 where there is no real token. The variance is raised by 1e-6, so that
    the gradient stays finite for tokens that are all alike.
    """
    center = mean(tokens)
    away = jnp.square(zero_masked(tokens.values, tokens.mask) - center[:, None])
    spread = jnp.sqrt(masked_mean(away, tokens.mask, axis=1) + 1e-6)
    return jnp.concatenate([center, zero_masked(spread, tokens.present)], axis=-1)


def flatten(tokens: Tokens) -> Array:
    """All tokens side by side, (b d*n), the steps of one channel together.

    Masked tokens are 0, so an absent modality adds nothing to a linear layer.

    Deviation:
        The order is that of PyTorch's (b d n) tensors, so that weights can be
        exchanged with the released codes.
    """
    values = zero_masked(tokens.values, tokens.mask)
    return einops.rearrange(values, "b n d -> b (d n)")


def time_steps(tokens: Tokens) -> int:
    """Time steps of a clip's grid (s, h, w); 1 where tokens are no more than a row."""
    return tokens.grid[0] if len(tokens.grid) > 1 else 1


def mean_per_frame(tokens: Tokens) -> Tokens:
    """One token (b s d) per time step: the mean of the step's real positions."""
    b, n, d = tokens.values.shape
    s = time_steps(tokens)
    mask = tokens.mask.reshape(b, s, n // s)
    values = masked_mean(tokens.values.reshape(b, s, n // s, d), mask, axis=2)
    return Tokens(values, jnp.any(mask, axis=2))


def first(tokens: Tokens) -> Array:
    """The first real token of every example, (b d); 0 where there is none."""
    place = jnp.argmax(tokens.mask, axis=1)
    chosen = jnp.take_along_axis(tokens.values, place[:, None, None], axis=1)[:, 0]
    return zero_masked(chosen, tokens.present)
