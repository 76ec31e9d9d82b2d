"""The training step and the evaluation step, pure and not compiled."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax

from mmfusion_jax.losses.objective import TASK, Objective
from mmfusion_jax.metrics import score_info
from mmfusion_jax.training.batch_gradient import (
    global_sum,
    make_batch_gradient,
    step_key,
)
from mmfusion_jax.training.gradient_balance import balance_gradients
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.types import WEIGHT_PREFIX, Array, Batch, Model, Outputs, PyTree

Metrics: TypeAlias = dict[str, Array]
Step: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    model: Model,
    objective: Objective,
    tx: optax.GradientTransformation,
    axis: str | None = None,
    gradient_accumulation_steps: int = 1,
    steps: int = 1,
    modalities: tuple[str, ...] = (),
    penalty: Callable[[PyTree], Array] | None = None,
    balance: optax.GradientTransformationExtraArgs | None = None,
    max_nonfinite_steps: int | None = None,
) -> Step:
    """Creates the training step, a function of arrays.

    It is not compiled: the caller picks `jax.jit` and shardings, `jax.pmap` or
    `jax.shard_map`.

    A step with a non-finite loss or gradient leaves parameters, statistics and
    optimizer state unchanged and is counted in `skipped_steps`. The metrics
    "nonfinite/..." are flags of every loss term, module and modality;
    "nonfinite/consecutive_steps" is the number of consecutive skipped steps. After
    `max_nonfinite_steps` of them it stays as it is, and every later step is skipped.

    Auxiliary outputs named "log/...", (b), such as the importance weight of MEA, are
    averaged over the non-padding examples and logged.

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
        >>> step = jax.jit(mmf.make_train_step(model, objective, optax.adam(1e-3)))
        >>> state, metrics = step(state, batch)
        >>> int(state.step), metrics["loss"].shape
        (1, ())

    Args:
        model: Maps a Batch to Outputs.
        objective: Maps Outputs and a Batch to the loss and its terms.
        tx: Optimizer.
        axis: Axis of pmap or shard_map to average over; None under jit, where
            every reduction already spans the global batch. Over several devices, jit
            needs the mesh as context (`jax.set_mesh`, or `Executor.compile`) to gather
            once what loss terms compare, and the moments of a BatchNorm; without it
            the compiler places them.
        gradient_accumulation_steps: Number of parts into which a batch is split to
            save memory; gradients are averaged with the weights of their examples.
            Terms that compare examples, and BatchNorm, see one part at a time.
        steps: Total number of training steps, for `Batch.train_fraction`.
        modalities: Modalities that the model reads; an example with none of them is
            ignored. () to use all examples.
        penalty: Maps the parameters to a term whose gradient `tx` adds, such as
            `config.optimizer.l2_penalty`; it is logged as "loss/l2" and in "loss".
        balance: Combines the gradients of the weighted terms, such as `pcgrad`, before
            `tx`; None adds them. With fewer than two terms it is not used. It needs
            the memory of one gradient for each term.
        max_nonfinite_steps: Consecutive skipped steps after which no step changes the
            parameters, statistics and optimizer state any more; None for no limit.
    """
    limit = max_nonfinite_steps or jnp.iinfo(jnp.int32).max
    if len(objective.active) < 2:
        balance = None  # one gradient has nothing to be balanced with
    compute = make_batch_gradient(
        model,
        objective,
        axis,
        gradient_accumulation_steps,
        by_term=balance is not None,
    )

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        batch = as_in_training(batch, state.step / steps, modalities)
        stats, results = compute(state, step_key(state, axis), batch)
        if axis is not None:
            stats, results = jax.lax.pmean((stats, results), axis)
        loss, terms, logged, grads = results
        if balance is not None:
            weights = objective.weights(state.step)
            grads = balance_gradients(balance, grads, weights, state)
        loss, terms = _with_penalty(loss, terms, penalty, state.params)
        grad_norm = optax.tree.norm(grads)
        # Both, because a label beyond the classes gives a NaN loss with finite
        # gradients, and before clipping, because clipping an infinite gradient by its
        # norm gives NaN. Not `optax.apply_if_finite`, which applies NaN after a number
        # of steps.
        is_finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        # The host notices later that the limit is reached, and when depends on how
        # often it logs. The weights that it then finds do not.
        consecutive = state.skipped_steps["consecutive"]
        has_ended = consecutive >= limit
        is_applied = is_finite & ~has_ended
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        if_applied = lambda new, old: jax.tree.map(
            lambda n, o: jnp.where(is_applied, n, o), new, old
        )
        skipped = 1 - is_applied.astype(jnp.int32)
        state = state.replace(
            # Also after a skipped step, since it is the position in the data.
            step=state.step + 1,
            params=if_applied(params, state.params),
            stats=if_applied(stats, state.stats),
            opt_state=if_applied(opt_state, state.opt_state),
            skipped_steps={
                "consecutive": jnp.where(
                    has_ended, consecutive, (consecutive + 1) * skipped
                ),
                "total": state.skipped_steps["total"] + skipped,
            },
        )
        metrics = {
            "loss": loss,
            "grad_norm": grad_norm,
            "nonfinite/consecutive_steps": state.skipped_steps["consecutive"],
        }
        metrics |= {f"loss/{name}": value for name, value in terms.items()} | logged
        return state, metrics | _nonfinite_flags(terms, grads, batch, axis)

    return step


def _with_penalty(
    loss: Array,
    terms: dict[str, Array],
    penalty: Callable[[PyTree], Array] | None,
    params: PyTree,
) -> tuple[Array, dict[str, Array]]:
    """Adds the term "l2", whose gradient the optimizer adds, to the loss."""
    if penalty is None:
        return loss, terms
    value = penalty(params)
    return loss + value, {**terms, "l2": value}


def make_eval_step(
    model: Model,
    objective: Objective,
    metrics: score_info.Metrics,
    modalities: tuple[str, ...] = (),
) -> Callable[[PyTree, Batch], PyTree]:
    """Creates the evaluation step, which collects predictions and the task loss.

    The step maps variables and a batch to "collected", the arrays that `metrics`
    collects and the auxiliary outputs named "weight/...", (b ...) each; "weight", the
    weights of the examples, (b); and "loss", the mean task loss over the real
    examples, (). The other terms compare or regularize outputs that only training
    builds.

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
        >>> metrics = mmf.metrics.ClassificationMetrics("emotion", 2)
        >>> step = jax.jit(mmf.make_eval_step(model, objective, metrics))
        >>> sorted(step(state.variables, batch))
        ['collected', 'loss', 'weight']

    Args:
        model: Maps a Batch to Outputs.
        objective: Contains the task loss.
        metrics: Metrics of the task.
        modalities: Modalities that the model reads; the prediction for an example with
            none of them is `variables["prior"]`, (k), if present.
    """

    def step(variables: PyTree, batch: Batch) -> PyTree:
        own = {k: v for k, v in variables.items() if k != "prior"}
        outputs: Outputs = model.apply(own, batch, train=False)
        if modalities and "prior" in variables:
            present = batch.has_any_modality(*modalities)
            outputs = _with_prior(outputs, present, variables["prior"])
        weights = {k: v for k, v in outputs.aux.items() if k.startswith(WEIGHT_PREFIX)}
        return {
            "collected": {**weights, **metrics.collect(outputs, batch)},
            "weight": batch.weight,
            "loss": objective.value(TASK, outputs, batch),
        }

    return step


def _with_prior(outputs: Outputs, present: Array, prior: Array) -> Outputs:
    """Replaces the predictions of examples that are not `present` by the prior."""
    y = outputs.prediction
    present = present.reshape(present.shape + (1,) * (y.ndim - 1))
    return outputs.replace(prediction=jnp.where(present, y, prior.astype(y.dtype)))


def as_in_training(
    batch: Batch, train_fraction: Array, modalities: tuple[str, ...]
) -> Batch:
    """Prepares a batch as the training step does.

    Args:
        batch: Batch from the pipeline.
        train_fraction: Fraction of the training that is completed, 0..1.
        modalities: Modalities that the model reads; () to use all examples.
    """
    batch = _with_train_fraction(batch, train_fraction)
    return _without_empty_examples(batch, modalities)


def _with_train_fraction(batch: Batch, train_fraction: Array) -> Batch:
    """Adds the completed fraction of the training, at most 1, to the batch."""
    fraction = jnp.minimum(train_fraction, 1.0)
    return batch.replace(train_fraction=jnp.full_like(batch.weight, fraction))


def _without_empty_examples(batch: Batch, modalities: tuple[str, ...]) -> Batch:
    """Sets the weight of examples without any of `modalities` to 0."""
    if not modalities:
        return batch
    return batch.replace(weight=batch.weight * batch.has_any_modality(*modalities))


def _nonfinite_flags(
    terms: dict[str, Array], grads: Any, batch: Batch, axis: str | None
) -> Metrics:
    """Flags of everything that is not finite, by name, () bool each."""
    flags = {f"loss/{k}": ~jnp.isfinite(v) for k, v in terms.items()}
    for name, tree in grads.items():
        flags[f"gradient/{name}"] = ~jnp.isfinite(optax.tree.norm(tree))
    for name, x in batch.inputs.items():
        # Masked values may be NaN without harm, so only valid steps are counted.
        if jnp.issubdtype(x.dtype, jnp.floating):
            valid = batch.valid_mask(name).reshape(x.shape[:2] + (1,) * (x.ndim - 2))
            # float32, so that devices add it together with the gradients.
            count = jnp.sum(valid & ~jnp.isfinite(x), dtype=jnp.float32)
            flags[f"input/{name}"] = global_sum(count, axis) > 0
    return {f"nonfinite/{name}": flag for name, flag in flags.items()}
