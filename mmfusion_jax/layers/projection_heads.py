"""Projection heads for contrastive learning (MCL-MCF)."""

import math
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.layers.linear import xavier_dense
from mmfusion_jax.ops.contrastive import l2_normalize
from mmfusion_jax.types import Array

TAU = math.log(1 / 0.07)


class ProjectionHeads(nn.Module):
    """Projects two views to the space in which InfoNCE compares them.

        x' = l2norm(W_x x + b_x),   y' = l2norm(W_y y + b_y)          (Algorithm 1)

    Parameters: `x`, `y`, and `tau` with learnable_scale.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> layer = mmf.layers.ProjectionHeads(output_dim=4)
        >>> (x, y), variables = layer.init_with_output(
        ...     jax.random.key(0), jnp.ones((2, 8)), jnp.ones((2, 6))
        ... )
        >>> x.shape, y.shape
        ((2, 4), (2, 4))

    Attributes:
        output_dim: Width of the common space.
        variant: "paper", or "released_code", which normalizes y before its projection
            and not after; its loss has the scale ln(1 / 0.07), and biases start at
            PyTorch's default instead of 0.
        learnable_scale: Multiply x' by exp(tau), with tau learned from ln(1 / 0.07);
            the loss then has the scale 1.
        dtype: Dtype of the projections; None keeps the input's.

    Reference:
        MCL-MCF, Algorithm 1.
    Deviation:
        The paper's initialization is Xavier, which biases cannot have: ours are 0. A
        default bias is larger than the projection of a view with small elements, and
        after the normalization all examples would be nearly equal.
    """

    output_dim: int = 128
    variant: Literal["paper", "released_code"] = "paper"
    learnable_scale: bool = False
    dtype: Any = None

    @nn.compact
    def __call__(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Maps (b d) and (b e) to two arrays (b k), float32 or wider."""

        def project(z: Array, name: str) -> Array:
            projected = xavier_dense(
                z,
                self.output_dim,
                name,
                self.dtype,
                default_bias=self.variant == "released_code",
            )
            return projected.astype(jnp.promote_types(projected.dtype, jnp.float32))

        left = l2_normalize(project(x, "x"))
        if self.variant == "released_code":
            right = project(l2_normalize(y), "y")
        else:
            right = l2_normalize(project(y, "y"))
        if self.learnable_scale:
            # One factor suffices, since only inner products of left and right are used.
            left = left * jnp.exp(self.param("tau", nn.initializers.constant(TAU), ()))
        return left, right
