"""The precision of all products of a model."""

import dataclasses
from typing import Any

import jax

from mmfusion_jax.types import Batch, Model, PyTree


@dataclasses.dataclass(frozen=True)
class WithMatmulPrecision:
    """A model whose products have a precision, where they do not state one.

    A TPU computes float32 products in one bfloat16 pass by default, and an NVIDIA GPU
    in TF32. Gradients of a product have its precision.

    Attributes:
        model: The model.
        precision: "default", "high" or "highest", see `jax.lax.Precision`.
    """

    model: Model
    precision: str

    def init(self, key: Any, batch: Batch, /, *, train: bool) -> PyTree:
        """Creates the variables."""
        with jax.default_matmul_precision(self.precision):
            return self.model.init(key, batch, train=train)

    def apply(self, variables: PyTree, batch: Batch, /, **kwargs: Any) -> Any:
        """Maps a Batch to Outputs; with `mutable`, also the updated variables."""
        # Read while tracing: `jax.jit` of a caller keeps it with the program.
        with jax.default_matmul_precision(self.precision):
            return self.model.apply(variables, batch, **kwargs)
