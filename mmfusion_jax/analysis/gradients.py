"""The gradient of every loss term by itself: how large, which way, in each module."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from mmfusion_jax.losses.objective import Objective
from mmfusion_jax.train.state import TrainState
from mmfusion_jax.types import Array, Batch, Model, PyTree

ALL_MODULES = "all"
"""The name under which all modules are taken together."""


class GradientSimilarity(struct.PyTreeNode):
    """How the gradients of K loss terms lie to one another, module by module.

    Attributes:
        norms: module -> length of each term's gradient, (K).
        cosines: module -> cosine of the angle between two terms, (K K); 0 where a term
            does not reach the module.
    """

    norms: Mapping[str, Array]
    cosines: Mapping[str, Array]


def term_values(
    model: Model,
    objective: Objective,
    state: TrainState,
    batch: Batch,
    *,
    train: bool = True,
) -> Array:
    """Every unweighted loss term of a batch, (K), in the order of the objective."""
    return _values(model, objective, state, batch, train)(state.params)


def term_gradients(
    model: Model,
    objective: Objective,
    state: TrainState,
    batch: Batch,
    *,
    train: bool = True,
) -> dict[str, PyTree]:
    """The gradient of each unweighted term with respect to the parameters.

    Weighted by `term_weights` and added, they are the gradient of training. The model
    runs forward once; each term then has its own way back.

    Args:
        model: maps a Batch to Outputs.
        objective: the loss terms.
        state: parameters, statistics, and the key and step that decide what dropout
            drops.
        batch: what to look at; a term that compares examples compares these.
        train: run the model as training does. Terms may need what a model builds in
            training alone.

    Returns:
        Name of a term -> a tree like `state.params`.
    """
    names = list(objective.terms)
    _, pull = jax.vjp(_values(model, objective, state, batch, train), state.params)
    rows = jax.lax.map(lambda one: pull(one)[0], jnp.eye(len(names)))
    return {
        name: jax.tree.map(lambda x, i=i: x[i], rows) for i, name in enumerate(names)
    }


def term_weights(objective: Objective, step: Array) -> Array:
    """What each term counts for at a training step, (K)."""
    weights = [term.weight for term in objective.terms.values()]
    numbers = [weight(step) if callable(weight) else weight for weight in weights]
    return jnp.stack([jnp.asarray(x, jnp.float32) for x in numbers])


def gradient_similarity(gradients: Mapping[str, PyTree]) -> GradientSimilarity:
    """Norms and cosines for every module, and for "all" of them.

    Args:
        gradients: name of a term -> a tree whose first level are the modules. The
            terms keep their order; mind that jit returns a mapping sorted by name.
    """
    terms = list(gradients.values())
    products = {
        module: _products([term[module] for term in terms]) for module in terms[0]
    }
    products[ALL_MODULES] = sum(products.values(), jnp.zeros((len(terms),) * 2))
    norms = {name: jnp.sqrt(jnp.diagonal(p)) for name, p in products.items()}
    return GradientSimilarity(
        norms, {name: _cosines(p) for name, p in products.items()}
    )


def _values(
    model: Model, objective: Objective, state: TrainState, batch: Batch, train: bool
):
    """Maps parameters to the values of all terms, (K)."""
    key = jax.random.fold_in(state.key, state.step)

    def values(params: PyTree) -> Array:
        outputs = model.apply(
            {"params": params, "batch_stats": state.stats},
            batch,
            train=train,
            mutable=["batch_stats"] if train else [],
            rngs={"dropout": key} if train else None,
        )[0]
        found = [objective.value(name, outputs, batch) for name in objective.terms]
        return jnp.stack(found)

    return values


def _products(trees: list[PyTree]) -> Array:
    """The inner products of K trees, (K K)."""
    leaves = zip(*map(jax.tree.leaves, trees), strict=True)
    rows = (jnp.stack([x.ravel() for x in same]) for same in leaves)
    return sum((row @ row.T for row in rows), jnp.zeros((len(trees),) * 2))


def _cosines(products: Array) -> Array:
    """Inner products over the lengths; 0 where a length is 0."""
    square = jnp.diagonal(products)
    lengths = jnp.sqrt(square)[:, None] * jnp.sqrt(square)[None, :]
    return jnp.where(lengths > 0, products / jnp.where(lengths > 0, lengths, 1), 0.0)
