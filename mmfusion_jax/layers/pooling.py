"""Pooling of tokens to one vector per example, or one per time step.

Example:
    >>> import jax.numpy as jnp
    >>> import mmfusion_jax as mmf
    >>> tokens = mmf.Tokens(
    ...     jnp.array([[[2.0], [4.0], [9.0]]]), jnp.array([[True, True, False]])
    ... )
    >>> mmf.layers.pooling.mean(tokens).tolist()
    [[3.0]]
    >>> mmf.layers.pooling.flatten(tokens).tolist()
    [[2.0, 4.0, 0.0]]
"""

import einops
import jax.numpy as jnp

from mmfusion_jax.ops.masking import masked_mean, zero_masked
from mmfusion_jax.types import Array, Tokens


def mean(tokens: Tokens) -> Array:
    """Mean of the valid tokens, (b d); 0 if there are none."""
    return masked_mean(tokens.values, tokens.mask, axis=1)


def mean_std(tokens: Tokens) -> Array:
    """Mean and standard deviation of every channel over the valid tokens, (b 2d).

    Both are 0 if every token is masked. 1e-6 is added to the variance, so that the
    gradient is finite for identical tokens.
    """
    center = mean(tokens)
    squares = jnp.square(zero_masked(tokens.values, tokens.mask) - center[:, None])
    std = jnp.sqrt(masked_mean(squares, tokens.mask, axis=1) + 1e-6)
    return jnp.concatenate([center, zero_masked(std, tokens.present)], axis=-1)


def flatten(tokens: Tokens) -> Array:
    """Flattens all tokens to (b d*n), with the steps of a channel adjacent.

    Masked tokens are 0, so an absent modality contributes 0 to a linear layer.

    Deviation:
        The order is that of PyTorch's (b d n) tensors, so that weights can be exchanged
        with the released codes.
    """
    values = zero_masked(tokens.values, tokens.mask)
    return einops.rearrange(values, "b n d -> b (d n)")


def time_steps(tokens: Tokens) -> int:
    """Number of time steps of a grid (s, h, w); 1 for a plain sequence."""
    return tokens.grid[0] if len(tokens.grid) > 1 else 1


def mean_per_frame(tokens: Tokens) -> Tokens:
    """Mean of the valid positions of each time step, tokens (b s d)."""
    b, n, d = tokens.values.shape
    s = time_steps(tokens)
    mask = tokens.mask.reshape(b, s, n // s)
    values = masked_mean(tokens.values.reshape(b, s, n // s, d), mask, axis=2)
    return Tokens(values, jnp.any(mask, axis=2))


def first(tokens: Tokens) -> Array:
    """Returns the first valid token of every example, (b d); 0 if there is none."""
    # The index of the first True, and 0 if there is none, which is masked below.
    index = jnp.argmax(tokens.mask, axis=1)
    values = jnp.take_along_axis(tokens.values, index[:, None, None], axis=1)[:, 0]
    return zero_masked(values, tokens.present)
