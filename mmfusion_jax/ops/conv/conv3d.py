"""3D convolutions over clips (b s h w c), kernels DHWIO, that are fast on CPU too.

XLA's 3D and grouped convolutions are slow on CPU, so each function has a separate CPU
implementation. It is selected at lowering: the same function, traced once, is one of
XLA's convolutions on an accelerator, on TPU with neighboring groups merged. Kernels
have one layout throughout.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from mmfusion_jax.errors import join_names, shown
from mmfusion_jax.ops.conv import grouped_cpu, stem_cpu
from mmfusion_jax.ops.custom_gradient import with_backward
from mmfusion_jax.types import Array

# Measured on CPU (one core, float32, one clip at 112x112, all grouped layers of the 3D
# ResNeXt-50): XLA's grouped convolutions take 1.6 s forward and 11.5 s with gradients,
# the ones here 0.08 and 0.5 s, PyTorch's 0.04 and 0.24 s. On TPU, the compiler's
# estimates for a step of CFN-SR (v5e, bf16, 2 clips of 30x224x224 per chip) are 6.5 GB
# of temporaries and 82 GB of memory traffic with XLA's grouped convolutions, 2.9 and 50
# GB with "block_diagonal" and dense=32, 3.7 and 46 GB with dense=128; with 16 clips and
# `remat` 247 GB with dense=32 and 164 with 128, which has twice the arithmetic. Neither
# was run on a TPU, and on GPU none was compared.
METHODS = ("lax", "taps", "block_diagonal")
DENSE_CHANNELS = 128


def convolve3d(
    x: Array, w: Array, *, strides: tuple[int, ...], groups: int = 1
) -> Array:
    """XLA's convolution with zero padding of half the kernel.

    Args:
        x: (b s h w c).
        w: (i j l c/groups k), odd sizes.
        strides: Strides along s, h, w.
        groups: Divides c and k.
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
    """Grouped 3x3x3 convolution with zero padding 1.

    Args:
        x: (b s h w c).
        w: (3 3 3 c/groups k).
        stride: Stride along s, h and w, or one for each.
        groups: Divides c and k.
        method: "lax": XLA's; "taps": sums over the 27 taps, for CPU; "block_diagonal":
            neighboring groups merged to at least `dense` channels, with zero weights
            between them, for TPU. None: taps on CPU, block_diagonal on TPU, lax
            elsewhere.
        dense: Channels of a merged group, for "block_diagonal".

    Returns:
        (b s' h' w' k) with s' = ceil(s / stride), and so on.

    Raises:
        ValueError: `method` is unknown, or does not support these strides.
    """
    strides = stride if isinstance(stride, tuple) else (stride,) * 3
    even = strides in ((1, 1, 1), (2, 2, 2))
    if method is None:
        # The implementations for CPU have an input gradient for strides 1 and 2 only.
        method = "auto" if even else "lax"
    if method == "lax":
        return convolve3d(x, w, strides=strides, groups=groups)
    if method == "block_diagonal":
        return _block_diagonal(x, w, strides=strides, groups=groups, dense=dense)
    if method not in ("auto", "taps"):
        raise ValueError(
            f"method={shown(method)} is unknown; known: {join_names(METHODS)}."
        )
    if not even:
        raise ValueError(
            f"method='taps' supports stride 1 and 2, but stride={shown(stride)}."
        )
    return _grouped_once(x, w, strides[0], groups, method == "taps")


def stem_conv3d(x: Array, w: Array, *, method: str | None = None) -> Array:
    """7x7x7 convolution with stride (1, 2, 2) and zero padding 3.

    Args:
        x: (b s h w c), any number of channels.
        w: (7 7 7 c k).
        method: "lax": XLA's; "taps": 2D convolutions per step, with the seven temporal
            taps as channels, for CPU. None: taps on CPU, lax elsewhere.

    Returns:
        (b s ceil(h/2) ceil(w/2) k).
    """
    if method == "lax":
        return convolve3d(x, w, strides=(1, 2, 2))
    return _stem(x, w, method == "taps")


def pointwise_conv3d(x: Array, w: Array, *, stride: int = 1) -> Array:
    """1x1x1 convolution: a matrix product at every output position.

    Args:
        x: (b s h w c).
        w: (c k).
        stride: Stride along s, h and w.

    Returns:
        (b s' h' w' k).
    """
    # Dropped positions are not multiplied: the slice comes first.
    if stride > 1:
        x = x[:, ::stride, ::stride, ::stride]
    return _pointwise_once(x, w)


def _block_diagonal(
    x: Array,
    w: Array,
    *,
    strides: tuple[int, ...],
    groups: int,
    dense: int = DENSE_CHANNELS,
) -> Array:
    """Grouped convolution with merged groups."""
    w, groups = _merged(w, groups, dense)
    return convolve3d(x, w, strides=strides, groups=groups)


