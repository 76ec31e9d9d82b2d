"""Convolutions over clips (b s h w c), kernels DHWIO, fast on CPU too.

XLA has no fast 3-D or grouped convolution for CPU, so each of these has a form of its
own there. The form is chosen while the program is lowered: the same function, traced
once, is a plain convolution on an accelerator. Kernels have one layout throughout.
"""

import functools

import jax
import jax.numpy as jnp

from mmfusion_jax.ops.conv import grouped_cpu, stem_cpu
from mmfusion_jax.types import Array

METHODS = ("lax", "taps", "block_diagonal")
DENSE_CHANNELS = 32


def convolve3d(
    x: Array, w: Array, *, strides: tuple[int, ...], groups: int = 1
) -> Array:
    """The convolution as XLA does it, zero padding of half the kernel.

    Args:
        x: (b s h w c).
        w: (i j l c/groups k), odd sizes.
        strides: steps along s, h, w.
        groups: divides c and k.
    """
    return jax.lax.conv_general_dilated(
        x,
        w,
        strides,
        tuple((size // 2, size // 2) for size in w.shape[:3]),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=groups,
    )


def grouped_conv3d(
    x: Array,
    w: Array,
    *,
    stride: int | tuple[int, int, int],
    groups: int,
    method: str | None = None,
    dense: int = DENSE_CHANNELS,
) -> Array:
    """A 3x3x3 convolution in groups, zero padding 1.

    Args:
        x: (b s h w c).
        w: (3 3 3 c/groups k).
        stride: step along s, h and w, or one for each.
        groups: divides c and k.
        method: "lax": XLA's own; "taps": sums over the 27 taps, made for CPU;
            "block_diagonal": neighboring groups merged until they have `dense`
            channels, the weights between them 0. None: taps on CPU, lax elsewhere.
        dense: channels of a merged group; counts for "block_diagonal" only.

    Returns:
        (b s' h' w' k) with s' = ceil(s / stride), and so on.

    Raises:
        ValueError: `method` is unknown, or has no form for these strides.
    """
    strides = stride if isinstance(stride, tuple) else (stride,) * 3
    even = strides in ((1, 1, 1), (2, 2, 2))
    if method is None:
        method = "auto" if even else "lax"
    if method == "lax":
        return convolve3d(x, w, strides=strides, groups=groups)
    if method == "block_diagonal":
        w, groups = _merged(w, groups, dense)
        return convolve3d(x, w, strides=strides, groups=groups)
    if method not in ("auto", "taps"):
        raise ValueError(f"method={method!r} is unknown; known: {', '.join(METHODS)}.")
    if not even:
        raise ValueError(f"method='taps' has stride 1 and 2, but stride={stride}.")
    return _grouped_once(x, w, strides[0], groups, method == "taps")


def stem_conv3d(x: Array, w: Array, *, method: str | None = None) -> Array:
    """A 7x7x7 convolution of stride (1, 2, 2), zero padding 3.

    Args:
        x: (b s h w c), any number of channels.
        w: (7 7 7 c k).
        method: "lax": XLA's own; "taps": 2-D convolutions of one step each, with the
            seven temporal taps as channels, made for CPU. None: taps on CPU, lax
            elsewhere.

    Returns:
        (b s ceil(h/2) ceil(w/2) k).
    """
    if method == "lax":
        return convolve3d(x, w, strides=(1, 2, 2))
    return _stem(x, w, method == "taps")


def pointwise_conv3d(x: Array, w: Array, *, stride: int = 1) -> Array:
    """A 1x1x1 convolution: a matrix product at every position kept.

    Args:
        x: (b s h w c).
        w: (c k).
        stride: step along s, h and w.

    Returns:
        (b s' h' w' k).
    """
    if stride > 1:
        x = x[:, ::stride, ::stride, ::stride]
    return _pointwise_once(x, w)


def _merged(w: Array, groups: int, dense: int) -> tuple[Array, int]:
    """Neighboring groups as one, zeros between them; differentiable."""
    inner = w.shape[3]
    together = max(1, min(dense // inner, groups))
    while groups % together:
        together -= 1
    blocks = w.reshape(*w.shape[:4], groups // together, together, -1)
    own = jnp.eye(together, dtype=w.dtype)
    wide = jnp.einsum("dhwiGgo,eg->dhweiGgo", blocks, own)
    return wide.reshape(*w.shape[:3], together * inner, -1), groups // together


def _on_cpu(taps, plain, forced: bool, *arrays: Array):
    """`taps` on CPU or where forced, `plain` elsewhere."""
    if forced:
        return taps(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=taps, default=plain)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _grouped(x: Array, w: Array, stride: int, groups: int, forced: bool) -> Array:
    taps = functools.partial(grouped_cpu.conv, stride=stride, groups=groups)
    plain = functools.partial(convolve3d, strides=(stride,) * 3, groups=groups)
    return _on_cpu(taps, plain, forced, x, w)


def _grouped_forward(x: Array, w: Array, stride: int, groups: int, forced: bool):
    return _grouped(x, w, stride, groups, forced), (x, w)


def _grouped_backward(stride: int, groups: int, forced: bool, saved, dy: Array):
    taps = functools.partial(grouped_cpu.gradients, stride=stride, groups=groups)
    plain = _gradients_of(
        functools.partial(convolve3d, strides=(stride,) * 3, groups=groups)
    )
    return _on_cpu(taps, plain, forced, *saved, dy)


_grouped.defvjp(_grouped_forward, _grouped_backward)
_grouped_once = jax.jit(_grouped, static_argnums=(2, 3, 4))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _stem(x: Array, w: Array, forced: bool) -> Array:
    plain = functools.partial(convolve3d, strides=(1, 2, 2))
    return _on_cpu(stem_cpu.conv, plain, forced, x, w)


def _stem_forward(x: Array, w: Array, forced: bool):
    return _stem(x, w, forced), (x, w)


def _stem_backward(forced: bool, saved, dy: Array):
    plain = _gradients_of(functools.partial(convolve3d, strides=(1, 2, 2)))
    return _on_cpu(stem_cpu.gradients, plain, forced, *saved, dy)


_stem.defvjp(_stem_forward, _stem_backward)


def _gradients_of(function):
    """Maps (x, w, dy) to the gradients of `function` with respect to x and w."""
    return lambda x, w, dy: jax.vjp(function, x, w)[1](dy)


@jax.custom_vjp
def _pointwise(x: Array, w: Array) -> Array:
    return x @ w


def _pointwise_forward(x: Array, w: Array):
    return x @ w, (x, w)


def _pointwise_backward(saved, dy: Array):
    x, w = saved
    rows = lambda a: a.reshape(-1, a.shape[-1])
    plain = lambda a, b: a.T @ b
    return dy @ w.T, _on_cpu(_transposed_product, plain, False, rows(x), rows(dy))


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)
_pointwise_once = jax.jit(_pointwise)


def _transposed_product(a: Array, b: Array) -> Array:
    """`a.T @ b`, a piece of the rows at a time, so that a piece stays in the cache.

    The loop also keeps XLA from computing whatever made `a` and `b` a second time,
    column by column, only to have it transposed.
    """
    rows = a.shape[0]
    pieces = next((n for n in range(1, 257) if rows % n == 0 and rows // n <= 1024), 1)
    size = rows // pieces

    def add(i: Array, total: Array) -> Array:
        take = lambda x: jax.lax.dynamic_slice_in_dim(x, i * size, size)
        return total + take(a).T @ take(b)

    zero = jnp.zeros((a.shape[1], b.shape[1]), a.dtype)
    return jax.lax.fori_loop(0, pieces, add, zero)
