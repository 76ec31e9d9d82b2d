"""Predicts new files with a trained run.

python -m mmfusion_jax predict --run=runs/mine new.mp4
python -m mmfusion_jax predict --run=runs/mine clips/labels.csv --csv
"""

import contextlib
import csv
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mmfusion_jax.cli.command import Command
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    printable,
    shorten,
    shown_name,
)

if TYPE_CHECKING:  # slow to import, and needed only once the flags are valid
    from mmfusion_jax.inference.prediction import Prediction
    from mmfusion_jax.inference.predictor import Predictor
    from mmfusion_jax.inference.trained_run import TrainedRun
    from mmfusion_jax.results.model_result import TaskInfo

RESPONSIBLE_USE = (
    "Predictions are about portrayed or perceived affect in the training data, not "
    "about what a person feels. Do not use them to infer the emotions of people at "
    "work or in education, which the EU prohibits (AI Act, Art. 5(1)(f))."
)
MAX_BATCH = 16
MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class PredictResult:
    """What the command prints with --json.

    Attributes:
        run: Folder of the run.
        label: Name of the label.
        remarks: Sentences about the run.
        predictions: One for each example; one that could not be read has an error.
    """

    run: str
    label: str
    remarks: list[str]
    predictions: "list[Prediction]"


def predict_command(command: ParsedCommand) -> int:
    """Predicts files and prints a table, JSON or CSV; returns 1 if a file failed."""
    flags = command.flags
    if not flags["run"]:
        raise ConfigError("C01", "--run is missing.", "--run=runs/NAME")
    if not command.positionals:
        raise ConfigError(
            "C01", "FILE is missing.", "a clip, a folder or a feature file"
        )
    if flags["json"] and flags["csv"]:
        raise ConfigError("C01", "--json and --csv exclude each other.", "one of them")
    # With --json and --csv, stdout has the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        predictor, inputs = _load(command)
        found = predictor.predict(
            inputs,
            leave_out=words(flags["leave_out"]),
            coverage=flags["coverage"],
            explain=not flags["csv"],
            errors="return",
        )
    from mmfusion_jax.results.json_file import dumps

    run = predictor.run
    failed = [one for one in found if one.error]
    if len(failed) == len(found):
        raise _all_failed(failed)
    if flags["json"]:
        label, remarks = run.info.task.label, [*run.remarks, *calibration_lines(run)]
        print(dumps(PredictResult(str(run.folder), label, remarks, found)))
    elif flags["csv"]:
        write_csv(found, predictor)
    else:
        show(found, predictor)
    if failed and (flags["json"] or flags["csv"]):
        print(printable("\n".join(_failures(failed, len(found)))), file=sys.stderr)
    return 1 if failed else 0


def _all_failed(failed: "Sequence[Prediction]") -> DataError:
    """Returns the error if nothing could be predicted."""
    if len(failed) == 1:
        return DataError("D43", shorten(failed[0].error, 1000))
    lines = _failures(failed, len(failed))
    return DataError("D43", "\n".join(lines))


def _failures(failed: "Sequence[Prediction]", total: int) -> list[str]:
    """Returns which of `total` examples could not be predicted."""
    lines = [f"{len(failed)} of {total} examples cannot be predicted:"]
    lines += [f"  {shorten(one.error, 400)}" for one in failed[:MAX_LISTED]]
    if len(failed) > MAX_LISTED:
        lines.append(f"  and {len(failed) - MAX_LISTED} more")
    return lines


def words(text: str) -> list[str]:
    """Returns the words of a flag that are separated by commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def _load(command: ParsedCommand) -> "tuple[Predictor, list[Any]]":
    """Returns the predictor and its inputs."""
    from mmfusion_jax.inference.clip_inputs import ClipInput
    from mmfusion_jax.inference.predictor import load
    from mmfusion_jax.runner.runtime import initialize_one_process

    text = command.flags["text"]
    initialize_one_process()
    predictor = load(
        command.flags["run"],
        batch_size=MAX_BATCH,
        packages=words(command.flags["packages"]),
    )
    inputs: list[Any] = [*predictor.expand(command.positionals)]
    clips = [one for one in inputs if isinstance(one, ClipInput)]
    if text and len(clips) == len(inputs) == 1:
        inputs = [dataclasses.replace(clips[0], text=text)]
    elif text:
        raise ConfigError(
            "C01",
            "--text is the transcript of one clip.",
            "a labels.csv with the columns file and text, for several",
        )
    if len(clips) == len(inputs):
        predictor.batch_size = min(len(clips), MAX_BATCH)
    return predictor, inputs


def write_csv(found: "Sequence[Prediction]", predictor: "Predictor") -> None:
    """Prints predictions as a table of comma-separated values."""
    task, names = predictor.run.info.task, predictor.labels
    table = csv.writer(sys.stdout, lineterminator="\n")
    bounds = ["low", "high"] if task.kind == "regression" else ["prediction_set"]
    table.writerow(
        [
            "id",
            "prediction",
            *(f"p_{name}" for name in names),
            *bounds,
            "missing",
            "error",
        ]
    )
    for one in found:
        if one.error:
            empty = [""] * (len(names) + len(bounds) + 2)
            table.writerow([one.id, *empty, shorten(one.error, 400)])
            continue
        values = [f"{one.probabilities[name]:.6f}" for name in names]
        if task.kind == "regression":
            limits = [f"{x:.6g}" for x in one.interval or ()] or ["", ""]
        else:
            limits = [";".join(one.prediction_set or [])]
        missing = ";".join(one.missing)
        table.writerow([one.id, answer(one), *values, *limits, missing, ""])


def answer(one: "Prediction") -> str:
    """Returns the class, the flags or the score of a prediction."""
    if one.label is not None:
        return one.label
    return f"{one.score:.4g}" if one.score is not None else ";".join(one.flags)


def show(found: "Sequence[Prediction]", predictor: "Predictor") -> None:
    """Prints predictions as a table, with what is known of them."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    failed = [one for one in found if one.error]
    found = [one for one in found if not one.error]
    run, task = predictor.run, predictor.run.info.task
    calibrated = run.calibration is not None
    heads = _heads(task, found[0].coverage if calibrated else None)
    left = [m for m in predictor.modalities if any(m in p.without for p in found)]
    heads += [f"without {shown_name(m)}" for m in left]
    if weighted := any(one.weights for one in found):
        heads.append("weights")
    table = Table()
    for number, head in enumerate(heads):
        # Folded: the default cuts what is too long for a narrow terminal.
        table.add_column(
            shorten(head),
            justify="left" if number < 2 else "right",
            overflow="fold",
        )
    names = _short_names([one.id for one in found])
    for name, one in zip(names, found, strict=True):
        cells = [name, answer(one) or "none", *_numbers(one, task.kind, calibrated)]
        cells += [_without(one, m) for m in left]
        if weighted:
            parts = [f"{shown_name(m)} {w:.2f}" for m, w in one.weights.items()]
            cells.append(", ".join(parts))
        table.add_row(*(shorten(cell) for cell in cells))
    console.print(table)
    for line in notes(found, predictor):
        console.print(shorten(line, 400), style="dim")
    for line in _failures(failed, len(failed) + len(found)) if failed else ():
        console.print(line)


