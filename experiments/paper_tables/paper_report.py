"""The table of a paper from its trained rows, with notes, as JSON and Markdown."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from paired_rows import (
    HEADS,
    LEVEL,
    Differences,
    PairedDifference,
    comparable,
    differences,
    format_difference,
    format_wall,
    main_metric,
    row_scores,
    shared_provenance,
    simple_classifiers,
)
from paper_rows import PaperTable, Row
from row_runs import RowRun
from tables import format_metric

from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.rounding import format_number

NAMES = {"mis": "MIS", "macro_f1": "macro F1"}
PARTS = ("mis", "consistency", "confidence")
"""MIS and its parts, whose columns are there if a row has them."""

Made = Mapping[str, RowRun | str]
"""Row -> its run, or why the library does not have it."""


def paper_sign(table: PaperTable, row: Row, metric: str) -> str:
    """Returns how the paper has a row against the full model: "better", "worse", "".

    Args:
        table: The table.
        row: One of its rows.
        metric: A metric of the paper, of which higher is better.
    """
    (full,) = [one for one in table.rows if one.name == table.full]
    if row is full or metric not in row.paper or metric not in full.paper:
        return ""
    return _sign(row.paper[metric] - full.paper[metric])


def _sign(difference: float) -> str:
    # Means of equal scores in another order differ in the last bit.
    return (
        "equal" if abs(difference) < 1e-9 else "better" if difference > 0 else "worse"
    )


def note(name: str, metric: str, paper: str, found: PairedDifference) -> str:
    """Returns a sentence on a row that did not turn out as in the paper, else "".

    Args:
        name: The row.
        metric: Name of the metric.
        paper: Sign of the paper.
        found: Our difference; higher is better.
    """
    ours, significant = _sign(found.value), found.verdict == "significant"
    as_in_paper = not significant if paper == "equal" else ours == paper and significant
    if as_in_paper:
        return ""
    here = ours if ours == "equal" else f"{ours} by {format_number(abs(found.value))}"
    there = "equal to" if paper == "equal" else f"{paper} than"
    return (
        f"{name}: {metric} is {there} that of the full model in the paper, and {here} "
        f"here, {found.verdict}."
    )


def notes(
    table: PaperTable,
    found: Mapping[str, Differences],
    main: str,
    higher_is_better: bool = True,
) -> list[str]:
    """Returns the notes of all rows.

    Args:
        table: The table.
        found: Row -> metric -> difference.
        main: The metric that stands for the accuracy of the paper.
        higher_is_better: The direction of `main`; that of the others is higher.
    """
    made = []
    for row in table.rows:
        for metric in row.paper:
            ours = main if metric == "accuracy" else metric
            sign = paper_sign(table, row, metric)
            if sign and (difference := found.get(row.name, {}).get(ours)):
                if ours == main and not higher_is_better:
                    value = -difference.value
                    difference = dataclasses.replace(difference, value=value)
                label = f"the {NAMES.get(ours, ours)}"
                made.append(note(row.name, label, sign, difference))
    return [line for line in made if line]


def collect(table: PaperTable, made: Made, failed: Mapping[str, int]) -> dict[str, Any]:
    """Returns everything that is known of a table, as JSON values.

    Args:
        table: The table.
        made: Result of `row_runs`.
        failed: Row -> exit code, of the rows whose training failed.
    """
    results = {
        name: (run, result)
        for name, run in made.items()
        if isinstance(run, RowRun) and (result := run.result())
    }
    full = results.get(table.full)
    trained = {name: run for name, (run, _) in results.items()}
    found = differences(full[0], trained) if full else {}
    rows = [
        _row(table, row, made[row.name], failed.get(row.name), results, found)
        for row in table.rows
    ]
    details = _details(full, [result for _, result in results.values()])
    main = main_metric(full[1]) if full else ""
    higher = not full or full[1].metrics[main].higher_is_better
    return {
        "title": table.title,
        "numbers of the paper": table.numbers,
        "full model": table.full,
        "metric": main,
        **details,
        "rows": rows,
        "notes": notes(table, found, main, higher),
    }


def _details(
    full: tuple[RowRun, ExperimentResult] | None, results: Sequence[ExperimentResult]
) -> dict[str, Any]:
    """Returns the provenance of a table, and its simple classifiers."""
    if not results:
        return {}
    details = shared_provenance(results)
    if full:
        found = simple_classifiers(details["data"], full[0].modalities)
        names = sorted(full[0].modalities)
        details["simple classifiers"] = {"modalities": names, "accuracy": found}
    return details


def _row(
    table: PaperTable,
    row: Row,
    run: RowRun | str,
    code: int | None,
    results: Mapping[str, tuple[RowRun, ExperimentResult]],
    found: Mapping[str, Differences],
) -> dict[str, Any]:
    """Returns a row as JSON values."""
    made: dict[str, Any] = {
        "row": row.name,
        "flags": row.flags,
        "word": row.suffix,
        "paper": dict(row.paper),
        "paper's sign": paper_sign(table, row, next(iter(row.paper), "")),
    }
    if row.name in results:
        made["state"] = "finished"
        made |= row_scores(*results[row.name])
        full = results.get(table.full)
        if full and row.name != table.full:
            made["not compared"] = comparable(full[0], results[row.name][0])
        made["differences"] = {
            metric: dataclasses.asdict(one) | {"verdict": one.verdict}
            for metric, one in found.get(row.name, {}).items()
        }
    elif isinstance(run, str):
        made |= {"state": "not in this library", "why": run}
    elif code is not None:
        made["state"] = f"failed with exit code {code}"
    else:
        made["state"] = run.state(seeds=1)
    return made


def finished_rows(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of a table that `collect` made whose runs are finished."""
    return [row for row in made["rows"] if row["state"] == "finished"]


