"""Sequences of several units, concatenated in one array."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.types import Array


@dataclasses.dataclass(frozen=True)
class PackedSequences:
    """Layout of the concatenated tokens.

    Attributes:
        sizes: Number of tokens of each of the u units; n is their sum.
    """

    sizes: tuple[int, ...]

    def join(self, parts: Sequence[Array]) -> Array:
        """Concatenates arrays (b n_u ...) to (b n ...)."""
        return jnp.concatenate(parts, axis=1)

    def split(self, x: Array) -> list[Array]:
        """Splits `x` (b n ...) into parts (b n_u ...)."""
        return jnp.split(x, np.cumsum(self.sizes)[:-1], axis=1)

    def repeat(self, vectors: Array) -> Array:
        """Repeats the vector of each unit for its tokens: (u d) to (n d)."""
        one_hot = np.repeat(np.eye(len(self.sizes)), self.sizes, axis=0)
        one_hot = jnp.asarray(one_hot, vectors.dtype)
        # The gradient of this product is a product; that of a gather is a slow scatter.
        return jnp.matmul(one_hot, vectors, precision=jax.lax.Precision.HIGHEST)

    def linear(self, x: Array, kernels: Array, biases: Array | None = None) -> Array:
        """Applies each unit's matrix, (u d e), to its tokens: (b n d) to (b n e)."""
        # A product per unit: one batched product would need units of the same length.
        parts = zip(self.split(x), kernels, strict=True)
        y = self.join([part @ kernel for part, kernel in parts])
        return y if biases is None else y + self.repeat(biases)
