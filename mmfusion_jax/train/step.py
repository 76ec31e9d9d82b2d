"""The training step and the evaluation step: pure, not compiled, one of each."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from mmfusion_jax.losses.objective import TASK, Objective
from mmfusion_jax.tasks import Scores
from mmfusion_jax.train.state import TrainState
from mmfusion_jax.types import WEIGHT_PREFIX, Array, Batch, Model, Outputs, PyTree

LOGGED_PREFIX = "active/"
"""How the names of aux begin whose means are logged."""

Metrics: TypeAlias = dict[str, Array]
Step: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    model: Model,
    objective: Objective,
    tx: optax.GradientTransformation,
    axis: str | None = None,
    accumulate: int = 1,
    steps: int = 1,
    modalities: tuple[str, ...] = (),
) -> Step:
    """Closes over what is fixed; the returned step sees arrays alone.

    It is not compiled: the caller picks `jax.jit` and shardings, or `jax.pmap`.

    A step whose loss or gradient is not finite leaves weights, statistics and
    optimizer as they were; it is counted in `bad_steps`, and the entries "bad/..." of
    the metrics name every loss term, module and modality that was not finite;
    "bad/in_a_row" counts.

    What a model gives as aux named "active/...", (b), such as the part of its units
    that a relu leaves, is averaged over the real examples into the metrics.

    Args:
        model: maps a Batch to Outputs.
        objective: maps Outputs and a Batch to the loss and its named parts.
        tx: the optimizer.
        axis: the pmap axis to average over; None under jit, where every
            reduction already spans the global batch.
        accumulate: parts into which a batch is cut to save memory; their gradients
            are added with the weights of their examples. Terms that compare
            examples, and BatchNorm, see one part at a time.
        steps: of the whole run, for `Batch.progress`.
        modalities: that the model reads; an example that has none of them counts for
            nothing. Without any, all count.
    """

    def loss_fn(params: PyTree, stats: PyTree, key: Array, step: Array, batch: Batch):
        outputs, updated = model.apply(
            {"params": params, "batch_stats": stats},
            batch,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        loss, terms = objective(outputs, batch, step, axis)
        watched = _watched(outputs, batch, axis)
        return loss, (terms, watched, updated.get("batch_stats", {}))

    gradient = jax.value_and_grad(loss_fn, has_aux=True)

    def whole(state: TrainState, key: Array, batch: Batch):
        (loss, (terms, watched, stats)), grads = gradient(
            state.params, state.stats, key, state.step, batch
        )
        return stats, (loss, terms, watched, grads)

    def in_parts(state: TrainState, key: Array, batch: Batch):
        total = jnp.maximum(_global_sum(batch.weight, axis), 1e-9)

        def part(carry, numbered):
            index, rows = numbered
            stats, sums = carry
            (loss, (terms, watched, stats)), grads = gradient(
                state.params, stats, jax.random.fold_in(key, index), state.step, rows
            )
            found = loss, terms, watched, grads
            share = _global_sum(rows.weight, axis) / total
            add = lambda total, x: total + share * x
            return (stats, jax.tree.map(add, sums, found)), None

        parts = (jnp.arange(accumulate), _cut(batch, accumulate))
        first = jax.tree.map(lambda x: x[0], parts[1])
        shapes = jax.eval_shape(whole, state, key, first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(part, (state.stats, zeros[1]), parts)[0]

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        if axis is not None:  # or every device would draw the same dropout mask
            key = jax.random.fold_in(key, jax.lax.axis_index(axis))
        batch = as_in_training(batch, state.step / steps, modalities)
        compute = whole if accumulate == 1 else in_parts
        stats, found = compute(state, key, batch)
        if axis is not None:
            stats, found = jax.lax.pmean((stats, found), axis)
        loss, terms, watched, grads = found
        grad_norm = optax.tree.norm(grads)
        good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)

        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if_good = lambda new, old: jax.tree.map(
            lambda n, o: jnp.where(good, n, o), new, old
        )
        bad = 1 - good.astype(jnp.int32)
        state = state.replace(
            step=state.step + 1,
            params=if_good(params, state.params),
            stats=if_good(stats, state.stats),
            opt_state=if_good(opt_state, state.opt_state),
            bad_steps={
                "in_a_row": (state.skipped_steps["in_a_row"] + 1) * bad,
                "total": state.skipped_steps["total"] + bad,
            },
        )
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "bad/in_a_row": state.skipped_steps["in_a_row"],
        }
        metrics |= {f"loss/{name}": value for name, value in terms.items()} | watched
        return state, metrics | _not_finite(terms, grads, batch, axis)

    return step


def make_eval_step(
    model: Model,
    objective: Objective,
    scores: Scores,
    modalities: tuple[str, ...] = (),
) -> Callable[[PyTree, Batch], PyTree]:
    """Maps variables and a batch to what is known of each of its examples.

    The result holds what `scores` collects under "collected", (b ...) each, and aux
    named "share/..."; the weight of the examples, (b); and the mean of the task's loss
    term over the real ones, ().
    The other terms compare or regularize what a model builds in training alone.

    An example that has none of `modalities`, those that the model reads, is answered
    with `variables["prior"]`, a prediction (k), if that is there.
    """

    def step(variables: PyTree, batch: Batch) -> PyTree:
        known = {k: v for k, v in variables.items() if k != "prior"}
        outputs: Outputs = model.apply(known, batch, train=False)
        if modalities and "prior" in variables:
            outputs = _answered(
                outputs, batch.has_any_modality(*modalities), variables["prior"]
            )
        said = {k: v for k, v in outputs.aux.items() if k.startswith(WEIGHT_PREFIX)}
        return {
            "collected": {**said, **scores.collect(outputs, batch)},
            "weight": batch.weight,
            "loss": objective.value(TASK, outputs, batch),
        }

    return step


def _answered(outputs: Outputs, seen: Array, prior: Array) -> Outputs:
    """The outputs with the prior in the place of predictions from nothing."""
    said = outputs.prediction
    seen = seen.reshape(seen.shape + (1,) * (said.ndim - 1))
    return outputs.replace(prediction=jnp.where(seen, said, prior.astype(said.dtype)))


def as_in_training(batch: Batch, progress: Array, modalities: tuple[str, ...]) -> Batch:
    """The batch as the training step shows it to the model.

    Args:
        batch: as the pipeline made it.
        progress: how much of the training is done, 0..1.
        modalities: that the model reads; () for no matter which.
    """
    return _counted(_dated(batch, progress), modalities)


def _dated(batch: Batch, progress: Array) -> Batch:
    """The batch with how much of the training is done, which never passes 1."""
    done = jnp.minimum(progress, 1.0)
    return batch.replace(progress=jnp.full_like(batch.weight, done))


def _counted(batch: Batch, modalities: tuple[str, ...]) -> Batch:
    """The batch in which examples without any of `modalities` have weight 0."""
    if not modalities:
        return batch
    return batch.replace(weight=batch.weight * batch.has_any_modality(*modalities))


def _watched(outputs: Outputs, batch: Batch, axis: str | None) -> dict[str, Array]:
    """The means of the aux that are there to be looked at, over the global batch."""
    kept = {k: v for k, v in outputs.aux.items() if k.startswith(LOGGED_PREFIX)}
    total = jnp.maximum(_global_sum(batch.weight, axis), 1e-9)
    rows = lambda x: jnp.where(batch.weight > 0, x, 0) * batch.weight
    return {k: _global_sum(rows(x), axis) / total for k, x in kept.items()}


def _global_sum(x: Array, axis: str | None) -> Array:
    """The sum of `x` over the global batch."""
    total = jnp.sum(x)
    return total if axis is None else jax.lax.psum(total, axis)


def _cut(batch: Batch, parts: int) -> Batch:
    """Every leaf (b ...) as (parts b/parts ...); a part takes rows of every device."""

    def cut(x: Array) -> Array:
        rows = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    return jax.tree.map(cut, batch)


def _not_finite(
    terms: dict[str, Array], grads: Any, batch: Batch, axis: str | None
) -> Metrics:
    """What is not finite, by name, () bool each."""
    flags = {f"loss/{k}": ~jnp.isfinite(v) for k, v in terms.items()}
    for name, tree in grads.items():
        flags[f"gradient/{name}"] = ~jnp.isfinite(optax.tree.norm(tree))
    for name, x in batch.inputs.items():
        if jnp.issubdtype(x.dtype, jnp.floating):
            real = batch.valid_mask(name).reshape(x.shape[:2] + (1,) * (x.ndim - 2))
            bad = jnp.sum(real & ~jnp.isfinite(x))
            flags[f"input/{name}"] = _global_sum(bad, axis) > 0
    return {f"bad/{name}": flag for name, flag in flags.items()}
