"""The sections that say how good the model is, and how sure that is."""

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

CHOSEN_BY = {
    "validation": "best validation score",
    "fixed_epochs": "nothing, the last step",
    "as_published": "best test score",
}
"""Protocol -> what chooses the step that is scored."""


def headline(result: Result, title: str) -> Html:
    """What was done, the score, and what it is to be compared with."""
    select, ours = result["selection_metric"], _ours(result)
    metric = result["metrics"][select]
    tiles = [_tile(formatting.mean_std(metric, ours), _runs(result), "main")]
    best = _best_stage(result)
    if best is not None:
        tiles.append(_tile(formatting.score(metric, best[1]), f"{best[0]} alone"))
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
    tiles.append(_tile(formatting.seconds(total), "of training"))
    sentence = f"Test {metric['label']} {formatting.mean_std(metric, ours)}"
    if best is not None:
        gain = formatting.difference(metric, ours["mean"], best[1])
        sentence += f", {gain} against {best[0]} alone"
    place = f"Label “{result['task']['label']}”, protocol “{result['protocol']}”"
    return tag(
        "header",
        tag("h1", title),
        tag("p", f"{sentence}. {place}.", class_="lead"),
        tag("div", *tiles, class_="tiles"),
    )


def warnings(result: Result) -> Html:
    """What a reader must know before believing the numbers."""
    found = list(result["data"]["facts"].get("warnings", ()))
    if len(result["runs"]) == 1:
        found.append(
            "One run: how much the score swings with the seed is not known; "
            "set config.seeds to 5 to see it."
        )
    if result["protocol"] == "as_published":
        found.append(
            "Protocol “as_published”: the step was chosen by its score on the test "
            "split, as the paper did. The headline is not an estimate for new data."
        )
    found += [f"In {line}." for line in undefined_scores(result["runs"])]
    if bad := sum(run["skipped_steps"] for run in _all_runs(result)):
        found.append(f"{bad} steps were refused: loss or gradient was not finite.")
    return join(tag("p", tag("b", "Note "), text, class_="warning") for text in found)


def fusion_vs_unimodal(result: Result) -> Html:
    """The fusion beside every modality alone and an answer that looks at nothing."""
    text = "The same data, recipe and rule for choosing the step in every row."
    if len(result["runs"]) > 1:
        text += (
            f" ± is the standard deviation over {len(result['runs'])} runs; the dark "
            "line on a bar spans it."
        )
        text += _compared(result)
    tables = [
        _table_of(score, result, "The same runs in another score." if i else text)
        for i, score in enumerate(headline_scores(result))
    ]
    return tag("section", tag("h2", "What fusion adds"), *tables)


def _table_of(score: str, result: Result, text: str) -> Html:
    """Everyone's test score."""
    metric, ours = result["metrics"][score], result["summary"]["test"][score]
    point = result["baseline"]["scores"].get(score)
    stages = result["summary"]["stages"]
    values = [
        ours["mean"],
        *(stage["test"][score]["mean"] for stage in stages.values()),
    ]
    values = [value for value in values if formatting.is_number(value)]
    full = 1.0 if formatting.is_fraction(metric) else max(values, default=1.0)
    rows = []
    if point is not None:
        full = max(full, point["mean"])
        alone = {**point, "n": 1, "std": 0.0}
        rows.append([_constant_baseline(result), *_bar(metric, alone, full, ""), 0])
    for name, stage in stages.items():
        bar = _bar(metric, stage["test"][score], full, "stage")
        weights = result["runs"][0]["stages"][name]["parameters"]["total"]
        rows.append([f"{name} alone", *bar, formatting.count(weights)])
    weights = formatting.count(result["model"]["parameters"]["total"])
    rows.append([result["model"]["name"], *_bar(metric, ours, full, "ours"), weights])
    head = ["", f"test {metric['label']}", "", "parameters"]
    return table(head, rows, text, "numbers")


def checkpoint_selection(result: Result) -> Html:
    """The honest figure beside the one that looks at the test split."""
    select, summary = result["selection_metric"], result["summary"]
    metric, protocol = result["metrics"][select], result["protocol"]
    found = [(f"{CHOSEN_BY[protocol]}: the result above", _ours(result))]
    if "last" in summary and protocol != "fixed_epochs":
        found.append((CHOSEN_BY["fixed_epochs"], summary["last"][select]))
    if summary.get("best_test") and protocol != "as_published":
        found.append((CHOSEN_BY["as_published"], summary["best_test"]["score"]))
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
        "Many published figures take the best score that the test split ever showed. "
        "That figure knows the answers: it grows with the number of looks, and new "
        "data will not repeat it. It is shown so that it can be set beside such "
        "figures."
    )
    head = ["step chosen by", f"test {metric['label']}", "difference"]
    return tag(
        "section",
        tag("h2", "Honest and flattering"),
        table(head, rows, "The same runs, read in different ways.", "numbers"),
        tag("p", text, class_="note"),
    )


