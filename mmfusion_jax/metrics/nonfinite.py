"""Scores of predictions that are not finite: not defined, with a count and a reason."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from mmfusion_jax.metrics.score_info import Collected, Metrics

UNDEFINED = "not_finite"
"""Entry of an evaluation that counts the predictions that are not finite."""


def rows_are_finite(collected: Collected) -> np.ndarray:
    """Returns whether all predictions of an example are finite, (n) bool.

    Args:
        collected: What an evaluation step collects: "prediction" (n ...), and of models
            with unimodal predictions "alone" (n m k) and "present" (n m).
    """
    finite = lambda x: np.isfinite(x).reshape(len(x), -1).all(axis=1)
    good = finite(collected["prediction"])
    if "alone" in collected:
        unimodal, present = collected["alone"], collected["present"]
        good &= finite(np.where(present[..., None], unimodal, 0))
    return good


def compute_scores(
    metrics: Metrics, collected: Collected, max_examples: int = 5
) -> dict[str, Any]:
    """Returns the metrics of a split, all NaN if a prediction is not finite.

    Metrics of the finite predictions alone would be those of other data, and thresholds
    and argmax map NaN to a class.

    Args:
        metrics: The metrics of a label.
        collected: What they collect of every valid example, (n ...).
        max_examples: Number of indices to list.

    Returns:
        The metrics by name. If a prediction is not finite, also `UNDEFINED`: the number
        of such examples ("count"), of all examples ("of"), and the indices of the first
        ones ("examples").
    """
    good = rows_are_finite(collected)
    if good.all():
        return {**metrics.scores(collected)}
    bad = np.flatnonzero(~good)
    return {
        **dict.fromkeys(metrics.infos, float("nan")),
        UNDEFINED: {
            "count": len(bad),
            "of": len(good),
            "examples": bad[:max_examples].tolist(),
        },
    }


def describe_undefined(split: str, scores: Mapping[str, Any]) -> str:
    """Returns why the metrics of a split are not defined; "" if they are."""
    found = scores.get(UNDEFINED)
    if not found:
        return ""
    indices = ", ".join(map(str, found["examples"]))
    more = ", ..." if found["count"] > len(found["examples"]) else ""
    return (
        f"{split}: the predictions of {found['count']} of {found['of']} examples are "
        f"not finite (indices {indices}{more}); the metrics are not defined"
    )


def undefined_scores(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns which metrics of runs and their unimodal stages are not defined, and why.

    Args:
        entries: Runs as in `result.json`.
    """
    found = []
    for entry in entries:
        for name, stage in {"": entry, **entry.get("stages", {})}.items():
            run = f"fold {entry['fold']}, seed {entry['seed']}"
            run = f"{name} only, {run}" if name else run
            for split in ("train", "valid", "test", "last"):
                if line := describe_undefined(split, stage.get(split) or {}):
                    found.append(f"{run}, {line}")
    return found
