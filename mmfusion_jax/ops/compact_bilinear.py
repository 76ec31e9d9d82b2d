"""Compact bilinear pooling: a sketch of the outer product of vectors.

The count sketch of an outer product is the circular convolution of the count sketches
of its factors, which is a product of their Fourier transforms.

Example:
    >>> import jax.numpy as jnp
    >>> import mmfusion_jax as mmf
    >>> import numpy as np
    >>> bilinear, (index, sign) = mmf.ops.compact_bilinear, ([0, 2], [1, -1])
    >>> x = jnp.array([[2.0, 3.0]])
    >>> sketch = bilinear.count_sketch(x, np.array(index), np.array(sign), 4)
    >>> sketch.tolist()
    [[2.0, 0.0, -3.0, 0.0]]
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from mmfusion_jax.types import Array

EPSILON = 1e-6
"""Added below the roots, whose gradient at 0 is infinite.

Much less would turn the rounding of the Fourier transform, 1e-7 of the largest element,
into a visible difference of elements that are 0.
"""


def count_sketch(x: Array, index: np.ndarray, sign: np.ndarray, size: int) -> Array:
    """Projects vectors to `size` elements by a hash of their positions.

        y_j = sum over i with index_i = j of sign_i x_i

    Args:
        x: (b d).
        index: (d) integers, 0..size-1.
        sign: (d), 1 or -1.
        size: Number of elements of a sketch.

    Returns:
        (b size).
    """
    sketch = jnp.zeros((len(x), size), x.dtype)
    return sketch.at[:, index].add(x * jnp.asarray(sign, x.dtype))


def random_hash(width: int, size: int, seed: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Returns a random index and sign for every element of a vector of `width`."""
    rng = np.random.default_rng(list(seed))
    return rng.integers(size, size=width), rng.choice([-1, 1], size=width)


def compact_bilinear(sketches: Array, present: Array) -> Array:
    """Sketch of the outer product of the vectors of several modalities, (b d).

        y = IFFT(prod_m FFT(s_m))

    Args:
        sketches: Count sketches s_m, (b m d) float32.
        present: (b m) bool; a missing modality is left out of the product.

    Returns:
        (b d); 0 where no modality is present.

    Reference:
        Fukui et al. 2016, Algorithm 1.
    """
    spectra = jnp.fft.rfft(jnp.where(present[..., None], sketches, 0))
    spectra = jnp.where(present[..., None], spectra, 1)
    # Not `jnp.prod`: its gradient at a zero costs a scan.
    product = functools.reduce(jnp.multiply, jnp.unstack(spectra, axis=1))
    y = jnp.fft.irfft(product, n=sketches.shape[-1])
    return jnp.where(jnp.any(present, axis=1)[:, None], y, 0)


def signed_root_norm(x: Array) -> Array:
    """Signed square root and normalization to unit length, (b d); 0 where `x` is.

        y = sign(x) sqrt(|x|),   y / ||y||

    Reference:
        Fukui et al. 2016, Sec. 3.2.
    """
    # The difference of roots, so that 0 stays 0.
    root = jnp.sqrt(jnp.abs(x) + EPSILON) - EPSILON**0.5
    y = jnp.sign(x) * root
    return y / jnp.sqrt(jnp.sum(jnp.square(y), axis=-1, keepdims=True) + EPSILON)
