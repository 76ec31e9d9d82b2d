"""Collects predictions over a split."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from mmfusion_jax.types import Batch, PyTree


def collect(
    step: Callable[[PyTree, Batch], PyTree],
    variables: PyTree,
    batches: Iterable[Batch],
) -> tuple[dict[str, np.ndarray], float]:
    """Runs an evaluation step over a split.

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
        >>> collected, loss = mmf.collect(step, state.variables, [batch])
        >>> sorted(collected), collected["truth"].tolist()
        (['prediction', 'truth'], [0, 1])

    Args:
        step: Compiled step of `make_eval_step`.
        variables: Variables of the model.
        batches: Batches of the split, on the devices.

    Returns:
        Collected arrays by name, one row per real example, and the mean task loss; NaN
        without examples.
    """
    # All steps are dispatched before the first result is fetched, so the devices do not
    # wait for the host between batches.
    return _joined(jax.device_get([step(variables, batch) for batch in batches]))


def collect_seeds(
    step: Callable[[PyTree, Batch], PyTree],
    variables: PyTree,
    batches: Iterable[Batch],
) -> list[tuple[dict[str, np.ndarray], float]]:
    """Runs an evaluation step of several seeds over a split, which is read once.

    Args:
        step: Compiled step of `make_eval_step`, mapped over seeds.
        variables: Variables of the model, with a leading axis of seeds.
        batches: Batches of the split, on the devices.

    Returns:
        The result of `collect` for every seed.
    """
    parts = jax.device_get([step(variables, batch) for batch in batches])
    seeds = len(parts[0]["loss"])
    take = lambda index: jax.tree.map(lambda x: x[index], parts)
    return [_joined(take(index)) for index in range(seeds)]


def _joined(parts: list[Mapping[str, Any]]) -> tuple[dict[str, np.ndarray], float]:
    """Returns the collected arrays and the mean loss of the batches of a split."""
    valid = np.concatenate([part["weight"] > 0 for part in parts])
    counts = [np.sum(part["weight"]) for part in parts]
    # The loss of a batch is the mean over its valid examples, and the last batch has
    # fewer, so batches count by their number.
    total = sum(float(part["loss"]) * n for part, n in zip(parts, counts, strict=True))
    rows = _concatenate([part["collected"] for part in parts])
    return {name: x[valid] for name, x in rows.items()}, float(total / sum(counts))


def _concatenate(parts: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Concatenates the arrays of each name."""
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])
        for name in parts[0]
    }
