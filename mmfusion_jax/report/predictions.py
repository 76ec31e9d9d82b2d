"""Predictions: plots and all metrics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from mmfusion_jax.report import charts, formatting
from mmfusion_jax.results.experiment_result import (
    ExperimentResult,
    MetricInfo,
    RunResult,
)


@dataclass(frozen=True)
class ConfusionCell:
    """Number of examples, and its percentage of the row."""

    count: int
    percent: int


@dataclass(frozen=True)
class ConfusionRow:
    """All examples of one true class."""

    name: str
    cells: list[ConfusionCell]
    recall: str


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix over all runs."""

    classes: list[str]
    rows: list[ConfusionRow]


@dataclass(frozen=True)
class Metrics:
    """All metrics at the selected checkpoint.

    Attributes:
        heads: Column headers of `rows`.
        rows: Label of a metric and its values; of several runs, mean and standard
            deviation on the test split.
        run_heads: Column headers of `runs`.
        runs: Fold, seed and split, and the values of all metrics.
        definitions: Label and definition of each metric.
    """

    heads: list[str]
    rows: list[list[str]]
    run_heads: list[str]
    runs: list[list[str]]
    definitions: list[list[str]]


def scatter_plot(result: ExperimentResult) -> charts.Chart | None:
    """Returns predictions vs. labels, one dot per example; None for another task."""
    pairs = [pairs for run in result.runs if (pairs := run.plot_data.pairs)]
    if not pairs or result.task.range is None:
        return None
    y_true = np.concatenate([one.truth for one in pairs])
    y_pred = np.concatenate([one.prediction for one in pairs])
    return charts.scatter(y_true, y_pred, result.task.range, result.task.label)


def confusion_matrix(result: ExperimentResult) -> Confusion | None:
    """Returns the confusion matrix over all runs; None for another task."""
    plots = [run.plot_data.confusion for run in result.runs if run.plot_data.confusion]
    if not plots:
        return None
    # Summed over seeds and folds. With several seeds an example is counted several
    # times; the percentages are of rows, so that they can still be compared.
    counts = np.sum(plots, axis=0)
    classes = list(result.task.classes)
    rows = []
    for i, (name, row) in enumerate(zip(classes, counts.tolist(), strict=True)):
        total = sum(row)
        recall = row[i] / total if total else None
        rows.append(
            ConfusionRow(
                name,
                [ConfusionCell(n, round(100 * n / max(total, 1))) for n in row],
                formatting.DASH
                if recall is None
                else formatting.score(formatting.FRACTION, recall),
            )
        )
    return Confusion(classes, rows)


def all_metrics(result: ExperimentResult) -> Metrics:
    """Returns all metrics of every run, and their definitions."""
    summary, runs, metrics = result.summary.test, result.runs, result.metrics
    if len(runs) > 1:
        columns = {
            f"test, mean of {len(runs)}": {
                name: formatting.mean_std(metric, summary[name])
                for name, metric in metrics.items()
            }
        }
    else:
        columns = dict(_splits(runs[0], metrics))
    return Metrics(
        heads=["metric", *columns],
        rows=[
            [metric.label, *(column[name] for column in columns.values())]
            for name, metric in metrics.items()
        ],
        run_heads=["run", *(metric.label for metric in metrics.values())],
        runs=[
            [f"{formatting.run_name(run)}, {split}", *values.values()]
            for run in runs
            for split, values in _splits(run, metrics)
        ],
        definitions=[[metric.label, metric.definition] for metric in metrics.values()],
    )


def _splits(
    run: RunResult, metrics: Mapping[str, MetricInfo]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields the name and the metrics of every split that the run has."""
    for split, evaluation in {"validation": run.valid, "test": run.test}.items():
        if evaluation is not None:
            yield (
                split,
                {
                    name: formatting.score(metric, evaluation.scores[name])
                    for name, metric in metrics.items()
                },
            )
