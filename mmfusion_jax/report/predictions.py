"""Sections on the predictions: plots, all metrics and modality weights."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import scatter
from mmfusion_jax.report.html import Html, table, tag

Result = Mapping[str, Any]


def prediction_plot(result: Result) -> Html:
    """Plot of the predictions for the kind of task; empty if there is none."""
    plots = [run["plot_data"] for run in result["runs"]]
    if "confusion" in plots[0]:
        return _confusion(result, [each["confusion"] for each in plots])
    if "pairs" in plots[0]:
        return _pairs(result, [each["pairs"] for each in plots])
    return Html("")


def _pairs(result: Result, pairs: list[Mapping[str, Any]]) -> Html:
    """Predictions vs. labels, one dot per example."""
    low, high = result["task"]["range"]
    y_true = np.concatenate([each["truth"] for each in pairs])
    y_pred = np.concatenate([each["prediction"] for each in pairs])
    chart = scatter(y_true, y_pred, (low, high), result["task"]["label"])
    text = "Each dot is a test example; on the line the prediction equals the label."
    if len(pairs) > 1:
        text += " All runs combined."
    return tag(
        "section",
        tag("h2", "Predictions vs. labels"),
        tag("div", chart, class_="figures"),
        tag("p", text, class_="note"),
    )


def _confusion(result: Result, matrices: list[Any]) -> Html:
    """Confusion matrix over all runs."""
    classes = result["task"]["classes"]
    counts = np.sum(matrices, axis=0)
    totals = counts.sum(axis=1)
    rows = []
    for label, row, total in zip(classes, counts, totals, strict=True):
        cells = [_confusion_cell(int(value), int(total)) for value in row]
        recall = (
            formatting.score(formatting.FRACTION, row[len(rows)] / total)
            if total
            else formatting.DASH
        )
        rows.append([label, *cells, tag("td", recall, class_="recall")])
    return tag(
        "section",
        tag("h2", "Confusion matrix"),
        table(
            ["true ↓ predicted →", *classes, "recall"],
            rows,
            "Test examples by true class (rows) and predicted class (columns)"
            + (", all runs combined." if len(result["runs"]) > 1 else "."),
            "confusion",
        ),
    )


def all_metrics(result: Result) -> Html:
    """All metrics of every run, and their definitions."""
    names = list(result["summary"]["test"])
    metrics = [result["metrics"][name] for name in names]
    rows = [
        [f"test, mean of {len(result['runs'])}"]
        + [
            formatting.mean_std(metric, result["summary"]["test"][name])
            for name, metric in zip(names, metrics, strict=True)
        ]
    ]
    for run in result["runs"]:
        for split in ("valid", "test"):
            values = run.get(split)
            if values is None:  # the run does not have this split
                continue
            cells = [
                formatting.score(metric, values.get(name))
                for name, metric in zip(names, metrics, strict=True)
            ]
            rows.append([f"fold {run['fold']}, seed {run['seed']}, {split}", *cells])
    definitions = [
        [metric["label"], metric["definition"]] for metric in result["metrics"].values()
    ]
    return tag(
        "section",
        tag("h2", "All metrics"),
        table(
            ["", *(metric["label"] for metric in metrics)],
            rows,
            "At the selected checkpoint.",
            "numbers",
        ),
        tag(
            "details",
            tag("summary", "Definitions"),
            table(["metric", "definition"], definitions, "Metrics", "prose"),
        ),
    )


def modality_weights(result: Result) -> Html:
    """Modality weights; empty for a model without them."""
    found = result["summary"].get("modality_weights") or {}
    if not found:
        return Html("")
    rows = [
        [name, formatting.mean_std(formatting.FRACTION, value)]
        for name, value in found.items()
    ]
    text = (
        "Weight of each modality relative to the sum of all; mean over the test "
        "examples with at least one modality."
    )
    return tag(
        "section",
        tag("h2", "Modality weights"),
        table(["modality", "weight"], rows, text, "numbers small"),
    )


def _confusion_cell(value: int, total: int) -> Html:
    """A count, shaded by its fraction of the row."""
    fraction = value / total if total else 0.0
    kind = "none" if value == 0 else "high" if fraction > 0.55 else None
    return tag("td", value, class_=kind, style=f"--fraction:{100 * fraction:.0f}%")
