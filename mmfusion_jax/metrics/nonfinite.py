"""Scores of predictions that are not finite: not defined, with a count and a reason."""

from collections.abc import Iterator, Mapping

import numpy as np

from mmfusion_jax.errors import shown_name
from mmfusion_jax.metrics.score_info import LOSS, Collected, Metrics
from mmfusion_jax.results.experiment_result import RunEvaluation, RunResult
from mmfusion_jax.results.model_result import Evaluation, ModelResult, NotFinite


def rows_are_finite(collected: Collected) -> np.ndarray:
    """Returns whether all predictions of an example are finite, (n) bool.

    Args:
        collected: Arrays that an evaluation step collects: "prediction" (n ...), and of
            models with unimodal predictions "alone" (n m k) and "present" (n m).
    """
    finite = lambda x: np.isfinite(x).reshape(len(x), -1).all(axis=1)
    good = finite(collected["prediction"])
    if "alone" in collected:
        unimodal, present = collected["alone"], collected["present"]
        # The logits of a missing modality are arbitrary and not used.
        good &= finite(np.where(present[..., None], unimodal, 0))
    return good


def compute_scores(
    metrics: Metrics, collected: Collected, loss: float, max_examples: int = 5
) -> Evaluation:
    """Returns the scores of a split; the metrics are NaN if a prediction is not finite.

    Metrics of the finite predictions alone would be those of other data, and thresholds
    and argmax map NaN to a class.

    Args:
        metrics: The metrics of a label.
        collected: Arrays collected of every valid example, (n ...).
        loss: The loss of the split.
        max_examples: Number of indices to list.
    """
    good = rows_are_finite(collected)
    if good.all():
        return Evaluation({**metrics.scores(collected), LOSS.name: loss})
    bad = np.flatnonzero(~good)
    undefined = dict.fromkeys(metrics.infos, float("nan"))
    reason = NotFinite(len(bad), len(good), bad[:max_examples].tolist())
    return Evaluation({**undefined, LOSS.name: loss}, reason)


def describe_undefined(split: str, evaluation: Evaluation | None) -> str:
    """Returns why the metrics of a split are not defined; "" if they are."""
    if evaluation is None or evaluation.not_finite is None:
        return ""
    found = evaluation.not_finite
    indices = ", ".join(map(str, found.examples))
    more = ", ..." if found.count > len(found.examples) else ""
    return (
        f"{split}: the predictions of {found.count} of {found.of:d} examples are "
        f"not finite (indices {indices}{more}); the metrics are not defined"
    )


def undefined_in_runs(runs: list[RunResult]) -> list[str]:
    """Returns which metrics of runs and their unimodal models are not defined."""
    found = []
    for run in runs:
        where = _run_name(run)
        found += _undefined(where, _splits(run))
        for name, stage in run.stages.items():
            found += _undefined(f"{shown_name(name)} only, {where}", _splits(stage))
    return found


def undefined_in_evaluations(runs: list[RunEvaluation]) -> list[str]:
    """Returns which metrics of evaluated checkpoints are not defined, and why."""
    return [line for run in runs for line in _undefined(_run_name(run), run.splits)]


def _run_name(run: RunResult | RunEvaluation) -> str:
    return f"fold {run.fold}, seed {run.seed}"


def _splits(result: ModelResult) -> dict[str, Evaluation | None]:
    return {"valid": result.valid, "test": result.test, "last": result.last}


def _undefined(where: str, splits: Mapping[str, Evaluation | None]) -> Iterator[str]:
    for split, evaluation in splits.items():
        if line := describe_undefined(split, evaluation):
            yield f"{where}, {line}"
