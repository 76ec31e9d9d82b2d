"""Scores of the model, what they are compared with, and learning curves."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmfusion_jax.metrics.nonfinite import undefined_in_runs
from mmfusion_jax.metrics.statistics import bootstrap_interval, paired_test
from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import Chart, curves, series
from mmfusion_jax.results.experiment_result import (
    ExperimentResult,
    MeanStd,
    MetricInfo,
)
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.results.model_result import ModelResult
from mmfusion_jax.results.summary import (
    few_examples_notes,
    headline_scores,
    num_test_examples,
)

SELECTED_CHECKPOINT = {
    "validation": "best validation score",
    "fixed_epochs": "last step",
    "as_published": "best test score",
}
"""Protocol -> the checkpoint that is scored."""


@dataclass(frozen=True)
class Tile:
    """A value, its standard deviation, "" if there is none, and what it is."""

    value: str
    spread: str
    label: str


@dataclass(frozen=True)
class Headline:
    """Main scores.

    Attributes:
        metric: Label of the selection metric.
        score: Its mean and standard deviation.
        count: Number of test examples.
        best: The best single modality; "" if there is none.
        gain: Difference of `score` to it.
        label: Name of the label.
        protocol: Selection of the checkpoint.
        tiles: The main score first.
    """

    metric: str
    score: str
    count: str
    best: str
    gain: str
    label: str
    protocol: str
    tiles: list[Tile]


@dataclass(frozen=True)
class Line:
    """Standard deviation on a bar: start and length in percent."""

    start: str
    length: str


@dataclass(frozen=True)
class ScoreRow:
    """Test score of one model.

    Attributes:
        name: The model.
        kind: "constant", "unimodal" or "fused".
        score: Mean and standard deviation.
        percent: Length of the bar.
        line: The standard deviation on the bar; None if it is 0.
        parameters: Number of parameters.
    """

    name: str
    kind: str
    score: str
    percent: str
    line: Line | None
    parameters: str


@dataclass(frozen=True)
class ScoreTable:
    """One metric of all models.

    Attributes:
        metric: Its label, with the direction of a metric that is better when lower.
        rows: The models.
    """

    metric: str
    rows: list[ScoreRow]


@dataclass(frozen=True)
class Paired:
    """Tests of the fused model vs. the best single modality `other`."""

    other: str
    difference: str
    low: str
    high: str
    t_test: str
    signed_rank: str


@dataclass(frozen=True)
class Comparison:
    """Fused model, unimodal models and constant baseline, by metric."""

    tables: list[ScoreTable]
    paired: Paired | None


@dataclass(frozen=True)
class Curves:
    """Learning curves of the fused and of the unimodal models."""

    fused: list[Chart]
    unimodal: list[Chart]


def headline(result: ExperimentResult) -> Headline:
    """Returns the main scores and what they are compared with."""
    fused, best = _test_score(result), _best_stage(result)
    metric = result.metrics[result.selection_metric]
    return Headline(
        metric=metric.label,
        score=formatting.mean_std(metric, fused),
        count=formatting.count(num_test_examples(result)),
        best=best[0] if best else "",
        gain=formatting.difference(metric, fused.mean, best[1]) if best else "",
        label=result.task.label,
        protocol=result.protocol,
        tiles=list(_tiles(result)),
    )


def _tiles(result: ExperimentResult) -> Iterator[Tile]:
    """Yields the main score, and what it is compared with."""
    select, metrics = result.selection_metric, result.metrics
    yield _score_tile(metrics[select], _test_score(result), _runs(result))
    best = _best_stage(result)
    if best is not None:
        yield Tile(formatting.score(metrics[select], best[1]), "", f"{best[0]} only")
    # The selection metric, unless the constant baseline does not have it.
    *_, last = headline_scores(result)
    if last != select:
        count = formatting.count(num_test_examples(result))
        label = f"test {metrics[last].label}, n = {count}"
        yield _score_tile(metrics[last], result.summary.test[last], label)
    if point := result.baseline.scores.get(last):
        value = formatting.score(metrics[last], point.mean)
        yield Tile(value, "", _constant_baseline(result))
    count = formatting.count(result.model.parameters.total)
    yield Tile(count, "", "parameters")
    total = sum(model.times.total_s or 0.0 for model in _all_models(result))
    yield Tile(formatting.seconds(total), "", "training time")


def _score_tile(metric: MetricInfo, summary: MeanStd, label: str) -> Tile:
    """Returns the tile of a score."""
    value = formatting.score(metric, summary.mean)
    return Tile(value, formatting.std(metric, summary), label)


def warnings(result: ExperimentResult) -> list[str]:
    """Returns warnings about the data and the scores."""
    found = list(map(str, result.data.facts.get("warnings", ())))
    if len(result.runs) == 1:
        found.append(
            "One run: the variance across seeds is unknown; set config.seeds=5 to "
            "estimate it."
        )
    if result.protocol == "as_published":
        found.append(
            "Protocol “as_published”: the checkpoint was selected on the test set, as "
            "in the paper. The score is optimistically biased."
        )
    found += [
        f"{line.removeprefix('note: ').capitalize()}."
        for line in few_examples_notes(result)
    ]
    found += [f"In {line}." for line in undefined_in_runs(result.runs)]
    if skipped := sum(model.skipped_steps for model in _all_models(result)):
        found.append(f"{skipped} updates skipped: non-finite loss or gradient.")
    return found


def fusion_vs_unimodal(result: ExperimentResult) -> Comparison:
    """Returns scores of the fused model, every modality alone and the baseline."""
    tables = [_score_table(score, result) for score in headline_scores(result)]
    return Comparison(tables, _paired(result))


def _score_table(score: str, result: ExperimentResult) -> ScoreTable:
    """Returns test scores of the baseline, the unimodal models and the fused model."""
    metric, fused = result.metrics[score], result.summary.test[score]
    point = result.baseline.scores.get(score)
    # Name, kind, score and number of parameters of every model.
    models: list[tuple[str, str, MeanStd, int]] = []
    if point is not None:
        # Without its spread, which is that of the labels of the folds.
        constant = MeanStd(point.mean, std=0.0, n=1)
        models.append((_constant_baseline(result), "constant", constant, 0))
    for name, stage in result.summary.stages.items():
        count = result.runs[0].stages[name].parameters.total
        models.append((f"{name} only", "unimodal", stage.test[score], count))
    count = result.model.parameters.total
    models.append((result.model.name, "fused", fused, count))
    means = [value.mean for _, _, value, _ in models]
    means = [mean for mean in means if formatting.is_number(mean)]
    # The value of a full bar. Fractions have a common one, others that of the largest.
    full = 1.0 if formatting.is_fraction(metric) else max(means, default=1.0)
    rows = [
        ScoreRow(
            name=name,
            kind=kind,
            score=formatting.mean_std(metric, value),
            percent=_percent(value.mean or 0.0, full),
            line=_line(value, full),
            parameters=formatting.count(count),
        )
        for name, kind, value, count in models
    ]
    better = "" if metric.higher_is_better else " (lower is better)"
    return ScoreTable(f"{metric.label}{better}", rows)


def _percent(value: float, full: float) -> str:
    """Returns `value` as a percentage of `full`, between 0 and 100."""
    return f"{100 * min(max(value / max(full, 1e-9), 0.0), 1.0):.2f}"


def _line(summary: MeanStd, full: float) -> Line | None:
    """Returns mean ± standard deviation, as far as it is on the bar."""
    mean, std = summary.mean or 0.0, summary.std or 0.0
    if not std > 0:
        return None
    low, high = max(mean - std, 0.0), min(mean + std, full)
    return Line(_percent(low, full), _percent(high - low, full))


def _paired(result: ExperimentResult) -> Paired | None:
    """Compares fusion with the best single modality; None without several runs."""
    best, select = _best_stage(result), result.selection_metric
    if best is None or len(result.runs) < 2:
        return None
    fused, unimodal = [], []
    for run in result.runs:
        score = run.test.scores[select]
        other = run.stages[best[0]].test.scores[select]
        # A test over the other runs would leave out those that diverged.
        if not (formatting.is_number(score) and formatting.is_number(other)):
            return None
        fused.append(score)
        unimodal.append(other)
    metric, found = result.metrics[select], paired_test(fused, unimodal)
    gains = [a - b for a, b in zip(fused, unimodal, strict=True)]
    low, high = bootstrap_interval(gains)
    return Paired(
        other=best[0],
        difference=formatting.difference(metric, found.difference),
        low=formatting.difference(metric, low),
        high=formatting.difference(metric, high),
        t_test=formatting.p_value(found.t_test),
        signed_rank=formatting.p_value(found.wilcoxon),
    )


def checkpoint_selection(result: ExperimentResult) -> list[list[str]]:
    """Returns the scores at the selected, the last and the best test checkpoint."""
    select, summary = result.selection_metric, result.summary
    metric, protocol = result.metrics[select], result.protocol
    selected = _test_score(result)
    found = [(f"{SELECTED_CHECKPOINT[protocol]}: the result above", selected)]
    if protocol != "fixed_epochs":
        found.append((SELECTED_CHECKPOINT["fixed_epochs"], summary.last[select]))
    if summary.best_test and protocol != "as_published":
        found.append((SELECTED_CHECKPOINT["as_published"], summary.best_test))
    gaps = [
        formatting.difference(metric, value.mean, selected.mean)
        for _, value in found[1:]
    ]
    return [
        [name, formatting.mean_std(metric, value), gap]
        for (name, value), gap in zip(found, [formatting.DASH, *gaps], strict=True)
    ]


def learning_curves(workdir: Path, result: ExperimentResult) -> Curves:
    """Returns curves of loss and selection metric, and those of unimodal stages."""
    select, runs = result.selection_metric, result.runs
    metric = result.metrics[select]
    logs = [read_metrics(workdir / run.folder) for run in runs]
    # Without a validation split, the dots of the selected checkpoints are on the curve
    # of the test scores.
    split = "valid" if result.protocol == "validation" else "test"
    marks = []
    for run in runs:
        evaluation = run.valid if split == "valid" else run.test
        score = None if evaluation is None else evaluation.scores[select]
        if formatting.is_number(score):
            marks.append((run.epoch, score))
    fused = [
        curves(
            {
                "training": [series(log, "loss") for log in logs],
                "validation": [series(log, "valid/loss") for log in logs],
            },
            [],
            "loss",
            "loss",
            percent=False,
        ),
        curves(
            {
                "validation": [series(log, f"valid/{select}") for log in logs],
                "test (reference)" if split == "valid" else "test": [
                    series(log, f"test/{select}") for log in logs
                ],
            },
            marks,
            metric.label + ("" if metric.higher_is_better else ", lower is better"),
            "score",
            percent=formatting.is_fraction(metric),
        ),
    ]
    return Curves(fused, list(_stage_charts(workdir, result, metric)))


def _test_score(result: ExperimentResult) -> MeanStd:
    """Returns mean and standard deviation of the selection metric on "test"."""
    return result.summary.test[result.selection_metric]


def _constant_baseline(result: ExperimentResult) -> str:
    """Returns the description of the constant baseline."""
    return result.baseline.description


def _runs(result: ExperimentResult) -> str:
    """Returns the name of the main score, as "test accuracy, mean of 5 runs"."""
    number = len(result.runs)
    name = f"test {result.metrics[result.selection_metric].label}"
    count = f"n = {formatting.count(num_test_examples(result))}"
    return (
        f"{name}, {count}" if number == 1 else f"{name}, mean of {number} runs, {count}"
    )


def _all_models(result: ExperimentResult) -> Iterator[ModelResult]:
    """Yields the fused model of every run and its unimodal models."""
    for run in result.runs:
        yield run
        yield from run.stages.values()


def _best_stage(result: ExperimentResult) -> tuple[str, float] | None:
    """Returns the best single modality and its mean score."""
    select = result.selection_metric
    means = {
        name: mean
        for name, stage in result.summary.stages.items()
        if formatting.is_number(mean := stage.test[select].mean)
    }
    best = max if result.metrics[select].higher_is_better else min
    return best(means.items(), key=lambda item: item[1]) if means else None


def _stage_charts(
    workdir: Path, result: ExperimentResult, metric: MetricInfo
) -> Iterator[Chart]:
    """Yields a chart for every unimodal stage."""
    select = result.selection_metric
    for stage in result.summary.stages:
        folders = [workdir / run.folder / "stages" / stage for run in result.runs]
        logs = [read_metrics(folder) for folder in folders]
        lines = {
            "validation": [series(log, f"valid/{select}") for log in logs],
            "test": [series(log, f"test/{select}") for log in logs],
        }
        percent = formatting.is_fraction(metric)
        what, salt = f"{metric.label}, {stage} only", f"stage {stage}"
        yield curves(lines, [], what, salt, percent=percent)
