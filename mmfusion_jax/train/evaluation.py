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
    parts = jax.device_get([step(variables, batch) for batch in batches])
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