def markdown(made: Mapping[str, Any]) -> str:
    """Returns a table that `collect` made, with its notes, as Markdown."""
    rows = made["rows"]
    trained = finished_rows(made)
    if not trained:
        return f"# {made['title']}\n\nNo row of this table has been run.\n"
    parts = [name for name in PARTS if any(name in row["test"] for row in trained)]
    metric = made["metric"] or next(iter(trained[0]["test"]))
    heads = ["row", f"test {metric}", "validation", *HEADS, "paper's sign", "macro F1"]
    heads += [NAMES.get(name, name) for name in parts]
    heads += ["parameters", "wall time", "seeds"]
    lines = ["| " + " | ".join(heads) + " |", "| --- " * len(heads) + "|"]
    for row in rows:
        cells = _cells(made, row, metric, parts)
        lines.append(
            "| " + " | ".join([*cells, *[""] * (len(heads) - len(cells))]) + " |"
        )
    text = [f"# {made['title']}", _introduction(made), "\n".join(lines)]
    if made["notes"]:
        text.append("Rows that did not turn out as in the paper:")
        text.append("\n".join(f"- {line}" for line in made["notes"]))
    return "\n\n".join(text) + "\n"


def _cells(
    made: Mapping[str, Any], row: Mapping[str, Any], metric: str, parts: Sequence[str]
) -> list[str]:
    """Returns the cells of a row."""
    if row["state"] != "finished":
        return [row["row"], row["state"]]
    found = row["differences"].get(metric)
    fields = {f.name for f in dataclasses.fields(PairedDifference)}
    difference = found and PairedDifference(**{k: found[k] for k in fields})
    cells = format_difference(difference)
    cells[0] = row.get("not compared") or cells[0]
    return [
        row["row"],
        format_metric(row["test"].get(metric)),
        format_metric(row["valid"]),
        *cells,
        row["paper's sign"],
        *(format_metric(row["test"].get(name)) for name in ("macro_f1", *parts)),
        f"{row['parameters']:,}",
        format_wall(row["wall_s"]),
        str(len(row["seeds"])),
    ]


def _introduction(made: Mapping[str, Any]) -> str:
    """Returns what a reader needs to know before the table."""
    data, metric = made["data"], made["metric"]
    lines = [
        f"Trained on {data['title']}. The numbers of the paper "
        f"({made['numbers of the paper']}) are of other data: only the sign of their "
        f"difference to the full model, {made['full model']}, is shown.",
        "Mean and standard deviation over the seeds; protocol "
        f"`{made['protocol']}`. Differences are to the full model, with a paired test "
        "over the test examples and a paired t-test over the seeds, both adjusted by "
        f"Holm; a difference is called significant if both p are below {LEVEL}. "
        "Rows with different seeds are compared on their common seeds.",
    ]
    baseline = made["baseline"]
    if (score := baseline["test"].get(metric)) is not None:
        lines.append(
            f"The constant baseline ({baseline['description']}) scores "
            f"{format_number(score)}."
        )
    simple = made.get("simple classifiers")
    if simple and simple["accuracy"] is not None:
        lines.append(
            "The product of simple classifiers (experiments/digits) on "
            f"{', '.join(simple['modalities'])} scores "
            f"{format_number(simple['accuracy'])}."
        )
    if len(made["commits"]) > 1:
        commits = ", ".join(map(_shown_commit, made["commits"]))
        lines.append(f"The rows were trained with different commits: {commits}.")
    return "\n".join(lines)


def _shown_commit(commit: str) -> str:
    """Returns a short commit, with a note if files differed from it."""
    name, _, dirty = commit.partition("-")
    return f"{name[:12]} with changes" if dirty else name[:12]
