"""The gradient of a batch: of the objective, or of each of its terms."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.types import Array, Batch, Model, Outputs, PyTree

LOGGED_PREFIX = "log/"
"""Prefix of the auxiliary outputs whose means are logged."""


class BatchResults(NamedTuple):
    """Loss and gradient of a batch, or of the part of it on one device.

    Attributes:
        loss: The objective, ().
        terms: Name -> unweighted term, () each.
        logged: Name -> mean of a logged auxiliary output, () each.
        grads: Gradient, a tree like the parameters; by term, every leaf has a leading
            axis of the active terms, whose sum is the gradient of the objective.
    """

    loss: Array
    terms: dict[str, Array]
    logged: dict[str, Array]
    grads: PyTree


BatchGradient: TypeAlias = Callable[
    [TrainState, Array, Batch], tuple[PyTree, BatchResults]
]
"""(state, key of the step, batch) -> updated statistics of BatchNorm, and results."""


def make_batch_gradient(
    model: Model,
    objective: Objective,
    axis: str | None = None,
    gradient_accumulation_steps: int = 1,
    *,
    by_term: bool = False,
) -> BatchGradient:
    """Creates the function that computes loss and gradient in training mode.

    Args:
        model: Maps a Batch to Outputs.
        objective: Maps Outputs and a Batch to the loss and its terms.
        axis: Axis of pmap or shard_map; None under jit. Results are those of one
            device: the mean over the devices is that of the batch.
        gradient_accumulation_steps: Number of parts into which a batch is split.
        by_term: Compute the gradient of every weighted term, with one forward pass.
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
        logged = _logged_means(outputs, batch, axis)
        return loss, (terms, logged, updated.get("batch_stats", {}))

    # Averaged over devices afterwards, by the caller: pmean of the loss inside the
    # gradient gives wrong gradients under pmap, since its transpose adds the devices
    # again.
    gradient = jax.value_and_grad(loss_fn, has_aux=True)
    if by_term:
        gradient = _gradient_by_term(loss_fn, objective)

    def full_batch(state: TrainState, key: Array, batch: Batch):
        (loss, (terms, logged, stats)), grads = gradient(
            state.params, state.stats, key, state.step, batch
        )
        return stats, BatchResults(loss, terms, logged, grads)

    def accumulated(state: TrainState, key: Array, batch: Batch):
        total = jnp.maximum(global_sum(batch.weight, axis), 1e-9)

        # Each part has its own dropout key, and starts from the BatchNorm statistics of
        # the part before. Its results are weighted with its fraction of the valid
        # examples, so that padding, which may all be in one part, does not count.
        def part(carry, numbered):
            index, rows = numbered
            stats, sums = carry
            (loss, (terms, logged, stats)), grads = gradient(
                state.params, stats, jax.random.fold_in(key, index), state.step, rows
            )
            results = BatchResults(loss, terms, logged, grads)
            fraction = global_sum(rows.weight, axis) / total
            add = lambda total, x: total + fraction * x
            return (stats, jax.tree.map(add, sums, results)), None

        count = gradient_accumulation_steps
        parts = jnp.arange(count), _split_batch(batch, count)
        first = jax.tree.map(lambda x: x[0], parts[1])
        # The carry of a scan needs its shapes before the first part is computed.
        shapes = jax.eval_shape(full_batch, state, key, first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        return jax.lax.scan(part, (state.stats, zeros[1]), parts)[0]

    return full_batch if gradient_accumulation_steps == 1 else accumulated


def _gradient_by_term(loss_fn: Callable[..., Any], objective: Objective):
    """Returns `value_and_grad` of a loss, with the gradient of each weighted term."""

    def gradient(params: PyTree, stats: PyTree, key: Array, step: Array, batch: Batch):
        def values(params: PyTree):
            loss, aux = loss_fn(params, stats, key, step, batch)
            terms = (aux[0][name] for name in objective.active)
            weights = objective.weights(step)
            return [w * x for w, x in zip(weights, terms, strict=True)], (loss, aux)

        grads, results = gradients_of_each(values, params)
        return results, jax.tree.map(lambda *same: jnp.stack(same), *grads)

    return gradient


def gradients_of_each(
    values: Callable[[PyTree], tuple[list[Array], Any]], params: PyTree
) -> tuple[list[PyTree], Any]:
    """Computes the gradients of several values, with one forward pass.

    What a value does not depend on is not computed for it, such as the encoder of video
    for a term of text and audio. For MEA on digits, the gradients of five terms take
    2.3 times the operations of a training step; with one-hot rows of all values, under
    vmap, they would take 3.2 times.

    Args:
        values: Parameters -> the values, () each, and auxiliary data.
        params: Parameters.

    Returns:
        The gradient of each value, and the auxiliary data.
    """
    # A list and not an array: the transpose of an array's rows has zeros for all other
    # rows, which are then multiplied through the model.
    found, tangents, aux = jax.linearize(values, params, has_aux=True)
    pull = lambda i, y: jax.linear_transpose(lambda x: tangents(x)[i], params)(
        jnp.ones_like(y)
    )[0]
    return [pull(i, y) for i, y in enumerate(found)], aux


def step_key(state: TrainState, axis: str | None) -> Array:
    """Returns the PRNG key of a step, another one for each device of `axis`."""
    # The base key never changes: the key of a step depends on its number alone, so a
    # resumed run draws the same numbers.
    key = jax.random.fold_in(state.key, state.step)
    if axis is None:
        return key
    # Without it every device would drop the same positions. Under jit the mask spans
    # the global batch.
    return jax.random.fold_in(key, jax.lax.axis_index(axis))


def _logged_means(outputs: Outputs, batch: Batch, axis: str | None) -> dict[str, Array]:
    """Means of the logged auxiliary outputs over the global batch."""
    kept = {k: v for k, v in outputs.aux.items() if k.startswith(LOGGED_PREFIX)}
    total = jnp.maximum(global_sum(batch.weight, axis), 1e-9)
    # where before the product: padding rows may contain NaN.
    rows = lambda x: jnp.where(batch.weight > 0, x, 0) * batch.weight
    return {k: global_sum(rows(x), axis) / total for k, x in kept.items()}


def global_sum(x: Array, axis: str | None) -> Array:
    """Sums `x` over the global batch."""
    total = jnp.sum(x)
    return total if axis is None else jax.lax.psum(total, axis)


def _split_batch(batch: Batch, parts: int) -> Batch:
    """Reshapes leaves to (parts b/parts ...); a part has rows of every device."""
    if (rows := len(batch.weight)) % parts:
        raise ConfigError(
            "C05",
            f"A batch of {rows:d} examples cannot be split into "
            f"gradient_accumulation_steps={parts:d} parts.",
            f"a batch size that is a multiple of {parts:d}",
        )

    def split(x: Array) -> Array:
        # Row i goes to part i % parts: a part of contiguous rows would be on some
        # devices only, and all others would wait.
        rows = x.reshape(x.shape[0] // parts, parts, *x.shape[1:])
        return jnp.swapaxes(rows, 0, 1)

    return jax.tree.map(split, batch)
