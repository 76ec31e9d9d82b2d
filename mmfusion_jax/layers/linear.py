"""Dense layers with PyTorch's default initialization, as in the released codes."""

from typing import Any

import flax.linen as nn
import jax

from mmfusion_jax.types import Array


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """PyTorch's default initializer for weight and bias of Linear and Conv1d.

        U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))

    Args:
        fan_in: Inputs per output: input width times kernel size.
    """
    # PyTorch calls kaiming_uniform_ with a = sqrt(5), whose bound is this one.
    bound = fan_in**-0.5

    def init(key: Array, shape: Any, dtype: Any = float, **_: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


xavier_normal = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")
"""PyTorch's xavier_normal_; the one in `nn.initializers` is truncated."""

stacked_xavier_normal = nn.initializers.variance_scaling(
    1.0, "fan_avg", "normal", batch_axis=0
)
"""`xavier_normal` for several kernels in one array, along its first axis."""


def torch_dense(
    fan_in: int,
    features: int,
    *,
    use_bias: bool = True,
    dtype: Any = None,
    kernel_init: nn.initializers.Initializer | None = None,
    name: str | None = None,
) -> nn.Dense:
    """Dense layer with PyTorch's default initialization.

    Args:
        fan_in: Number of inputs.
        features: Number of outputs.
        use_bias: Add a bias.
        dtype: Dtype of the computation; None keeps the input's.
        kernel_init: Initializer of the kernel; None for PyTorch's default.
        name: Name of the layer.
    """
    init = torch_uniform(fan_in)
    return nn.Dense(
        features,
        use_bias,
        dtype=dtype,
        kernel_init=kernel_init or init,
        bias_init=init,
        name=name,
    )


def zero_bias_dense(
    features: int, *, use_bias: bool = True, dtype: Any = None, name: str | None = None
) -> nn.Dense:
    """Dense layer with Xavier initialization, whose bias is 0 initially.

    PyTorch's default bias does not depend on the input. It is larger than the product
    with a small one, and all examples then have nearly the same output.

    Args:
        features: Number of outputs.
        use_bias: Add a bias.
        dtype: Dtype of the computation; None keeps the input's.
        name: Name of the layer.
    """
    return nn.Dense(
        features, use_bias, dtype=dtype, kernel_init=xavier_normal, name=name
    )


def xavier_dense(
    x: Array, features: int, name: str, dtype: Any, *, default_bias: bool = False
) -> Array:
    """Applies a Dense layer with Xavier initialization, (... d) to (... features).

    Args:
        x: Input, (... d).
        features: Number of outputs.
        name: Name of the layer.
        dtype: Dtype of the computation; None keeps the input's.
        default_bias: Initialize the bias with PyTorch's default; 0 if False.
    """
    if not default_bias:
        return zero_bias_dense(features, dtype=dtype, name=name)(x)
    layer = torch_dense(
        x.shape[-1], features, dtype=dtype, kernel_init=xavier_normal, name=name
    )
    return layer(x)
