"""Tables of trained models: mean and standard deviation over seeds."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion_jax.results.json_file import dumps
from mmfusion_jax.results.model_result import ModelResult
from mmfusion_jax.results.rounding import format_number

COLUMNS = ("model", "modalities", "test accuracy", "validation", "macro F1", "MIS")
METRICS = {"test": ("accuracy", "macro_f1", "mis"), "valid": ("accuracy",)}


def row(
    name: str, modalities: Sequence[str], runs: Sequence[ModelResult]
) -> dict[str, Any]:
    """Returns a row: the metrics' mean and standard deviation over the seeds.

    Args:
        name: First column.
        modalities: Second column.
        runs: Results of training, one per seed.
    """
    found: dict[str, Any] = {"model": name, "modalities": list(modalities)}
    for split, metrics in METRICS.items():
        evaluations = [run.test if split == "test" else run.valid for run in runs]
        for metric in metrics:
            scores = [e.scores.get(metric) for e in evaluations if e is not None]
            values = [score for score in scores if score is not None]
            # A mean over some of the seeds would not be comparable with other rows.
            if values and len(values) == len(runs):
                found[f"{split}_{metric}"] = mean_std(values)
    found["parameters"] = runs[0].parameters.total
    found["seeds"] = len(runs)
    return found


def step_s(runs: Sequence[ModelResult], quantile: str = "median") -> float:
    """Returns the seconds per step: the median over runs of "median" or "p10".

    "p10" is for runs on cores that were busy with other work.
    """
    return statistics.median(getattr(run.times.step_s, quantile) for run in runs)


def mean_std(values: Sequence[float]) -> dict[str, float | None]:
    """Returns the mean, and the standard deviation (None for a single value)."""
    std = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.mean(values), "std": std}


def format_metric(found: Mapping[str, float | None] | None) -> str:
    """Returns a metric as "0.905 ± 0.011", without "±" if there is one value."""
    if not found:
        return "not defined"
    text = format_number(found["mean"])
    return text if found["std"] is None else f"{text} ± {format_number(found['std'])}"


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a Markdown table for a README."""
    heads = (*COLUMNS, "parameters", "step", "seeds")
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for found in table:
        step = f"{1000 * found['step_s']:.0f} ms" if "step_s" in found else ""
        cells = [found["model"], ", ".join(found["modalities"])]
        metrics = ("test_accuracy", "valid_accuracy", "test_macro_f1", "test_mis")
        cells += [format_metric(found.get(metric)) for metric in metrics]
        cells += [f"{found['parameters']:,}", step, str(found["seeds"])]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(path: Path, table: Sequence[Mapping[str, Any]], **details: Any) -> None:
    """Writes the rows and details of the runs as JSON."""
    text = dumps({"table": table, **details}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
