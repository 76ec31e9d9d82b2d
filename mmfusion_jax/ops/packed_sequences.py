"""Sequences of several units, one behind the other in one array."""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from mmfusion_jax.types import Array


@dataclasses.dataclass(frozen=True)
class PackedSequences:
    """Where each unit's tokens lie.

    Attributes:
        sizes: number of tokens of every unit, u of them; n is their sum.
    """

    sizes: tuple[int, ...]

    def join(self, parts: Sequence[Array]) -> Array:
        """Arrays (b n_u ...) in one, (b n ...)."""
        return jnp.concatenate(parts, axis=1)

    def cut(self, x: Array) -> list[Array]:
        """`x` (b n ...) in parts (b n_u ...)."""
        return jnp.split(x, np.cumsum(self.sizes)[:-1], axis=1)

    def spread(self, vectors: Array) -> Array:
        """The vector of every token's unit: (u d) to (n d)."""
        unit = np.repeat(np.eye(len(self.sizes)), self.sizes, axis=0)
        unit = jnp.asarray(unit, vectors.dtype)
        # A product, as its gradient is one too; that of taking rows is a slow scatter.
        return jnp.matmul(unit, vectors, precision=jax.lax.Precision.HIGHEST)

    def linear(self, x: Array, kernels: Array, biases: Array | None = None) -> Array:
        """Every unit's matrix on its tokens: x (b n d), kernels (u d e), (b n e)."""
        parts = zip(self.cut(x), kernels, strict=True)
        y = self.join([part @ kernel for part, kernel in parts])
        return y if biases is None else y + self.spread(biases)
