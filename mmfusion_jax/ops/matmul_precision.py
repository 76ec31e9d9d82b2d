"""The precision of products in backward passes that are written by hand."""

import dataclasses
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


def with_forward_precision(
    forward: Callable[..., tuple[Any, Any]], backward: Callable[..., Any]
) -> tuple[Callable[..., tuple[Any, Any]], Callable[..., Any]]:
    """Returns the arguments of `defvjp`, the backward pass with the same precision.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> from mmfusion_jax.ops.matmul_precision import with_forward_precision
        >>> product = jax.custom_vjp(lambda x, w: x @ w)
        >>> product.defvjp(
        ...     *with_forward_precision(
        ...         lambda x, w: (x @ w, (x, w)),
        ...         lambda saved, dy: (dy @ saved[1].T, saved[0].T @ dy),
        ...     )
        ... )
        >>> def loss(x):
        ...     with jax.default_matmul_precision("highest"):
        ...         return jnp.sum(product(x, x))
        >>> str(jax.make_jaxpr(jax.grad(loss))(jnp.ones((2, 2)))).count(
        ...     "precision=Precision.HIGHEST"
        ... ) in (0, 3)
        True

    Args:
        forward: First argument of `defvjp`.
        backward: Second argument of `defvjp`.
    """

    @functools.wraps(forward)
    def saving(*args: Any) -> tuple[Any, Any]:
        y, saved = forward(*args)
        return y, (saved, _Precision(_current()))

    @functools.wraps(backward)
    def restored(*args: Any) -> Any:
        *static, (saved, precision), dy = args
        with jax.default_matmul_precision(precision.name):
            return backward(*static, saved, dy)

    return saving, restored


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Precision:
    """A precision among the arrays that a forward pass saves."""

    name: Any


def _current() -> Any:
    """Returns JAX's default matmul precision, None if it is not set."""
    return jax.config.jax_default_matmul_precision  # pyright: ignore
