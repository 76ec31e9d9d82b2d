"""The sections that say what was used: model, time, data, configuration, versions."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mmfusion_jax.config.load import flatten, format_value
from mmfusion_jax.report import formatting
from mmfusion_jax.report.html import Html, join, table, tag

Result = Mapping[str, Any]


def model(result: Result) -> Html:
    """Where the parameters are."""
    counts = result["model"]["parameters"]
    total = counts["total"]
    rows = []
    for name, number in sorted(counts["components"].items(), key=lambda c: -c[1]):
        share = number / total if total else 0.0
        bar = tag("i", class_="ours", style=f"width:{100 * share:.2f}%")
        graph = tag("div", bar, class_="bar", aria_hidden="true")
        cells = formatting.count(number), f"{100 * share:.1f} %"
        rows.append([name, *cells, tag("td", graph, class_="graph")])
    rows.append([tag("th", "all", scope="row"), formatting.count(total), "100 %", ""])
    return tag(
        "section",
        tag("h2", "Parameters"),
        table(["component", "parameters", "share", ""], rows, "Weights.", "numbers"),
    )


def time(result: Result) -> Html:
    """Where the time went, by run."""
    head = [
        "run", "chosen step", "steps", "ended", "compile", "step (10–90 %)",
        "data wait", "total", "bad steps",
    ]  # fmt: skip
    rows, stages = [], []
    for run in result["runs"]:
        place = f"fold {run['fold']}, seed {run['seed']}"
        rows.append(_time_row(place, run))
        for name, stage in run.get("stages", {}).items():
            stages.append(_time_row(f"{place}, {name} alone", stage))
    text = (
        f"On {_device(result)}. A step is given by its median; data wait is the share "
        "of the training time in which the loop had no batch yet."
    )
    parts = [tag("h2", "Runs and time"), table(head, rows, text)]
    if stages:
        more = table(head, stages, "The encoders were trained alone first.")
        parts.append(tag("details", tag("summary", "Single modalities"), more))
    return tag("section", *parts)


def dataset_metadata(result: Result) -> Html:
    """The splits, and what is known of the data."""
    about = result["data"]
    counts = [
        [name, formatting.count(number)] for name, number in about["counts"].items()
    ]
    known = [
        [name.replace("_", " "), _text(value)]
        for name, value in about["facts"].items()
        if name not in ("warnings", "hints")
    ]
    parts = [
        tag("h2", "Data"),
        table(["split", "examples"], counts, str(about["title"]), "numbers small"),
    ]
    if known:
        facts = table(["", ""], known, "What is known of the data", "prose")
        parts.append(tag("details", tag("summary", "Facts about the data"), facts))
    return tag("section", *parts)


def reproduce(result: Result) -> Html:
    """The command, the versions and the whole configuration."""
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
        tag("h2", "To repeat it"),
        tag("pre", join(_words(result["command"]))),
        tag(
            "details",
            tag("summary", "Versions"),
            table(["", ""], origin, "What the numbers depend on", "prose"),
        ),
        tag(
            "details",
            tag("summary", "Full configuration"),
            table(["field", "value"], rows, "Every field", "prose"),
        ),
    )


def environment() -> Html:
    """What the numbers must not be used for."""
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
    """The command in pieces; a line breaks between words and not after a dash."""
    for number, word in enumerate(command.split(" ")):
        yield " " if number else ""
        yield tag("span", word)


def _device(result: Result) -> str:
    return f"{result['device']['count']} × {result['device']['kind']}"


def _time_row(place: str, run: Mapping[str, Any]) -> list[str]:
    times = run["times"]
    step = times["step_s"]
    span = f"{formatting.seconds(step['p10'])}–{formatting.seconds(step['p90'])}"
    return [
        place,
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
