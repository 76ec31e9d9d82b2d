"""Sections on the scores of the model and their uncertainty."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmfusion_jax.metrics.statistics import bootstrap_interval, paired_test
from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import curves, series
from mmfusion_jax.report.console_summary import headline_scores
from mmfusion_jax.report.html import Html, join, table, tag
from mmfusion_jax.tasks import undefined_scores
from mmfusion_jax.train.metrics_log import read_metrics

Result = Mapping[str, Any]

SELECTED_CHECKPOINT = {
    "validation": "best validation score",
    "fixed_epochs": "last step",
    "as_published": "best test score",
}
"""Protocol -> the checkpoint that is scored."""


def headline(result: Result, title: str) -> Html:
    """Title, main scores and what they are compared with."""
    select, fused = result["selection_metric"], _test_score(result)
    metric = result["metrics"][select]
    tiles = [_tile(formatting.mean_std(metric, fused), _runs(result), "main")]
    best = _best_stage(result)
    if best is not None:
        tiles.append(_tile(formatting.score(metric, best[1]), f"{best[0]} only"))
    *_, last = headline_scores(result)
    if last != select:
        shown = result["metrics"][last]
        other = formatting.mean_std(shown, result["summary"]["test"][last])
        tiles.append(_tile(other, f"test {shown['label']}"))
    if point := result["baseline"]["scores"].get(last):
        value = formatting.score(result["metrics"][last], point["mean"])
        tiles.append(_tile(value, _constant_baseline(result)))
    weights = result["model"]["parameters"]["total"]
    tiles.append(_tile(formatting.count(weights), "parameters"))
    total = sum(run["times"]["total_s"] for run in _all_runs(result))
    tiles.append(_tile(formatting.seconds(total), "training time"))
    sentence = f"Test {metric['label']} {formatting.mean_std(metric, fused)}"
    if best is not None:
        gain = formatting.difference(metric, fused["mean"], best[1])
        sentence += f", {gain} vs. {best[0]} only"
    setting = f"Label “{result['task']['label']}”, protocol “{result['protocol']}”"
    return tag(
        "header",
        tag("h1", title),
        tag("p", f"{sentence}. {setting}.", class_="lead"),
        tag("div", *tiles, class_="tiles"),
    )


def warnings(result: Result) -> Html:
    """Warnings about the data and the scores."""
    found = list(result["data"]["facts"].get("warnings", ()))
    if len(result["runs"]) == 1:
        found.append(
            "One run: the variance across seeds is unknown; set config.seeds=5 to "
            "estimate it."
        )
    if result["protocol"] == "as_published":
        found.append(
            "Protocol “as_published”: the checkpoint was selected on the test set, as "
            "in the paper. The score is optimistically biased."
        )
    found += [f"In {line}." for line in undefined_scores(result["runs"])]
    if skipped := sum(run["skipped_steps"] for run in _all_runs(result)):
        found.append(f"{skipped} updates skipped: non-finite loss or gradient.")
    return join(tag("p", tag("b", "Note "), text, class_="warning") for text in found)


def fusion_vs_unimodal(result: Result) -> Html:
    """Scores of the fused model, every modality alone and the constant baseline."""
    text = "All rows use the same data, training recipe and checkpoint selection."
    if len(result["runs"]) > 1:
        text += (
            f" ± is the standard deviation over {len(result['runs'])} runs, shown as "
            "the dark line on each bar."
        )
        text += _compared(result)
    tables = [
        _table_of(score, result, "The same runs with another metric." if i else text)
        for i, score in enumerate(headline_scores(result))
    ]
    return tag("section", tag("h2", "Fusion vs. unimodal"), *tables)


def _table_of(score: str, result: Result, text: str) -> Html:
    """Test scores of the baseline, the unimodal models and the fused model."""
    metric, fused = result["metrics"][score], result["summary"]["test"][score]
    point = result["baseline"]["scores"].get(score)
    stages = result["summary"]["stages"]
    values = [
        fused["mean"],
        *(stage["test"][score]["mean"] for stage in stages.values()),
    ]
    values = [value for value in values if formatting.is_number(value)]
    full = 1.0 if formatting.is_fraction(metric) else max(values, default=1.0)
    rows = []
    if point is not None:
        full = max(full, point["mean"])
        constant = {**point, "n": 1, "std": 0.0}
        rows.append([_constant_baseline(result), *_bar(metric, constant, full, ""), 0])
    for name, stage in stages.items():
        bar = _bar(metric, stage["test"][score], full, "stage")
        weights = result["runs"][0]["stages"][name]["parameters"]["total"]
        rows.append([f"{name} only", *bar, formatting.count(weights)])
    weights = formatting.count(result["model"]["parameters"]["total"])
    rows.append([result["model"]["name"], *_bar(metric, fused, full, "fused"), weights])
    head = ["", f"test {metric['label']}", "", "parameters"]
    return table(head, rows, text, "numbers")


def checkpoint_selection(result: Result) -> Html:
    """Score at the selected, the last and the best test checkpoint."""
    select, summary = result["selection_metric"], result["summary"]
    metric, protocol = result["metrics"][select], result["protocol"]
    found = [
        (f"{SELECTED_CHECKPOINT[protocol]}: the result above", _test_score(result))
    ]
    if "last" in summary and protocol != "fixed_epochs":
        found.append((SELECTED_CHECKPOINT["fixed_epochs"], summary["last"][select]))
    if summary.get("best_test") and protocol != "as_published":
        found.append(
            (SELECTED_CHECKPOINT["as_published"], summary["best_test"]["score"])
        )
    rows = []
    for name, value in found:
        gap = formatting.difference(metric, value["mean"], found[0][1]["mean"])
        rows.append(
            [
                name,
                formatting.mean_std(metric, value),
                gap if rows else formatting.DASH,
            ]
        )
    text = (
        "Many published results report the best test score of any epoch. Selecting the "
        "checkpoint on the test set is optimistically biased, and the bias grows with "
        "the number of evaluations. The best test score is shown for comparison only."
    )
    head = ["checkpoint", f"test {metric['label']}", "difference"]
    return tag(
        "section",
        tag("h2", "Checkpoint selection (validation vs. test)"),
        table(head, rows, "The same runs at different checkpoints.", "numbers"),
        tag("p", text, class_="note"),
    )


def learning_curves(workdir: Path, result: Result) -> Html:
    """Curves of loss and selection metric, for the model and its unimodal stages."""
    select, runs = result["selection_metric"], result["runs"]
    metric = result["metrics"][select]
    logs = [read_metrics(workdir / run["folder"]) for run in runs]
    split = "valid" if result["protocol"] == "validation" else "test"
    marks = [
        (run["epoch"], run[split][select])
        for run in runs
        if run.get(split) and formatting.is_number(run[split][select])
    ]
    charts = [
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
            metric["label"],
            "score",
            percent=formatting.is_fraction(metric),
        ),
    ]
    parts = [tag("h2", "Learning curves"), tag("div", *charts, class_="figures")]
    if stages := list(_stage_charts(workdir, result, metric)):
        parts.append(
            tag(
                "details",
                tag("summary", "Learning curves of the unimodal models"),
                tag("div", *stages, class_="figures"),
            )
        )
    return tag("section", *parts)


def _tile(value: str, about: str, kind: str = "") -> Html:
    """A value, its standard deviation in small print, and its description."""
    number, sign, rest = value.partition(" ±")
    parts = [number, tag("small", sign, rest)] if sign else [number]
    return tag(
        "div",
        tag("b", *parts),
        tag("span", about),
        class_=f"tile {kind}".strip(),
    )


def _test_score(result: Result) -> Mapping[str, Any]:
    """Mean and standard deviation of the selection metric on the test split."""
    return result["summary"]["test"][result["selection_metric"]]


def _constant_baseline(result: Result) -> str:
    """Description of the constant baseline."""
    return result["baseline"]["description"]


def _runs(result: Result) -> str:
    """Description of the main score, such as "test accuracy, mean of 5 runs"."""
    number = len(result["runs"])
    name = f"test {result['metrics'][result['selection_metric']]['label']}"
    return name if number == 1 else f"{name}, mean of {number} runs"


def _all_runs(result: Result) -> Iterator[Mapping[str, Any]]:
    """Yields every run and its unimodal stages."""
    for run in result["runs"]:
        yield run
        yield from run.get("stages", {}).values()


def _best_stage(result: Result) -> tuple[str, float] | None:
    """Returns the best single modality and its mean score."""
    select = result["selection_metric"]
    means = {
        name: stage["test"][select]["mean"]
        for name, stage in result["summary"]["stages"].items()
    }
    means = {
        name: value for name, value in means.items() if formatting.is_number(value)
    }
    best = max if result["metrics"][select]["higher_is_better"] else min
    return best(means.items(), key=lambda item: item[1]) if means else None


def _compared(result: Result) -> str:
    """Describes the tests of fusion vs. the best single modality."""
    best, select = _best_stage(result), result["selection_metric"]
    if best is None or len(result["runs"]) < 2:
        return ""
    fused = [run["test"][select] for run in result["runs"]]
    unimodal = [run["stages"][best[0]]["test"][select] for run in result["runs"]]
    if not all(map(formatting.is_number, (*fused, *unimodal))):
        return ""
    metric, found = result["metrics"][select], paired_test(fused, unimodal)
    gains = [a - b for a, b in zip(fused, unimodal, strict=True)]
    low, high = bootstrap_interval(gains)
    return (
        f" Paired difference to {best[0]} only: "
        f"{formatting.difference(metric, found.difference)}, 95 % confidence interval "
        f"{formatting.difference(metric, low)} to "
        f"{formatting.difference(metric, high)} (bootstrap over runs); paired t-test "
        f"p = {formatting.p_value(found.t_test)}, signed-rank test p = "
        f"{formatting.p_value(found.wilcoxon)}."
    )


def _bar(
    metric: formatting.Metric, value: Mapping[str, Any], full: float, kind: str
) -> list[Html]:
    """Two cells: a score, and a bar whose length is its fraction of `full`."""
    mean, std = value["mean"] or 0.0, value["std"] or 0.0
    at = lambda x: f"{100 * min(max(x / max(full, 1e-9), 0.0), 1.0):.2f}%"
    parts = [tag("i", class_=kind or None, style=f"width:{at(mean)}")]
    if std > 0:
        low, high = max(mean - std, 0.0), min(mean + std, full)
        parts.append(tag("u", style=f"left:{at(low)};width:{at(high - low)}"))
    text = formatting.mean_std(metric, value)
    return [
        tag("td", text, class_="fused" if kind == "fused" else None),
        tag("td", tag("div", *parts, class_="bar", aria_hidden="true"), class_="graph"),
    ]


def _stage_charts(
    workdir: Path, result: Result, metric: formatting.Metric
) -> Iterator[Html]:
    """Yields a chart for every unimodal stage."""
    for stage in result["summary"]["stages"]:
        folders = [workdir / run["folder"] / "stages" / stage for run in result["runs"]]
        logs = [read_metrics(folder) for folder in folders]
        lines = {
            "validation": [
                series(log, f"valid/{result['selection_metric']}") for log in logs
            ],
            "test": [series(log, f"test/{result['selection_metric']}") for log in logs],
        }
        percent = formatting.is_fraction(metric)
        what, salt = f"{metric['label']}, {stage} only", f"stage {stage}"
        yield curves(lines, [], what, salt, percent=percent)
