"""Summary of a training for the console."""

from mmfusion_jax.errors import shorten, shown_name
from mmfusion_jax.results.experiment_result import ExperimentResult, MeanStd
from mmfusion_jax.results.rounding import format_number


def summary_lines(result: ExperimentResult) -> list[str]:
    """Returns the test scores of baseline, unimodal models and fused model."""
    return [line for score in headline_scores(result) for line in _rows(result, score)]


def headline_scores(result: ExperimentResult) -> list[str]:
    """Returns the names of the main scores.

    The selection metric; if the constant baseline does not have it, such as a loss or
    MIS, also the first metric that it has.
    """
    select, scores = result.selection_metric, result.summary.test
    constant = [name for name in result.baseline.scores if name in scores]
    return [select] if select in constant else [select, *constant[:1]]


def _spread(row: MeanStd, *, constant: bool) -> str:
    """Formats the mean and, for several trained runs, the standard deviation."""
    # The spread of a constant is that of the labels of the folds, not of a training.
    several = row.n > 1 and row.mean is not None and not constant
    spread = f" +- {format_number(row.std)} over {row.n:d} runs" if several else ""
    return f"{format_number(row.mean)}{spread}"


def _rows(result: ExperimentResult, score: str) -> list[str]:
    """Returns the lines of one score: baseline, unimodal models, fused model."""
    summary, constant = result.summary, result.baseline.scores.get(score)
    rows = [
        (f"{shown_name(name)} only", stage.test[score])
        for name, stage in summary.stages.items()
    ]
    rows.append((shorten(result.model.name), summary.test[score]))
    lines = [(name, _spread(row, constant=False)) for name, row in rows]
    if constant is not None:
        description = shorten(result.baseline.description)
        lines.insert(0, (description, _spread(constant, constant=True)))
    width = max(len(name) for name, _ in lines)
    return [
        f"test {shown_name(score)} on {shorten(result.data.title)}, protocol "
        f"{shown_name(result.protocol)}:",
        *("  " + name.ljust(width) + " " + value for name, value in lines),
    ]
