"""Scores a trained run on labeled data that it was not trained on.

python -m mmfusion_jax evaluate --run=runs/mine --data=new_clips
"""

import contextlib
import sys
from typing import TYPE_CHECKING

from mmfusion_jax.cli.command import Command
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.commands.predict import words
from mmfusion_jax.errors import ConfigError, shorten, shown_name

if TYPE_CHECKING:  # slow to import, and needed only once the flags are valid
    from rich.table import Table

    from mmfusion_jax.results.calibration_file import CalibrationTest
    from mmfusion_jax.results.data_evaluation import DataEvaluation, ScoreInterval

MAX_LISTED = 20


def evaluate_command(command: ParsedCommand) -> int:
    """Prints the scores; returns 1 if an example could not be scored."""
    flags = command.flags
    for name in ("run", "data"):
        if not flags[name]:
            raise ConfigError(
                "C01",
                f"--{shorten(name)} is missing.",
                "--run=runs/NAME --data=FOLDER; with --config, a run is scored on its "
                "own data",
            )
    # With --json, stdout has the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        from mmfusion_jax.inference.predictor import load
        from mmfusion_jax.runner.runtime import initialize_one_process

        initialize_one_process()
        predictor = load(flags["run"], packages=words(flags["packages"]))
        found = predictor.evaluate(flags["data"], split=flags["split"])
    if flags["json"]:
        from mmfusion_jax.results.json_file import dumps

        print(dumps(found))
    else:
        show(found)
    return 1 if found.unusable else 0


def show(found: "DataEvaluation") -> None:
    """Prints an evaluation as tables."""
    from rich.console import Console

    console = Console(highlight=False, markup=False)
    console.print(
        f"{shown_name(found.label)} of {shorten(found.data)}, n = {found.count}"
    )
    for table in tables(found):
        console.print(table)
    for line in lines(found):
        console.print(shorten(line, 400))


def tables(found: "DataEvaluation") -> "list[Table]":
    """Returns the tables of metrics, classes, speakers and calibration."""
    head = f"{100 * found.level:g} % interval"
    rows = [
        [shown_name(name), _number(one.value), _span(one), _number(one.test)]
        for name, one in found.scores.items()
    ]
    made = [_table(["metric", "score", head, "test of the run"], rows)]
    if found.classes:
        rows = [
            [
                one.name,
                _count(one.count, one.few),
                _number(one.recall),
                "" if one.low is None else f"{one.low:.3f} to {one.high:.3f}",
                _number(one.precision),
                str(one.predicted),
            ]
            for one in found.classes
        ]
        heads = ["class", "n", "recall", head, "precision", "predicted"]
        made.append(_table(heads, rows))
    if found.speakers:
        rows = [
            [
                one.name,
                _count(one.count, one.few),
                _number(one.score.value),
                _span(one.score),
            ]
            for one in found.speakers
        ]
        made.append(_table(["speaker", "n", shown_name(found.metric), head], rows))
    if found.calibration is not None:
        rows = _calibration_rows(found.calibration, found.test_calibration)
        made.append(_table(["calibration", "here", "test of the run"], rows))
    return made


def _table(heads: list[str], rows: list[list[str]]) -> "Table":
    """Returns a table of texts."""
    from rich.table import Table

    table = Table()
    for head in heads:
        # Folded: the default cuts what is too long for a narrow terminal.
        table.add_column(shorten(head), overflow="fold")
    for row in rows:
        table.add_row(*(shorten(cell) for cell in row))
    return table


def _calibration_rows(
    here: "CalibrationTest", test: "CalibrationTest | None"
) -> list[list[str]]:
    """Returns the calibration on the data, beside that on the test split."""
    rows = []
    if here.ece is not None:
        other = None if test is None else test.ece
        rows.append(["expected calibration error", _number(here.ece), _number(other)])
    measured = {} if test is None else {one.nominal: one for one in test.coverage}
    for one in here.coverage:
        other = measured.get(one.nominal)
        rows.append(
            [
                f"coverage, nominal {one.nominal:g}",
                _number(one.measured),
                _number(None if other is None else other.measured),
            ]
        )
    return rows


def lines(found: "DataEvaluation") -> list[str]:
    """Returns warnings and remarks."""
    made = [f"warning: {line}" for line in found.warnings]
    if any(one.few for one in (*found.classes, *found.speakers)):
        made.append("*: fewer than 30 examples, the score may be chance")
    if found.speakers:
        made.append(
            "intervals are over examples: they do not contain the variance between "
            "speakers"
        )
    if found.unusable:
        total = len(found.unusable) + found.count
        made.append(f"{len(found.unusable)} of {total} examples are not scored:")
        made += [f"  {reason}" for reason in [*found.unusable.values()][:MAX_LISTED]]
    return [*made, f"run: {found.run}", *found.remarks]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _span(one: "ScoreInterval") -> str:
    if one.low is None or one.high is None:
        return ""
    return f"{one.low:.3f} to {one.high:.3f}"


def _count(count: int, few: bool) -> str:
    return f"{count}{'*' * few}"


COMMAND = Command(
    "mmfusion_jax evaluate",
    "Scores a trained run on labeled data, and writes nothing into the run.",
    evaluate_command,
    (
        Flag("run", "", "workdir of the training, or an exported folder"),
        Flag("data", "", "folder with labels.csv, such a table, or a feature file"),
        Flag("split", "", "split of data with several (default: test)"),
        Flag("packages", "", "packages whose parts the config of the run may name"),
    ),
    needs_config=False,
)
