"""Sections on model, time, data, configuration and environment."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmfusion_jax.config.load import flatten, format_value
from mmfusion_jax.report import formatting
from mmfusion_jax.report.html import Html, join, table, tag

Result = Mapping[str, Any]


def model(result: Result) -> Html:
    """Number of parameters by component."""
    counts = result["model"]["parameters"]
    total = counts["total"]
    rows = []
    for name, number in sorted(counts["components"].items(), key=lambda c: -c[1]):
        fraction = number / total if total else 0.0
        bar = tag("i", class_="fused", style=f"width:{100 * fraction:.2f}%")
        graph = tag("div", bar, class_="bar", aria_hidden="true")
        cells = formatting.count(number), f"{100 * fraction:.1f} %"
        rows.append([name, *cells, tag("td", graph, class_="graph")])
    rows.append([tag("th", "total", scope="row"), formatting.count(total), "100 %", ""])
    return tag(
        "section",
        tag("h2", "Parameters"),
        table(
            ["component", "parameters", "fraction", ""],
            rows,
            "Parameters by component.",
            "numbers",
        ),
    )


def time(result: Result) -> Html:
    """Time by run."""
    head = [
        "run", "selected step", "steps", "ended", "compile", "step (p10–p90)",
        "data stall", "total", "skipped steps",
    ]  # fmt: skip
    rows, stages = [], []
    for run in result["runs"]:
        key = f"fold {run['fold']}, seed {run['seed']}"
        rows.append(_time_row(key, run))
        for name, stage in run.get("stages", {}).items():
            stages.append(_time_row(f"{key}, {name} only", stage))
    text = (
        f"On {_device(result)}. The step time is the median; data stall is the "
        "fraction of the training time spent waiting for data. Skipped steps had a "
        "non-finite loss or gradient."
    )
    parts = [tag("h2", "Runs and time"), table(head, rows, text)]
    if stages:
        more = table(head, stages, "The encoders were first trained separately.")
        parts.append(tag("details", tag("summary", "Unimodal models"), more))
    return tag("section", *parts)


def dataset_metadata(result: Result) -> Html:
    """Splits and metadata of the data set."""
    about = result["data"]
    counts = [
        [name, formatting.count(number)] for name, number in about["counts"].items()
    ]
    metadata = [
        [name.replace("_", " "), _text(value)]
        for name, value in about["facts"].items()
        if name not in ("warnings", "hints")
    ]
    parts = [
        tag("h2", "Dataset"),
        table(["split", "examples"], counts, str(about["title"]), "numbers small"),
    ]
    if metadata:
        facts = table(["", ""], metadata, "Dataset metadata", "prose")
        parts.append(tag("details", tag("summary", "Metadata"), facts))
    return tag("section", *parts)


def reproduce(result: Result) -> Html:
    """Command, versions and configuration."""
    rows = [
        [f"config.{name}", format_value(value)]
        for name, value in flatten(result["config"]).items()
    ]
    origin = [
        ["commit", result["git"] or "unknown"],
        ["device", _device(result)],
        ["written", result["created"]],
        *result["versions"].items(),
    ]
    return tag(
        "section",
        tag("h2", "Reproduce"),
        tag("pre", join(_words(result["command"]))),
        tag(
            "details",
            tag("summary", "Versions"),
            table(["", ""], origin, "Environment", "prose"),
        ),
        tag(
            "details",
            tag("summary", "Full configuration"),
            table(["field", "value"], rows, "All fields", "prose"),
        ),
    )


def responsible_use() -> Html:
    """Limits of use."""
    text = (
        "This is research software. Its predictions are about the labels of a data "
        "set; where these are emotions, they are portrayed or perceived affect, often "
        "by actors, not what a person feels. Do not use it to infer emotions of people "
        "at work or in education: in the EU that is prohibited (AI Act, Art. 5(1)(f)) "
        "except for medical or safety reasons, and other uses on faces, voices or "
        "physiological signals are high-risk. Get consent, report errors by group, and "
        "keep to the license of the data."
    )
    return tag("section", tag("h2", "Responsible use"), tag("p", text, class_="note"))


def _words(command: str) -> Iterator[str]:
    """Yields the words of the command; lines break between words only."""
    for number, word in enumerate(command.split(" ")):
        yield " " if number else ""
        yield tag("span", word)


def _device(result: Result) -> str:
    return f"{result['device']['count']} × {result['device']['kind']}"


def _time_row(name: str, run: Mapping[str, Any]) -> list[str]:
    times = run["times"]
    step = times["step_s"]
    span = f"{formatting.seconds(step['p10'])}–{formatting.seconds(step['p90'])}"
    return [
        name,
        f"{run['step']} (epoch {run['epoch']:.0f})",
        formatting.count(run["steps"]),
        run["ended"],
        formatting.seconds(times["compile_s"]),
        f"{formatting.seconds(step['median'])} ({span})",
        f"{100 * times['data_stall_fraction']:.1f} %",
        formatting.seconds(times["total_s"]),
        str(run["skipped_steps"]),
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
