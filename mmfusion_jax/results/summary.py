"""Summary of a training for the console."""

import math
from collections.abc import Iterator, Sequence

from mmfusion_jax.errors import shorten, shown_name
from mmfusion_jax.results.experiment_result import (
    ExperimentResult,
    MeanStd,
    RunEvaluation,
)
from mmfusion_jax.results.rounding import format_number, format_percent

FIELD_METRICS = {
    "sentiment": (
        *("acc2_has0", "acc2_non0", "f1_has0", "f1_non0", "acc7", "mae", "corr"),
    ),
    "sims": ("acc2", "acc3", "acc5", "f1", "mae", "corr"),
}
"""Family of metrics -> those that papers report, in their order."""

FEW_EXAMPLES = 30
"""With fewer examples, one of them changes an accuracy by more than 3 points."""


def summary_lines(result: ExperimentResult) -> list[str]:
    """Returns the test scores of baseline, unimodal models and fused model."""
    lines = [line for score in headline_scores(result) for line in _rows(result, score)]
    return [*lines, *_field_table(result), *few_examples_notes(result)]


def num_test_examples(result: ExperimentResult) -> int:
    """Returns the number of test examples of a run; of several folds, the last."""
    return result.data.counts["test"]


def few_examples_notes(result: ExperimentResult) -> list[str]:
    """Returns a note if the test split is small, else nothing."""
    return [*_small_split("test", num_test_examples(result))]


def _small_split(split: str, count: int) -> Iterator[str]:
    """Yields a note if a split has so few examples that scores are imprecise."""
    if count == 1:
        yield (
            f"note: the {shown_name(split)} split has 1 example: its scores are those "
            "of one prediction"
        )
    elif count < FEW_EXAMPLES:
        yield (
            f"note: the {shown_name(split)} split has {count:d} examples: one of them "
            f"is {format_percent(1 / count)} points of accuracy, and differences below "
            "that are chance"
        )


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


def _field_table(result: ExperimentResult) -> list[str]:
    """Returns all metrics that papers report of this label, a row for each model."""
    names = FIELD_METRICS.get(result.task.family, ())
    names = [name for name in names if name in result.metrics]
    if not names:
        return []
    summary = result.summary
    models = [
        (shorten(result.baseline.description), result.baseline.scores),
        *((f"{shown_name(m)} only", stage.test) for m, stage in summary.stages.items()),
        (shorten(result.model.name), summary.test),
    ]
    heads = ["", *(shorten(result.metrics[name].label) for name in names)]
    rows = [
        [model, *(_cell(result, name, scores.get(name)) for name in names)]
        for model, scores in models
    ]
    title = f"test, as papers report it, n = {num_test_examples(result):d}:"
    return [title, *text_table([heads, *rows])]


def _cell(result: ExperimentResult, name: str, row: MeanStd | None) -> str:
    """Returns the mean of a metric; fractions are in percent."""
    if row is None or row.mean is None or not math.isfinite(row.mean):
        return format_number(None)
    percent = result.metrics[name].unit == "percent"
    return f"{format_percent(row.mean)} %" if percent else format_number(row.mean)


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table, its first column left-aligned.

    Args:
        rows: Cells of every row, the same number in each.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def evaluation_lines(runs: Sequence[RunEvaluation]) -> list[str]:
    """Returns a table of the scores of every run, a column for each split.

    After the tables there is a note for each split that is small.
    """
    lines: list[str] = []
    notes: list[str] = []
    for run in runs:
        splits = run.splits
        names = list(dict.fromkeys(n for one in splits.values() for n in one.scores))
        lines.append(f"fold {run.fold}, seed {run.seed}, step {run.step}:")
        rows = [["", *(shown_name(split) for split in splits)]]
        if run.counts:
            rows.append(["examples", *(str(run.counts[split]) for split in splits)])
        rows += [
            [
                shown_name(name),
                *(format_number(one.scores.get(name)) for one in splits.values()),
            ]
            for name in names
        ]
        lines += text_table(rows)
        for split, count in (run.counts or {}).items():
            notes += _small_split(split, count)
    return [*lines, *dict.fromkeys(notes)]


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
        f"{shown_name(result.protocol)}, n = {num_test_examples(result):d}:",
        *("  " + name.ljust(width) + " " + value for name, value in lines),
    ]
