"""Affine layers that start as PyTorch's do, as in the papers' released codes."""

from typing import Any

import flax.linen as nn
import jax

from mmfusion_jax.types import Array


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's first values of a Linear or Conv1d, weight and bias alike.

        U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))

    Args:
        fan_in: inputs of one output: the width, times the kernel's size if any.
    """
    bound = fan_in**-0.5

    def first_values(key: Array, shape: Any, dtype: Any = float, **_: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return first_values


xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
"""PyTorch's xavier_normal_; that of `nn.initializers` cuts the tails off."""


def torch_dense(
    fan_in: int,
    features: int,
    *,
    use_bias: bool = True,
    dtype: Any = None,
    kernel_init: nn.initializers.Initializer | None = None,
    name: str | None = None,
) -> nn.Dense:
    """A Dense layer of `fan_in` inputs that starts as PyTorch's Linear does.

    With `kernel_init` only the bias does.
    """
    start = torch_uniform(fan_in)
    return nn.Dense(
        features,
        use_bias,
        dtype=dtype,
        kernel_init=kernel_init or start,
        bias_init=start,
        name=name,
    )


def xavier_dense(x: Array, features: int, name: str, dtype: Any) -> Array:
    """A layer over (... d) whose kernel starts as `xavier_normal`, (... features)."""
    layer = torch_dense(
        x.shape[-1], features, dtype=dtype, kernel_init=xavier_normal, name=name
    )
    return layer(x)
