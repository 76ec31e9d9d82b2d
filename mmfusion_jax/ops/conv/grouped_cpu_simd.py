"""Grouped 3D convolutions with the groups as SIMD lanes: few channels, many groups.

An array is (b s h w c g), with g groups, and a tap is an elementwise product. Sums are
split so that XLA vectorizes them on CPU: about PRODUCTS_PER_SUM products in one fused
sum, in PARALLEL_SUMS independent chains, without dynamic slices, which are done in the
loops.
"""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp

from mmfusion_jax.types import Array

# Layer of 256 channels in 32 groups, 8x14x14, one CPU core: with 24 to 36 products in a
# fused sum 5.2 ms, with 144 and more XLA no longer vectorizes it, 90 ms, and with 12 it
# takes six times as long. One chain of additions is bound by their latency, so there
# are four. The parts are iterations of a scan, because XLA for CPU fuses everything
# else, also across `optimization_barrier`.
PRODUCTS_PER_SUM = 36
MIN_PRODUCTS = 24
PARALLEL_SUMS = 4


def conv(x: Array, w: Array, stride: int, groups: int, pad: tuple[int, int]) -> Array:
    """Computes the convolution, one step of the output at a time.

    Args:
        x: (b s h w c).
        w: (i j l c/groups k).
        stride: Stride along s, h and w.
        groups: Divides c and k.
        pad: Zeros before and after, along s, h and w.

    Returns:
        (b s' h' w' k).
    """
    grid = zip(x.shape[1:4], w.shape[:3], strict=True)
    out = [(size + sum(pad) - taps) // stride + 1 for size, taps in grid]
    rows, columns = ((size - 1) * stride + 1 for size in out[1:])
    padded = _to_lanes(x, groups, pad, pad[1])
    positions, parts = _parts(w.reshape(*w.shape[:4], groups, -1).swapaxes(-1, -2))
    high, wide, channels = parts.shape[1:4]
    window = (len(x), 1, rows + high - 1, padded.shape[3], channels, groups)

    def add(y: Array, s: Array, position: Array, part: Array) -> Array:
        # A dynamic slice that is fused into the sum prevents its vectorization, so all
        # offsets that change are in this one slice, and those of the sum are constants.
        start = (0, s * stride + position[0], position[1], 0, position[2], 0)
        near = jax.lax.dynamic_slice(padded, start, window)[:, 0]  # b h w c g
        terms = [
            near[:, i : i + rows : stride, j : j + columns : stride, c, None]
            * part[i, j, c]
            for i, j, c in itertools.product(range(high), range(wide), range(channels))
        ]
        return y + _parallel_sum(terms)

    def step(_, s: Array):
        zero = jnp.zeros((len(x), *out[1:], parts.shape[-2], groups), x.dtype)
        y, _ = jax.lax.scan(
            lambda y, p: (add(y, s, *p), None), zero, (positions, parts)
        )
        return None, y.swapaxes(-1, -2).reshape(*y.shape[:3], -1)

    return jax.lax.scan(step, None, jnp.arange(out[0]))[1].swapaxes(0, 1)


def filter_gradient(x: Array, dy: Array, stride: int, groups: int) -> Array:
    """Computes the gradient of a 3x3x3 kernel with padding 1, in chunks of rows of dy.

    Args:
        x: (b s h w c).
        dy: (b s' h' w' k).
        stride: Stride along s, h and w.
        groups: Divides c and k.

    Returns:
        (3 3 3 c/groups k).
    """
    b, steps, height, width = dy.shape[:4]
    # As many rows of dy as give at least MIN_PRODUCTS products; `spare` rows of zeros
    # make all chunks equally long.
    chunks = -(-height // -(-MIN_PRODUCTS // width))
    rows = -(-height // chunks)
    spare = chunks * rows - height
    padded = _to_lanes(x, groups, (1, 1), 1 + spare * stride)
    dy = _to_lanes(dy, groups, (0, 0), spare)
    window = (1, 3, (rows - 1) * stride + 3, padded.shape[3], *padded.shape[4:])

    def add(i: Array, total: tuple[Array, ...]) -> tuple[Array, ...]:
        n, s, h = i // chunks // steps, i // chunks % steps, i % chunks * rows
        near = (n, s * stride, h * stride, 0, 0, 0)
        near = jax.lax.dynamic_slice(padded, near, window)[0]  # 3 h w c g
        here = jax.lax.dynamic_slice(
            dy, (n, s, h, 0, 0, 0), (1, 1, rows, *dy.shape[3:])
        )
        # A sum for each of the three taps along w: all in one would have three times
        # the products that XLA vectorizes well.
        return tuple(
            total[j]
            + _parallel_sum(
                [
                    near[:, r * stride : r * stride + 3, w * stride + j, :, None]
                    * here[0, 0, r, w]
                    for r, w in itertools.product(range(rows), range(width))
                ]
            )
            for j in range(3)
        )

    zero = jnp.zeros((3, 3, padded.shape[4], *dy.shape[4:]), x.dtype)
    total = jax.lax.fori_loop(0, b * steps * chunks, add, (zero,) * 3)
    dw = jnp.stack(total, axis=2).swapaxes(-1, -2)
    return dw.reshape(*dw.shape[:4], -1)


def _to_lanes(x: Array, groups: int, pad: tuple[int, int], below: int) -> Array:
    """Reshapes (b s h w c) to (b s h w c/groups groups), with zero padding.

    Writing into an array of zeros is several times faster here than `jnp.pad`.

    Args:
        x: (b s h w c).
        groups: Divides c.
        pad: Zeros before and after along s and w, and above along h.
        below: Zeros below along h.
    """
    b, s, h, w, c = x.shape
    both = sum(pad)

    shape = (b, s + both, h + pad[0] + below, w + both, c // groups, groups)
    lanes = x.reshape(b, s, h, w, groups, -1).swapaxes(-1, -2)
    start = (0, *(pad[0],) * 3, 0, 0)
    return jax.lax.dynamic_update_slice(jnp.zeros(shape, x.dtype), lanes, start)


def _parts(w: Array) -> tuple[Array, Array]:
    """Splits a kernel into parts of at most PRODUCTS_PER_SUM taps and channels.

    Args:
        w: (i j l c k g).

    Returns:
        Start of the parts along i, j and c, (n 3), and the parts, (n j' l c' k g).
    """
    deep, high, wide, inner = w.shape[:4]
    # Up to 4 channels: all nine taps of a step, 36 products. More: one row of three
    # taps, and as many channels as fit.
    rows = high if high * wide * min(inner, 4) <= PRODUCTS_PER_SUM else 1
    max_channels = PRODUCTS_PER_SUM // (rows * wide)
    channels = max(n for n in range(1, max_channels + 1) if inner % n == 0)
    positions = itertools.product(
        range(deep), range(0, high, rows), range(0, inner, channels)
    )
    cut = (deep, high // rows, rows, wide, inner // channels, channels, *w.shape[4:])
    parts = w.reshape(cut).transpose(0, 1, 4, 2, 3, 5, 6, 7)
    return jnp.array(list(positions)), parts.reshape(-1, *parts.shape[3:])


def _parallel_sum(terms: list[Array]) -> Array:
    """Sums `terms` in PARALLEL_SUMS independent chains."""
    chains = [terms[i::PARALLEL_SUMS] for i in range(min(PARALLEL_SUMS, len(terms)))]
    sums = [functools.reduce(operator.add, chain) for chain in chains]
    return functools.reduce(operator.add, sums)
