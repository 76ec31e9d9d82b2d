"""What a trained model says of every example of a split."""

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
    """Runs a step of `make_eval_step` over a split.

    Args:
        step: compiled.
        variables: of the model.
        batches: of the split, on the devices.

    Returns:
        What the step collects, by name, one row for every real example, and the mean
        loss of the task; NaN if there is no example.
    """
    parts = jax.device_get([step(variables, batch) for batch in batches])
    real = np.concatenate([part["weight"] > 0 for part in parts])
    counts = [np.sum(part["weight"]) for part in parts]
    total = sum(float(part["loss"]) * n for part, n in zip(parts, counts, strict=True))
    rows = _joined([part["collected"] for part in parts])
    return {name: x[real] for name, x in rows.items()}, float(total / sum(counts))


def _joined(parts: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Arrays of the same name one below the other."""
    return {
        name: np.concatenate([np.asarray(part[name]) for part in parts])
        for name in parts[0]
    }