def _heads(task: "TaskInfo", coverage: float | None) -> list[str]:
    """Returns the heads of the first columns; `coverage` is None if not calibrated."""
    heads = ["file", shown_name(task.label)]
    if task.kind != "regression":
        suffix = " (not calibrated)" if coverage is None else ""
        heads.append(f"probability{suffix}")
    if coverage is not None:
        kind = "interval" if task.kind == "regression" else "set"
        heads.append(f"{kind} of coverage {coverage:g}")
    return heads


def _short_names(ids: Sequence[str]) -> list[str]:
    """Returns the last part of each path, or all of it if two are the same."""
    names = [name.rsplit("/", 1)[-1] for name in ids]
    return names if len({*names}) == len(names) else [*ids]


def _numbers(one: "Prediction", kind: str, calibrated: bool) -> list[str]:
    """Returns the probability and the set or interval."""
    cells = []
    if kind == "classification":
        cells.append("unknown" if one.confidence is None else f"{one.confidence:.2f}")
    elif kind == "multilabel":
        cells.append(
            ", ".join(f"{shown_name(n)} {p:.2f}" for n, p in one.probabilities.items())
        )
    if not calibrated:
        return cells
    if one.interval is not None:
        return [*cells, f"{one.interval[0]:.3g} to {one.interval[1]:.3g}"]
    return [*cells, ", ".join(map(shown_name, one.prediction_set or [])) or "none"]


def _without(one: "Prediction", modality: str) -> str:
    """Returns the prediction without a modality and the change."""
    if modality not in one.without:
        return "–"
    left = one.without[modality]
    if left.score is not None:
        return f"{left.score:.3g} ({left.change:+.2g})"
    name = left.label or ", ".join(left.flags) or "none"
    return f"{shown_name(name)} ({left.change:+.2f})"


def calibration_lines(run: "TrainedRun") -> list[str]:
    """Returns sentences about the calibration of a run, also of one that has none."""
    from mmfusion_jax.results.calibration_file import calibration_notes

    if run.calibration is not None:
        return calibration_notes(run.calibration)
    cause = "the run has no validation split"
    # The scores are written at the end of the training, as is the calibration.
    cause = "the training has not ended" if run.scores is None else cause
    return [f"not calibrated: {shorten(cause)}"]


def notes(found: "Sequence[Prediction]", predictor: "Predictor") -> list[str]:
    """Returns sentences about predictions and their run."""
    run = predictor.run
    lines = [f"run: {run.folder}, step {run.step}", *run.remarks]
    lines += calibration_lines(run)
    names = _short_names([one.id for one in found])
    for name, one in list(zip(names, found, strict=True))[:20]:
        if one.missing:
            lines.append(
                f"{shown_name(name)}: without {', '.join(map(shown_name, one.missing))}"
                + predictor.score_without(one.missing)
            )
        lines += [f"{shown_name(name)}: {shorten(remark)}" for remark in one.remarks]
    return [*lines, RESPONSIBLE_USE]


COMMAND = Command(
    "mmfusion_jax predict",
    f"Predicts clips or feature files with a trained run. {RESPONSIBLE_USE}",
    predict_command,
    (
        Flag("run", "", "workdir of the training, or an exported folder"),
        Flag("text", "", "transcript of the clip"),
        Flag("leave_out", "", "modalities to ignore, separated by commas"),
        Flag("coverage", 0.9, "nominal coverage of the sets and intervals, 0..1"),
        Flag("csv", False, "print comma-separated values on stdout"),
        Flag("packages", "", "packages whose parts the config of the run may name"),
    ),
    needs_config=False,
    positional="FILE ...",
)