def _on_accelerator(
    x: Array, w: Array, *, strides: tuple[int, ...], groups: int
) -> Array:
    """Grouped convolution in the form that suits the accelerator."""
    if groups == 1:
        return convolve3d(x, w, strides=strides)
    plain, merged = (
        functools.partial(form, strides=strides, groups=groups)
        for form in (convolve3d, _block_diagonal)
    )
    return jax.lax.platform_dependent(x, w, tpu=merged, default=plain)


def _merged(w: Array, groups: int, dense: int) -> tuple[Array, int]:
    """Merges neighboring groups with zeros between them; differentiable."""
    inner = w.shape[3]
    merged = max(1, min(dense // inner, groups))
    while groups % merged:
        merged -= 1
    blocks = w.reshape(*w.shape[:4], groups // merged, merged, -1)
    # w[.., G, g, o] is placed on the diagonal of the merged groups, zeros elsewhere.
    own = jnp.eye(merged, dtype=w.dtype)
    wide = jnp.einsum("dhwiGgo,eg->dhweiGgo", blocks, own)
    return wide.reshape(*w.shape[:3], merged * inner, -1), groups // merged


def _on_cpu(taps, plain, forced: bool, *arrays: Array):
    """Runs `taps` on CPU or if forced, `plain` elsewhere."""
    # `forced` runs the CPU implementation on any platform, for tests and benchmarks.
    if forced:
        return taps(*arrays)
    # Chosen when the program is lowered, not by `jax.default_backend()` while tracing:
    # one traced function can be lowered for CPU and for an accelerator.
    return jax.lax.platform_dependent(*arrays, cpu=taps, default=plain)


# A backward pass by hand, because autodiff of the sums pads and adds an array for each
# of 27 taps, and XLA's own gradients of grouped 3D convolutions are 33 to 140 times as
# slow as PyTorch's on one CPU core. Saved are x and w. The rule must hold on every
# platform, so the gradients are also chosen by `platform_dependent`; on accelerators
# they are JAX's.
def _grouped(x: Array, w: Array, stride: int, groups: int, forced: bool) -> Array:
    options: Any = {"stride": stride, "groups": groups}
    plain = functools.partial(_on_accelerator, strides=(stride,) * 3, groups=groups)
    return _by_platform(
        functools.partial(grouped_cpu.conv, **options),
        functools.partial(grouped_cpu.gradients, **options),
        plain,
        forced,
    )(x, w)


# jit inside a model: all layers of one shape share one traced and lowered function,
# which makes the program smaller (see `masked_batch_norm.batch_normalize`).
_grouped_once = jax.jit(_grouped, static_argnums=(2, 3, 4))


# As `_grouped`. XLA's 7x7x7 convolution takes 1039 ms for a clip at 112x112 on one CPU
# core, 7.8 times PyTorch's time; with the temporal taps as channels of 2D convolutions
# it takes 156 ms, 1.2 times.
def _stem(x: Array, w: Array, forced: bool) -> Array:
    plain = functools.partial(convolve3d, strides=(1, 2, 2))
    return _by_platform(stem_cpu.conv, stem_cpu.gradients, plain, forced)(x, w)


def _by_platform(taps, gradients, plain, forced: bool):
    """Returns the function of x and w that is `taps` on CPU and `plain` elsewhere."""

    def backward(arguments, saved, dy: Array):
        del saved
        derived = lambda x, w, dy: jax.vjp(plain, x, w)[1](dy)
        return _on_cpu(gradients, derived, forced, *arguments, dy)

    return with_backward(functools.partial(_on_cpu, taps, plain, forced), backward)


# Autodiff would compute the kernel gradient as one product x^T dy over all positions,
# for which XLA on CPU makes transposed copies and computes what made x and dy again,
# column by column. Saved are x and w. Forward and gradients of 15x28x28 positions, 128
# to 256 channels, on one CPU core: 9 instead of 15 ms.
def _pointwise_backward(arguments, saved, dy: Array):
    del saved
    x, w = arguments
    rows = lambda a: a.reshape(-1, a.shape[-1])
    plain = lambda a, b: a.T @ b
    return dy @ w.T, _on_cpu(_transposed_product, plain, False, rows(x), rows(dy))


_pointwise_once = jax.jit(with_backward(jnp.matmul, _pointwise_backward))


def _transposed_product(a: Array, b: Array) -> Array:
    """Computes `a.T @ b` in chunks of rows that fit the cache.

    The loop also prevents XLA from recomputing the producers of `a` and `b` column by
    column for a transposed copy.
    """
    rows = a.shape[0]
    # Up to 1024 rows, so that both chunks stay in the cache. Without a divisor up to
    # 256 the product is computed at once, which is correct but slower.
    chunks = next((n for n in range(1, 257) if rows % n == 0 and rows // n <= 1024), 1)
    size = rows // chunks

    def add(i: Array, total: Array) -> Array:
        take = lambda x: jax.lax.dynamic_slice_in_dim(x, i * size, size)
        return total + take(a).T @ take(b)

    zero = jnp.zeros((a.shape[1], b.shape[1]), a.dtype)
    return jax.lax.fori_loop(0, chunks, add, zero)