def learning_curves(workdir: Path, result: Result) -> Html:
    """Curves of loss and score, of the model and of its stages."""
    select, runs = result["selection_metric"], result["runs"]
    metric = result["metrics"][select]
    logs = [read_metrics(workdir / run["folder"]) for run in runs]
    chosen = "valid" if result["protocol"] == "validation" else "test"
    marks = [
        (run["epoch"], run[chosen][select])
        for run in runs
        if run.get(chosen) and formatting.is_number(run[chosen][select])
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
            share=False,
        ),
        curves(
            {
                "validation": [series(log, f"valid/{select}") for log in logs],
                "test (decides nothing)" if chosen == "valid" else "test": [
                    series(log, f"test/{select}") for log in logs
                ],
            },
            marks,
            metric["label"],
            "score",
            share=formatting.is_fraction(metric),
        ),
    ]
    parts = [tag("h2", "Learning curves"), tag("div", *charts, class_="figures")]
    if stages := list(_stage_charts(workdir, result, metric)):
        parts.append(
            tag(
                "details",
                tag("summary", "Curves of the single modalities"),
                tag("div", *stages, class_="figures"),
            )
        )
    return tag("section", *parts)


def _tile(value: str, about: str, kind: str = "") -> Html:
    """A number, its deviation smaller, and what it is."""
    number, sign, rest = value.partition(" ±")
    parts = [number, tag("small", sign, rest)] if sign else [number]
    return tag(
        "div",
        tag("b", *parts),
        tag("span", about),
        class_=f"tile {kind}".strip(),
    )


def _ours(result: Result) -> Mapping[str, Any]:
    """The spread of the score that counts."""
    return result["summary"]["test"][result["selection_metric"]]


def _constant_baseline(result: Result) -> str:
    """The answer that looks at no input, in words."""
    return result["baseline"]["description"]


def _runs(result: Result) -> str:
    """What the headline is made of, such as "test accuracy, mean of 5 runs"."""
    number = len(result["runs"])
    name = f"test {result['metrics'][result['selection_metric']]['label']}"
    return name if number == 1 else f"{name}, mean of {number} runs"


def _all_runs(result: Result) -> Iterator[Mapping[str, Any]]:
    """Every run and every stage of one."""
    for run in result["runs"]:
        yield run
        yield from run.get("stages", {}).values()


def _best_stage(result: Result) -> tuple[str, float] | None:
    """The best single modality and its mean score."""
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
    """How sure it is that fusion differs from the best single modality, in words."""
    best, select = _best_stage(result), result["selection_metric"]
    if best is None or len(result["runs"]) < 2:
        return ""
    ours = [run["test"][select] for run in result["runs"]]
    alone = [run["stages"][best[0]]["test"][select] for run in result["runs"]]
    if not all(map(formatting.is_number, (*ours, *alone))):
        return ""
    metric, found = result["metrics"][select], paired_test(ours, alone)
    low, high = bootstrap_interval([a - b for a, b in zip(ours, alone, strict=True)])
    return (
        f" Run by run it is {formatting.difference(metric, found.difference)} against "
        f"{best[0]} alone, 95 % interval {formatting.difference(metric, low)} to "
        f"{formatting.difference(metric, high)} (bootstrap over runs); paired t-test "
        f"p = {formatting.p_value(found.t_test)}, signed-rank test p = "
        f"{formatting.p_value(found.wilcoxon)}."
    )


def _bar(
    metric: formatting.Metric, value: Mapping[str, Any], full: float, kind: str
) -> list[Html]:
    """Two cells: a score, and a bar as long as its share of `full`."""
    mean, std = value["mean"] or 0.0, value["std"] or 0.0
    at = lambda x: f"{100 * min(max(x / max(full, 1e-9), 0.0), 1.0):.2f}%"
    parts = [tag("i", class_=kind or None, style=f"width:{at(mean)}")]
    if std > 0:
        low, high = max(mean - std, 0.0), min(mean + std, full)
        parts.append(tag("u", style=f"left:{at(low)};width:{at(high - low)}"))
    text = formatting.mean_std(metric, value)
    return [
        tag("td", text, class_="ours" if kind == "ours" else None),
        tag("td", tag("div", *parts, class_="bar", aria_hidden="true"), class_="graph"),
    ]


def _stage_charts(
    workdir: Path, result: Result, metric: formatting.Metric
) -> Iterator[Html]:
    """A chart for every stage."""
    for stage in result["summary"]["stages"]:
        folders = [workdir / run["folder"] / "stages" / stage for run in result["runs"]]
        logs = [read_metrics(folder) for folder in folders]
        lines = {
            "validation": [
                series(log, f"valid/{result['selection_metric']}") for log in logs
            ],
            "test": [series(log, f"test/{result['selection_metric']}") for log in logs],
        }
        share = formatting.is_fraction(metric)
        what, salt = f"{metric['label']}, {stage} alone", f"stage {stage}"
        yield curves(lines, [], what, salt, share=share)
