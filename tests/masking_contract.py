"""Checks that masked values change nothing, for encoders, blocks and models."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array, Tokens

POISON = (float("nan"), 1e30, -1e30)


def poisoned(x: Array, mask: Array, bad: float) -> Array:
    """`x` with `bad` at every masked position."""
    mask = mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim))
    return jnp.where(mask, x, bad)


def poison(tokens: Tokens, bad: float) -> Tokens:
    """Tokens with `bad` at every masked position."""
    return tokens.replace(values=poisoned(tokens.values, tokens.mask, bad))


def assert_ignores_poison(
    loss: Callable[..., Array], params: Any, make: Callable[[float], Any]
) -> None:
    """Checks that value and gradients are bit-identical for every masked value.

    Args:
        loss: Maps params and an input to a scalar that reads everything unmasked.
        params: A tree of arrays.
        make: The input, with its argument in every masked place.
    """
    run = jax.jit(jax.value_and_grad(loss))
    want = run(params, make(0.0))
    chex.assert_tree_all_finite(want)
    for bad in POISON:
        chex.assert_trees_all_equal(run(params, make(bad)), want)
