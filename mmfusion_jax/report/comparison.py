"""The page of a comparison: `comparison.html`, or its chart as a picture."""

from dataclasses import dataclass
from pathlib import Path

from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import (
    IntervalRow,
    interval_plot,
    save_interval_plot,
)
from mmfusion_jax.report.page import render, write
from mmfusion_jax.results.comparison_result import (
    ComparedRun,
    ComparisonResult,
    Contrast,
    Difference,
)
from mmfusion_jax.results.experiment_result import MeanStd, MetricInfo

MOST_ROWS = 12
"""Maximum number of metrics in a chart."""


@dataclass(frozen=True)
class TextTable:
    """A table of texts; the first column names the rows."""

    caption: str
    heads: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class IntervalChart:
    """An interval plot: its rows, its quantity, and whether these are fractions."""

    rows: list[IntervalRow]
    what: str
    percent: bool


def write_comparison(path: Path, result: ComparisonResult) -> None:
    """Writes a comparison.

    Args:
        path: An `.html` page, or the chart of the differences as `.svg` or `.png`.
        result: The comparison.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    chart = _difference_chart(result)
    if path.suffix != ".html":
        save_interval_plot(
            path, chart.rows, chart.what, percent=chart.percent, signed=True
        )
        return
    metric = result.metrics[result.selection_metric]
    percent = formatting.is_fraction(metric)
    unit = " (%)" if percent else ""
    better = "" if metric.higher_is_better else ", lower is better"
    what = f"test {metric.label}{unit}{better}"
    charts = [
        interval_plot(_score_rows(result), what, percent=percent),
        interval_plot(chart.rows, chart.what, percent=chart.percent, signed=True),
    ]
    text = render(
        "comparison.html",
        title=" vs. ".join(run.name for run in result.runs),
        lead=lead(result),
        charts=charts,
        tables=tables(result),
        notes=notes(result),
        definitions=[[m.label, m.definition] for m in result.metrics.values()],
        workdirs=[[run.name, f"{run.model}, {run.workdir}"] for run in result.runs],
    )
    write(path, text)


def lead(result: ComparisonResult) -> str:
    """Returns one sentence: the data, the label, the protocol and the sizes."""
    count = formatting.count(result.test_examples)
    return (
        f"{result.data}, label {result.task.label}, protocol {result.protocol}, "
        f"{count} test examples. All runs are compared with {result.runs[0].name}."
    )


def tables(result: ComparisonResult) -> list[TextTable]:
    """Returns scores, differences, tests and costs, one column for each run."""
    return [_scores(result), _differences(result), _tests(result), _costs(result)]


def notes(result: ComparisonResult) -> list[str]:
    """Returns how the values were computed, and what differs between the runs."""
    first = result.runs[0].name
    per_example = {
        "classification": "correct predictions (McNemar's exact test; over several "
        "seeds, exact sign test of their number)",
        "multilabel": "the number of correct flags (exact sign test)",
        "regression": "absolute errors (Wilcoxon's signed-rank test)",
    }[result.task.kind]
    lines = [
        f"Differences: score of a run minus that of {first}, with its "
        f"{result.level:.0%} interval: percentile bootstrap, "
        f"{formatting.count(result.resamples)} samples of the "
        f"{formatting.count(result.test_examples)} test examples, the same for all "
        "runs. It does not contain the variance over seeds.",
        f"Test over examples: paired, of {per_example}. Test over seeds: paired t-test "
        "of the selection metric over the common seeds. Both are two-sided.",
    ]
    if len(result.contrasts) > 1:
        lines.append("p (Holm) is adjusted for the number of tests.")
    if any(run.peak_memory for run in result.runs):
        lines.append(
            "Peak memory is that of the training process so far, or of its device; "
            "that of a process includes the data."
        )
    return [*lines, *(f"Note: {line}" for line in result.notes)]


def _scores(result: ComparisonResult) -> TextTable:
    """Returns test scores of the constant baseline, unimodal models and runs."""
    constant = {
        name: MeanStd(point.mean, std=0.0, n=1)
        for name, point in result.baseline.scores.items()
    }
    heads, columns = ["metric", result.baseline.description], [constant]
    number = [formatting.DASH]
    for run in result.runs:
        if run.best_unimodal:
            heads.append(f"{run.name}: {run.best_unimodal.modality} only")
            columns.append(run.best_unimodal.scores)
            number.append(str(len(run.selection_scores)))
        heads.append(run.name)
        columns.append(run.scores)
        number.append(str(len(run.selection_scores)))
    rows = [
        [
            metric.label,
            *(
                formatting.mean_std(metric, column[name])
                if name in column
                else formatting.DASH
                for column in columns
            ),
        ]
        for name, metric in _selection_first(result)
    ]
    rows.append(["folds x seeds", *number])
    return TextTable("Test scores, mean ± standard deviation", heads, rows)


def _differences(result: ComparisonResult) -> TextTable:
    """Returns the differences to the first run."""
    rows = [
        [
            metric.label,
            *(_difference(metric, one.differences[name]) for one in result.contrasts),
        ]
        for name, metric in _selection_first(result)
    ]
    heads = ["metric", *(one.name for one in result.contrasts)]
    caption = f"Difference to {result.runs[0].name} [{result.level:.0%} interval]"
    return TextTable(caption, heads, rows)


def _difference(metric: MetricInfo, found: Difference) -> str:
    value = formatting.difference(metric, found.value)
    if not (formatting.is_number(found.low) and formatting.is_number(found.high)):
        return value
    bounds = [
        formatting.difference(metric, bound).removesuffix(" points")
        for bound in (found.low, found.high)
    ]
    return f"{value} [{', '.join(bounds)}]"


def _tests(result: ComparisonResult) -> TextTable:
    """Returns the paired tests against the first run."""
    holm = len(result.contrasts) > 1
    names = ["over examples", "examples better, worse, equal", "p"]
    names += ["p (Holm)"] * holm + ["over seeds", "seeds", "t", "p"]
    names += ["p (Holm)"] * holm
    columns = [_test_cells(one, holm=holm) for one in result.contrasts]
    label = result.metrics[result.selection_metric].label
    return TextTable(
        f"Paired tests against {result.runs[0].name}; over seeds of {label}",
        ["test", *(one.name for one in result.contrasts)],
        [[name, *cells] for name, *cells in zip(names, *columns, strict=True)],
    )


def _test_cells(contrast: Contrast, *, holm: bool) -> list[str]:
    """Returns the cells of one run in the table of tests."""
    dash, cells = formatting.DASH, []
    if (found := contrast.examples) is None:
        cells += [dash] * (4 if holm else 3)
    else:
        equal = found.n - found.better - found.worse
        cells += [found.name, f"{found.better}, {found.worse}, {equal}", _p(found.p)]
        cells += [_p(found.p_holm)] * holm
    if (seeds := contrast.seeds) is None:
        return cells + [dash] * (5 if holm else 4)
    t = formatting.significant(seeds.t).replace("-", formatting.MINUS)
    cells += ["paired t-test", str(len(seeds.seeds)), t]
    return [*cells, _p(seeds.p), *[_p(seeds.p_holm)] * holm]


def _p(value: float | None) -> str:
    """Returns a p value without its name."""
    if not formatting.is_number(value):
        return formatting.UNDEFINED
    return formatting.p_value(value).removeprefix("p ").removeprefix("= ")


def _costs(result: ComparisonResult) -> TextTable:
    """Returns sizes, times and memory of the runs."""
    runs = result.runs
    rows = [
        ["parameters", *(formatting.count(run.parameters) for run in runs)],
        ["MACs per example", *(_macs(run) for run in runs)],
        ["training step", *(formatting.seconds(run.step_s) for run in runs)],
        ["peak memory", *(_memory(run) for run in runs)],
        ["device", *(f"{run.device.count} x {run.device.kind}" for run in runs)],
    ]
    return TextTable("Cost", ["", *(run.name for run in runs)], rows)


def _macs(run: ComparedRun) -> str:
    macs = run.macs_per_example
    return formatting.DASH if macs is None else formatting.count(macs)


def _memory(run: ComparedRun) -> str:
    peak = run.peak_memory
    return f"{peak.bytes / 1e6:,.0f} MB ({peak.of})" if peak else formatting.DASH


def _selection_first(result: ComparisonResult) -> list[tuple[str, MetricInfo]]:
    """Returns all metrics, the selection metric first."""
    select = result.selection_metric
    return sorted(result.metrics.items(), key=lambda item: item[0] != select)


def _score_rows(result: ComparisonResult) -> list[IntervalRow]:
    """Returns the selection metric of baseline, unimodal models and runs."""
    name, rows = result.selection_metric, []
    if point := result.baseline.scores.get(name):
        rows.append(IntervalRow(result.baseline.description, point.mean))
    for run in result.runs:
        if best := run.best_unimodal:
            label = f"{run.name}: {best.modality} only"
            rows.append(IntervalRow(label, best.scores[name].mean))
        mean = run.scores[name].mean
        rows.append(IntervalRow(run.name, mean, values=run.selection_scores))
    return rows


def _difference_chart(result: ComparisonResult) -> IntervalChart:
    """Returns the chart of differences: of all runs, or all metrics of a single one.

    Its metric is the selection metric if that has an interval, else the first that has
    one.
    """
    ordered, first = _selection_first(result), result.runs[0].name
    bounded = lambda name: formatting.is_number(
        result.contrasts[0].differences[name].low
    )
    select, metric = next((pair for pair in ordered if bounded(pair[0])), ordered[0])
    percent = formatting.is_fraction(metric)
    unit = " (points)" if percent else ""
    row = lambda name, found: IntervalRow(name, found.value, found.low, found.high)
    if len(result.contrasts) > 1:
        rows = [row(one.name, one.differences[select]) for one in result.contrasts]
        what = f"{metric.label}, difference to {first}{unit}"
        return IntervalChart(rows, what, percent)
    (one,) = result.contrasts
    # Fractions share an axis; other metrics have separate scales.
    rows = [
        row(info.label, one.differences[name])
        for name, info in ordered
        if name == select or (percent and formatting.is_fraction(info))
    ]
    return IntervalChart(rows[:MOST_ROWS], f"{one.name} minus {first}{unit}", percent)
