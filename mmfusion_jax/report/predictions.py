"""The sections that look at the answers: which ones are wrong, and by every score."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import scatter
from mmfusion_jax.report.html import Html, table, tag

Result = Mapping[str, Any]


def prediction_plot(result: Result) -> Html:
    """What the kind of task lets one see; nothing where there is nothing to draw."""
    plots = [run["plot_data"] for run in result["runs"]]
    if "confusion" in plots[0]:
        return _confusion(result, [each["confusion"] for each in plots])
    if "pairs" in plots[0]:
        return _pairs(result, [each["pairs"] for each in plots])
    return Html("")


def _pairs(result: Result, pairs: list[Mapping[str, Any]]) -> Html:
    """Answers over labels, one dot an example."""
    low, high = result["task"]["range"]
    truth = np.concatenate([each["truth"] for each in pairs])
    said = np.concatenate([each["prediction"] for each in pairs])
    chart = scatter(truth, said, (low, high), result["task"]["label"])
    text = "A dot is a test example; on the line the answer is the label."
    if len(pairs) > 1:
        text += " All runs together."
    return tag(
        "section",
        tag("h2", "Answers and labels"),
        tag("div", chart, class_="figures"),
        tag("p", text, class_="note"),
    )


def _confusion(result: Result, matrices: list[Any]) -> Html:
    """Which classes are taken for which, over all runs."""
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
        tag("h2", "Confusion"),
        table(
            ["true ↓ said →", *classes, "recall"],
            rows,
            "Test examples by true class (rows) and by the class the model said"
            + (", all runs together." if len(result["runs"]) > 1 else "."),
            "confusion",
        ),
    )


def all_metrics(result: Result) -> Html:
    """Every score of every run, and what the scores mean."""
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
            if values is None:  # a split that the run does not have
                continue
            cells = [
                formatting.score(metric, values.get(name))
                for name, metric in zip(names, metrics, strict=True)
            ]
            rows.append([f"{_place(run)}{split}", *cells])
    meanings = [
        [metric["label"], metric["definition"]] for metric in result["metrics"].values()
    ]
    return tag(
        "section",
        tag("h2", "All scores"),
        table(
            ["", *(metric["label"] for metric in metrics)],
            rows,
            "At the chosen step.",
            "numbers",
        ),
        tag(
            "details",
            tag("summary", "What the scores mean"),
            table(["score", "definition"], meanings, "Definitions", "prose"),
        ),
    )


def modality_weights(result: Result) -> Html:
    """What every modality counts for; nothing for a model that does not say it."""
    found = result["summary"].get("modality_weights") or {}
    if not found:
        return Html("")
    rows = [
        [name, formatting.mean_std(formatting.FRACTION, value)]
        for name, value in found.items()
    ]
    text = (
        "What the model gives a modality, as a share of what it gives all; mean over "
        "the test examples that have a modality at all."
    )
    return tag(
        "section",
        tag("h2", "What modalities count for"),
        table(["modality", "share"], rows, text, "numbers small"),
    )


def _confusion_cell(value: int, total: int) -> Html:
    """A count, shaded by its share of the row."""
    share = value / total if total else 0.0
    kind = "none" if value == 0 else "high" if share > 0.55 else None
    return tag("td", value, class_=kind, style=f"--share:{100 * share:.0f}%")


def _place(run: Mapping[str, Any]) -> str:
    return f"fold {run['fold']}, seed {run['seed']}, "
