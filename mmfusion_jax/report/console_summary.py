"""The last lines of a training, for the screen."""

from collections.abc import Mapping
from typing import Any

from mmfusion_jax.metrics.rounding import format_number

Result = Mapping[str, Any]


def summary_lines(result: Result) -> list[str]:
    """Test scores of the blind answer, the single modalities and the model."""
    return [line for score in headline_scores(result) for line in _rows(result, score)]


def headline_scores(result: Result) -> list[str]:
    """The scores that say how good a model is.

    The one that chose the step; where no blind answer has that, such as a loss or an
    MIS, also the first that it has.
    """
    select, found = result["selection_metric"], result["summary"]["test"]
    blind = [name for name in result["baseline"]["scores"] if name in found]
    return [select] if select in blind else [select, *blind[:1]]


def _spread(row: Mapping[str, Any]) -> str:
    """A mean, and the standard deviation where there are several runs."""
    if row["mean"] is None:
        return "not defined"
    several = row["n"] > 1
    spread = f" +- {format_number(row['std'])} over {row['n']} runs" if several else ""
    return f"{format_number(row['mean'])}{spread}"


def _rows(result: Result, score: str) -> list[str]:
    """One score of everyone."""
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
