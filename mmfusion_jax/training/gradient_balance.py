"""Combines the gradients of several loss terms, as optax transformations.

Their updates are the gradients of all K weighted terms, trees whose leaves have a
leading axis of terms, (K ...); the result is one gradient, (...). A combination is
determined by the inner products of the gradients, so that the work beside these is that
of K x K numbers, and the gradients are read twice.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmfusion_jax.errors import ConfigError, shown
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.types import Array, PyTree

ORDER_KEY = 0x9C6D
"""Number that is folded into the key of a step for the order of the projections."""


def pcgrad() -> optax.GradientTransformationExtraArgs:
    """Removes the conflicting components of gradients, and adds them.

        for i: u_i = g_i; for j != i in random order:
            u_i = u_i - min(u_i . g_j, 0) / |g_j|^2 g_j
        g = sum_i u_i

    The g_i are the gradients of the weighted terms with respect to all parameters.
    Without a conflict, a negative product, the result is their sum. The order of the
    other terms matters where there are more than two; every term draws its own order at
    every step, from the key.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> balance = mmf.pcgrad()
        >>> gradients = {"w": jnp.array([[1.0, 0.0], [-1.0, 1.0]])}  # of two terms
        >>> key, weights = jax.random.key(0), jnp.ones(2)
        >>> found, _ = balance.update(
        ...     gradients, optax.EmptyState(), key=key, weights=weights
        ... )
        >>> found["w"].tolist()
        [0.5, 1.5]

    Returns:
        A transformation without a state, whose `update` takes `key`, and `weights`,
        which it does not use.

    Reference:
        Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, Algorithm 1.
    Deviation:
        The tasks of the paper have equal weights; here the gradients are those of the
        weighted terms. The size of a weight does not change whether two terms conflict.
    """

    def coefficients(products: Array, weights: Array, key: Array) -> Array:
        del weights
        count = len(products)
        keys = jax.random.split(key, count)

        # Row i has u_i in terms of the gradients: u_i = sum_j row_j g_j.
        def project(index: Array, key: Array) -> Array:
            def away_from(row: Array, other: Array) -> tuple[Array, None]:
                # Not a matrix product, which would be in bfloat16 on a TPU.
                product = jnp.sum(row * products[other])
                square = products[other, other]
                # A square may underflow to 0 where the product does not.
                conflict = (product < 0) & (square > 0) & (other != index)
                factor = product / jnp.where(conflict, square, 1)
                return row.at[other].add(jnp.where(conflict, -factor, 0)), None

            order = jax.random.permutation(key, count)
            return jax.lax.scan(away_from, jnp.eye(count)[index], order)[0]

        return jax.vmap(project)(jnp.arange(count), keys).sum(axis=0)

    return _combination(coefficients)


def normalize_gradients(reference: int) -> optax.GradientTransformationExtraArgs:
    """Scales gradients to norms in proportion to their weights, and adds them.

        g = sum_i (w_i / w_r) (|g_r| / |g_i|) g_i

    The g_i are the gradients of the weighted terms with respect to all parameters, w_i
    the weights, r the reference, such as the task: terms of equal weight have the norm
    of its gradient, one of half its weight half the norm. A term without a gradient is
    left out. If the gradient of the reference is 0, the result is 0.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> balance = mmf.normalize_gradients(reference=0)
        >>> gradients = {"w": jnp.array([[2.0, 0.0], [0.0, 30.0]])}  # of two terms
        >>> key, weights = jax.random.key(0), jnp.array([1.0, 0.5])
        >>> found, _ = balance.update(
        ...     gradients, optax.EmptyState(), key=key, weights=weights
        ... )
        >>> found["w"].tolist()
        [2.0, 1.0]

    Args:
        reference: Index of the term whose gradient keeps its norm.

    Returns:
        A transformation without a state, whose `update` takes `weights`, (K), and
        `key`, which it does not use; it raises ConfigError for an index without
        a gradient.

    Reference:
        Lin et al., Dual-Balancing for Multi-Task Learning, 2023, Sec. 3.2, which
        normalizes all gradients to one norm.
    Deviation:
        The norm is that of the reference at this step, not the largest one of running
        averages, so that the learning rate keeps its meaning; and the weights of the
        config hold. It is not GradNorm (Chen et al. 2018), which learns the weights.
    """

    def coefficients(products: Array, weights: Array, key: Array) -> Array:
        del key
        # An array takes the last entry for an index that is too large.
        if not 0 <= reference < len(products):
            raise ConfigError(
                "C10",
                f"reference={shown(reference)} is not the index of a gradient.",
                f"0 to {len(products) - 1:d}",
            )
        norms = jnp.sqrt(jnp.diagonal(products))
        # A schedule may give the reference a weight of 0, and so no gradient.
        scale = jnp.where(weights[reference] == 0, 1, weights[reference])
        wanted = jnp.abs(weights / scale) * norms[reference]
        # An infinite or NaN norm stays in the result: the step is then skipped.
        return jnp.where(norms == 0, 0, wanted / jnp.where(norms == 0, 1, norms))

    return _combination(coefficients)


def balance_gradients(
    balance: optax.GradientTransformationExtraArgs,
    grads: PyTree,
    weights: Array,
    state: TrainState,
) -> PyTree:
    """Returns the gradient that `balance` makes of those of the terms.

    Args:
        balance: A transformation without a state.
        grads: Gradients of the weighted terms, (K ...) each.
        weights: Weights of the terms, (K).
        state: Gives the key of the step, which is the same on all devices.
    """
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), ORDER_KEY)
    return balance.update(
        grads, optax.EmptyState(), state.params, weights=weights, key=key
    )[0]


def gradient_products(grads: PyTree) -> Array:
    """Computes the inner products of K gradients, (K K) float32.

    Args:
        grads: Tree whose leaves have a leading axis of gradients, (K ...).
    """
    leaves = [x.reshape(len(x), -1) for x in jax.tree.leaves(grads)]
    product = lambda x: jnp.matmul(x, x.T, precision="highest")
    return sum(map(product, leaves[1:]), product(leaves[0]))


def _combination(coefficients: Any) -> optax.GradientTransformationExtraArgs:
    """Returns the transformation that adds gradients with these coefficients.

    Args:
        coefficients: (products, weights, key) -> coefficient of each gradient, (K).
    """

    def init(params: PyTree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(updates: PyTree, state: Any, params: Any = None, **extra: Any):
        del params
        products = gradient_products(updates)
        factors = coefficients(products, extra["weights"], extra["key"])
        # In float32 everywhere: on a TPU the default is one pass in bfloat16.
        add = lambda x: jnp.tensordot(
            factors.astype(x.dtype), x, axes=1, precision="highest"
        )
        return jax.tree.map(add, updates), state

    return optax.GradientTransformationExtraArgs(init, update)
