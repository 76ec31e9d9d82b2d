"""A function of a batch, a few examples at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array

CACHE_ELEMENTS = 4_000_000
"""Of an array that a processor's cache holds."""


def chunk_size_for(numbers: int) -> int:
    """How many examples of so many numbers each the cache holds, at least 1."""
    return max(1, CACHE_ELEMENTS // max(1, numbers))


def map_in_chunks(f: Callable[..., Any], arrays: tuple[Array, ...], most: int) -> Any:
    """`f(*arrays)` by parts of the batch, one after the other, to save memory.

    A part takes examples at even distances, so that under a mesh it has its share of
    every device and none has to wait for, or repeat, the work of others.

    Args:
        f: maps arrays (b ...) to a tree of arrays (b ...), each example by itself.
        arrays: (b ...) each.
        most: examples of a part; where it does not divide b, parts are as large as
            they can be below. 0 for all at once.
    """
    size = len(arrays[0])
    if not most or size <= most:
        return f(*arrays)
    parts = next(n for n in range(-(-size // most), size + 1) if size % n == 0)
    cut = lambda x: x.reshape(size // parts, parts, *x.shape[1:]).swapaxes(0, 1)
    done = jax.lax.map(lambda part: f(*part), jax.tree.map(cut, arrays))
    whole = lambda x: jnp.swapaxes(x, 0, 1).reshape(size, *x.shape[2:])
    return jax.tree.map(whole, done)
