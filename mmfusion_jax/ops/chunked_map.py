"""Maps a function over a batch in chunks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array

CACHE_ELEMENTS = 4_000_000
"""Array elements that fit into a CPU cache."""


def chunk_size_for(elements: int) -> int:
    """Returns how many examples of `elements` elements fit the cache, at least 1."""
    return max(1, CACHE_ELEMENTS // max(1, elements))


def map_in_chunks(
    f: Callable[..., Any], arrays: tuple[Array, ...], max_size: int
) -> Any:
    """Computes `f(*arrays)` for chunks of the batch in sequence, to save memory.

    A chunk takes examples at equal strides, so that under a mesh it contains the same
    number of every device's examples and no device waits for or repeats the work of
    others.

    Args:
        f: Maps arrays (b ...) to a tree of arrays (b ...), each example separately.
        arrays: (b ...) each.
        max_size: Maximum examples per chunk; if it does not divide b, the largest
            smaller divisor is used. 0 for the full batch.
    """
    size = len(arrays[0])
    if not max_size or size <= max_size:
        return f(*arrays)
    # lax.map needs chunks of one size. This is the smallest number of chunks that
    # divides the batch, so the largest size allowed; a prime batch becomes chunks of 1.
    chunks = next(n for n in range(-(-size // max_size), size + 1) if size % n == 0)
    # Chunk i has the examples i, i + chunks, ...: reshaping to (chunks, size) would put
    # a chunk on one or two devices, while all others wait or repeat its work.
    split = lambda x: x.reshape(size // chunks, chunks, *x.shape[1:]).swapaxes(0, 1)
    results = jax.lax.map(lambda chunk: f(*chunk), jax.tree.map(split, arrays))
    merge = lambda x: jnp.swapaxes(x, 0, 1).reshape(size, *x.shape[2:])
    return jax.tree.map(merge, results)
