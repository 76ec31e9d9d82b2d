"""The precision of products in backward passes that are written by hand."""

import functools
from collections.abc import Callable
from typing import Any

import jax


def keep_matmul_precision(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `function` with JAX's default matmul precision of now, whenever it runs.

    `jax.default_matmul_precision` applies to what is traced inside it. A backward pass
    is traced later, and would lose the precision of its forward pass; the derivatives
    that JAX has for products keep it.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from mmfusion_jax.ops.matmul_precision import keep_matmul_precision
        >>> with jax.default_matmul_precision("highest"):
        ...     product = keep_matmul_precision(jnp.matmul)
        >>> x = jnp.ones((2, 2))
        >>> "HIGHEST" in str(jax.make_jaxpr(product)(x, x))
        True

    Args:
        function: Function of arrays.
    """
    precision = _current()

    @functools.wraps(function)
    def kept(*args: Any, **kwargs: Any) -> Any:
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return kept


def _current() -> Any:
    """Returns JAX's default matmul precision, None if it is not set."""
    return jax.config.jax_default_matmul_precision  # pyright: ignore
