"""Per-loss gradients: norms and cosine similarities for each module."""

from collections.abc import Callable, Iterable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax import struct

from mmfusion_jax.errors import ConfigError, join_names, shown, shown_name
from mmfusion_jax.losses.objective import CHANCE, Objective
from mmfusion_jax.training.batch_gradient import (
    gradients_of_each,
    make_batch_gradient,
    step_key,
)
from mmfusion_jax.training.gradient_balance import gradient_products
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.training.step import as_in_training
from mmfusion_jax.types import Array, Batch, Model, Outputs, PyTree

ALL_MODULES = "all"
"""Name of the entry for all modules together."""


class GradientSimilarity(struct.PyTreeNode):
    """Norms and cosine similarities of the gradients of K loss terms, by module.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> similarity = mmf.gradient_similarity(
        ...     {"task": {"head": jnp.array([3.0, 4.0])}}
        ... )
        >>> similarity.norms["head"].tolist(), similarity.cosines["all"].tolist()
        ([5.0], [[1.0]])

    Attributes:
        norms: Module -> norm of the gradient of each term, (K).
        cosines: Module -> cosine similarity of two terms, (K K); 0 if a term has no
            gradient in the module, NaN if its norm is not finite.
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
    """Computes the unweighted loss terms of a batch, (K), in the objective's order.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.ConcatFC(
        ...     {"audio": mmf.encoders.Precomputed()}, 2, hidden_dims=(4,)
        ... )
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> mmf.analysis.term_values(model, objective, state, batch).shape
        (1,)
    """
    return term_function(model, objective, state, batch, train)(state.params)


def term_gradients(
    model: Model,
    objective: Objective,
    state: TrainState,
    batch: Batch,
    *,
    train: bool = True,
) -> dict[str, PyTree]:
    """Computes the gradient of each unweighted term with respect to the parameters.

    Their sum, weighted with `term_weights`, is the gradient of training. The model has
    one forward pass; each term has a separate backward pass.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.ConcatFC(
        ...     {"audio": mmf.encoders.Precomputed()}, 2, hidden_dims=(4,)
        ... )
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> gradients = mmf.term_gradients(model, objective, state, batch)
        >>> jax.tree.map(jnp.shape, gradients["task"]["head"])
        {'bias': (2,), 'kernel': (4, 2)}

    Args:
        model: Maps a Batch to Outputs.
        objective: Loss terms.
        state: Parameters, statistics, and the key and step that determine dropout.
        batch: Examples; a term that compares examples compares these.
        train: Run the model in training mode, since terms may need outputs that only
            training builds.

    Returns:
        Name of a term -> tree like `state.params`.
    """
    names = list(objective.terms)

    def values(params: PyTree):
        outputs = _outputs(model, state, batch, train, params)
        return [objective.value(name, outputs, batch) for name in names], None

    return dict(zip(names, gradients_of_each(values, state.params)[0], strict=True))


def make_gradient_stats(
    model: Model,
    objective: Objective,
    axis: str | None = None,
    gradient_accumulation_steps: int = 1,
    steps: int = 1,
    modalities: tuple[str, ...] = (),
) -> Callable[[TrainState, Batch], GradientSimilarity]:
    """Creates the function that compares the gradients of a training step by term.

    The gradients are those of the weighted terms, so that their sum is the gradient of
    the step, with its dropout, its BatchNorm statistics and its devices.
    Terms whose weight is the number 0 are left out. It is not compiled, and has no
    effect on the training.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.Unimodal({"audio": mmf.encoders.Precomputed()}, 2)
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> stats = jax.jit(mmf.analysis.make_gradient_stats(model, objective))
        >>> stats(state, batch).norms["all"].shape
        (1,)

    Args:
        model: Maps a Batch to Outputs.
        objective: Loss terms, whose order is that of the results.
        axis: Axis of pmap or shard_map; None under jit.
        gradient_accumulation_steps: See `make_train_step`.
        steps: See `make_train_step`.
        modalities: See `make_train_step`.
    """
    compute = make_batch_gradient(
        model, objective, axis, gradient_accumulation_steps, by_term=True
    )

    def stats(state: TrainState, batch: Batch) -> GradientSimilarity:
        batch = as_in_training(batch, state.step / steps, modalities)
        _, results = compute(state, step_key(state, axis), batch)
        grads = results.grads
        if axis is not None:
            grads = jax.lax.pmean(grads, axis)
        return _similarity({k: gradient_products(v) for k, v in grads.items()})

    return stats


def term_weights(objective: Objective, step: Array) -> Array:
    """Returns the weight of each term at a training step, (K).

    Example:
        >>> import mmfusion_jax as mmf
        >>> terms = {"task": mmf.WeightedLoss(mmf.losses.L1("score"), 0.5)}
        >>> mmf.analysis.term_weights(mmf.Objective(terms), step=0).tolist()
        [0.5]
    """
    weights = [term.weight for term in objective.terms.values()]
    values = [weight(step) if callable(weight) else weight for weight in weights]
    return jnp.stack([jnp.asarray(x, jnp.float32) for x in values])


def gradient_similarity(gradients: Mapping[str, PyTree]) -> GradientSimilarity:
    """Computes norms and cosines for every module, and for "all" of them.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> gradients = {
        ...     "task": {"head": jnp.array([3.0, 4.0])},
        ...     "l1": {"head": jnp.array([-3.0, -4.0])},
        ... }
        >>> similarity = mmf.gradient_similarity(gradients)
        >>> similarity.norms["head"].tolist(), similarity.cosines["head"][0].tolist()
        ([5.0, 5.0], [1.0, -1.0])

    Args:
        gradients: Name of a term -> tree whose first level is the modules, the same of
            every term. The terms keep their order; note that jit returns a mapping
            sorted by name.

    Raises:
        ConfigError: `gradients` is empty, or the modules of the terms differ.
    """
    terms = list(gradients.values())
    if not terms:
        raise ConfigError("C10", "gradients is empty.", "the gradient of each term")
    first = next(iter(gradients))
    for name, term in gradients.items():
        check_modules(term)
        if term.keys() != terms[0].keys():
            raise ConfigError(
                "C10",
                f"gradients: {shown_name(name)} has the modules {join_names(term)}, "
                f"and {shown_name(first)} has {join_names(terms[0])}.",
                "the same modules for every term",
            )
    products = {
        module: _products([term[module] for term in terms]) for module in terms[0]
    }
    return _similarity(products)


def check_modules(modules: Iterable[str]) -> None:
    """Raises ConfigError unless there are modules, none of them named "all"."""
    modules = list(modules)
    if not modules:
        raise ConfigError("C10", "The tree has no modules.", "a tree of parameters")
    if ALL_MODULES in modules:
        raise ConfigError(
            "C10",
            f"A module is named {shown(ALL_MODULES)}, the entry for all modules.",
            "another name for the module",
        )


def _similarity(products: Mapping[str, Array]) -> GradientSimilarity:
    """Returns norms and cosines of inner products, (K K) for every module."""
    total = sum(products.values(), jnp.zeros_like(next(iter(products.values()))))
    products = {**products, ALL_MODULES: total}
    norms = {name: jnp.sqrt(jnp.diagonal(p)) for name, p in products.items()}
    return GradientSimilarity(
        norms, {name: _cosines(p) for name, p in products.items()}
    )


def term_norms(
    model: Model, objective: Objective, state: TrainState, batch: Batch
) -> dict[str, dict[str, Array]]:
    """Computes value, chance level and gradient norm of each term in training mode.

    Example:
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> import optax
        >>> mask, labels = jnp.ones((2, 5), bool), {"emotion": jnp.array([0, 1])}
        >>> batch = mmf.Batch({"audio": jnp.ones((2, 5, 4))}, {"audio": mask}, labels)
        >>> model = mmf.models.Unimodal({"audio": mmf.encoders.Precomputed()}, 2)
        >>> objective = mmf.Objective(
        ...     {"task": mmf.WeightedLoss(mmf.losses.CrossEntropy("emotion"))}
        ... )
        >>> state = mmf.create_state(model, optax.adam(1e-3), batch, jax.random.key(0))
        >>> sorted(mmf.analysis.term_norms(model, objective, state, batch)["task"])
        ['norm', 'value', 'weight']

    Args:
        model: Maps a Batch to Outputs.
        objective: Loss terms.
        state: Parameters, statistics, and the key and step that determine dropout.
        batch: Examples.

    Returns:
        Name of a term -> "value" (), "weight" () at this step, "norm" () of the
        gradient of the unweighted term with respect to all parameters, and "chance" ()
        for a term that has a chance level. A term of weight 0 is left out.
    """
    terms = {k: v for k, v in objective.terms.items() if callable(v.weight) or v.weight}
    active, names = Objective(terms), list(terms)

    def values(params: PyTree):
        outputs = _outputs(model, state, batch, True, params)
        stacked = jnp.stack([active.value(name, outputs, batch) for name in names])
        return stacked, active.chance_levels(outputs, batch, names)

    found, pull, chances = jax.vjp(values, state.params, has_aux=True)
    # One norm at a time, so that one gradient is in memory and not one for each term.
    norms = jax.lax.map(lambda one: optax.tree.norm(pull(one)[0]), jnp.eye(len(names)))
    weights = term_weights(active, state.step)
    made = {
        name: {"value": value, "norm": norm, "weight": weight}
        for name, value, norm, weight in zip(names, found, norms, weights, strict=True)
    }
    for name, chance in chances.items():
        made[name.removesuffix(f"/{CHANCE}")][CHANCE] = chance
    return made


def term_function(
    model: Model, objective: Objective, state: TrainState, batch: Batch, train: bool
) -> Callable[[PyTree], Array]:
    """Returns a function from parameters to the values of all terms, (K)."""

    def values(params: PyTree) -> Array:
        outputs = _outputs(model, state, batch, train, params)
        terms = [objective.value(name, outputs, batch) for name in objective.terms]
        return jnp.stack(terms)

    return values


def _outputs(
    model: Model, state: TrainState, batch: Batch, train: bool, params: PyTree
) -> Outputs:
    """Returns the outputs of the model, with the dropout of the step of `state`."""
    key = jax.random.fold_in(state.key, state.step)
    return model.apply(
        {"params": params, "batch_stats": state.stats},
        batch,
        train=train,
        mutable=["batch_stats"] if train else [],
        rngs={"dropout": key} if train else None,
    )[0]


def _products(trees: list[PyTree]) -> Array:
    """Inner products of K trees, (K K)."""
    return gradient_products(jax.tree.map(lambda *same: jnp.stack(same), *trees))


def _cosines(products: Array) -> Array:
    """Inner products divided by the norms; 0 where a norm is 0."""
    norms = jnp.sqrt(jnp.diagonal(products))
    # A term without a gradient in a module has norm 0. Not scale > 0, which would make
    # 0 of NaN, and a finite product divided by an infinite norm would be 0.
    scale = norms[:, None] * norms[None, :]
    cosines = jnp.where(scale == 0, 0.0, products / jnp.where(scale == 0, 1, scale))
    return jnp.where(jnp.isfinite(scale), cosines, jnp.nan)
