"""The random numbers of JAX, from a program that XLA for CPU compiles faster."""

import math
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.types import Array

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
BITS = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}


def unrolled(key: Array) -> Array:
    """Returns a key with the same random numbers, whose generator has no loop.

    Threefry has five groups of four rounds. JAX computes them in a loop on CPU, of
    which XLA compiles about ten small functions for every array that is drawn. Without
    a loop all rounds are part of the function that uses the numbers. On other platforms
    JAX does not have the loop either.

    Example:
        >>> import jax
        >>> from mmfusion_jax.ops.unrolled_threefry import unrolled
        >>> key = jax.random.key(0)
        >>> bool(jax.random.normal(key) == jax.random.normal(unrolled(key)))
        True

    Args:
        key: () typed PRNG key.

    Returns:
        () key: `jax.random` gives the numbers of `key` for it, and for the keys that
        are split or folded from it. `key` itself if it is not a Threefry key, or if
        `jax_threefry_partitionable` is off, which has other numbers.

    Reference:
        Salmon et al. 2011, Threefry-2x32 with 20 rounds.
    """
    # A raw key is an array of uint32; it has no generator of its own.
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not typed or jax.random.key_impl(key) != "threefry2x32":
        return key
    if not jax.config.jax_threefry_partitionable:  # pyright: ignore
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=GENERATOR)


@jax.jit
def _hash(k1: Array, k2: Array, x1: Array, x2: Array) -> tuple[Array, Array]:
    """Hashes pairs of counters, uint32 of any shape, with the pair of a key."""
    keys = k1, k2, k1 ^ k2 ^ np.uint32(0x1BD11BDA)
    x1, x2 = x1 + k1, x2 + k2
    for group in range(5):
        for rotation in ROTATIONS[group % 2]:
            x1 = x1 + x2
            left, right = np.uint32(rotation), np.uint32(32 - rotation)
            x2 = x1 ^ ((x2 << left) | (x2 >> right))
        x1 = x1 + keys[(group + 1) % 3]
        x2 = x2 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x1, x2


def _counters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Returns the upper and lower halves of the index of every element."""
    # A sum over axes rather than one reshaped iota: a mesh can then split it along any
    # axis without communication.
    lower = jnp.zeros(shape, jnp.uint32)
    for axis in range(len(shape)):
        stride = np.uint32(math.prod(shape[axis + 1 :]))
        lower += stride * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    return jnp.zeros_like(lower), lower


def _random_bits(data: Array, width: int, shape: tuple[int, ...]) -> Array:
    if math.prod(shape) > 2**32:
        return jax.extend.random.threefry_prng_impl.random_bits(data, width, shape)
    upper, lower = _hash(data[0], data[1], *_counters(shape))
    if width == 64:
        upper, lower = (x.astype(jnp.uint64) for x in (upper, lower))
        return (upper << np.uint64(32)) | lower
    return (upper ^ lower).astype(BITS[width])


def _split(data: Array, shape: tuple[int, ...]) -> Array:
    return jnp.stack(_hash(data[0], data[1], *_counters(tuple(shape))), axis=-1)


def _fold_in(data: Array, number: Any) -> Array:
    number = jnp.asarray(number).astype(jnp.uint32)
    return jnp.stack(_hash(data[0], data[1], jnp.zeros_like(number), number))


GENERATOR = jax.extend.random.define_prng_impl(
    key_shape=(2,),
    seed=jax.extend.random.threefry_prng_impl.seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="unrolled_threefry",
    tag="unrolled",
)
