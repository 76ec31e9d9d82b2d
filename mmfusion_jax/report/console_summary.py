"""Summary of a training for the console."""

from collections.abc import Mapping
from typing import Any

from mmfusion_jax.metrics.rounding import format_number

Result = Mapping[str, Any]


def summary_lines(result: Result) -> list[str]:
    """Returns the test scores of baseline, unimodal models and fused model."""
    return [line for score in headline_scores(result) for line in _rows(result, score)]


def headline_scores(result: Result) -> list[str]:
    """Returns the names of the main scores.

    The selection metric; if the constant baseline does not have it, such as a loss or
    MIS, also the first metric that it has.
    """
    select, scores = result["selection_metric"], result["summary"]["test"]
    constant = [name for name in result["baseline"]["scores"] if name in scores]
    return [select] if select in constant else [select, *constant[:1]]


def _spread(row: Mapping[str, Any]) -> str:
    """Formats the mean and, for several runs, the standard deviation."""
    if row["mean"] is None:
        return "not defined"
    several = row["n"] > 1
    spread = f" +- {format_number(row['std'])} over {row['n']} runs" if several else ""
    return f"{format_number(row['mean'])}{spread}"


def _rows(result: Result, score: str) -> list[str]:
    """Lines of one score: baseline, unimodal models, fused model."""
    summary, baseline = result["summary"], result["baseline"]
    rows = {}
    if score in baseline["scores"]:
        rows[baseline["description"]] = {**baseline["scores"][score], "n": 0}
    rows |= {f"{m} only": s["test"][score] for m, s in summary["stages"].items()}
    rows[result["model"]["name"]] = summary["test"][score]
    width = max(map(len, rows))
    lines = [
        f"test {score} on {result['data']['title']}, protocol {result['protocol']}:"
    ]
    for name, row in rows.items():
        lines.append(f"  {name:{width}} {_spread(row)}")
    return lines
