"""Trains, evaluates or inspects a config, or computes its loss gradients.

python -m mmfusion_jax.main --config=configs/cfn_sr.py
"""

import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.errors import printable

if (
    TYPE_CHECKING
):  # slow to import, and needed only once the flags are known to be valid
    from mmfusion_jax.commands.inspect import Inspection
    from mmfusion_jax.config.spec import ExperimentSpec
    from mmfusion_jax.results.experiment_result import ExperimentResult, RunEvaluation
    from mmfusion_jax.results.gradients_result import GradientsResult


def run_mode(command: ParsedCommand) -> None:
    """Runs the mode that `command` asks for; with --json, stdout is one JSON object."""
    from mmfusion_jax.config.resolve import distributed_spec, resolve
    from mmfusion_jax.results.json_file import dumps
    from mmfusion_jax.runner.runtime import initialize

    # With --json, stdout is one JSON object, so everything else goes to stderr, also
    # what libraries print. Processes are connected before `resolve`, which imports
    # parts that may use JAX.
    mode = MODES[command.flags["mode"]]
    with contextlib.redirect_stdout(sys.stderr):
        initialize(distributed_spec(command.config))
        result = mode.run(resolve(command.config), command)
    if command.flags["json"]:
        print(dumps(result))
    else:
        mode.show(result)
    # After the output: a score that is not defined is printed before it becomes an
    # error.
    mode.check(result)


def train(spec: "ExperimentSpec", command: ParsedCommand) -> "ExperimentResult":
    """Trains or resumes."""
    from mmfusion_jax.runner import experiment

    # For the report; as `python -m`, however the command was started.
    words = shlex.join(["python", "-m", "mmfusion_jax.main", *command.args])
    return experiment.train(spec, command.workdir, words)


def evaluate(spec: "ExperimentSpec", command: ParsedCommand) -> "list[RunEvaluation]":
    """Returns the scores of the selected checkpoints, by fold and seed."""
    from mmfusion_jax.runner import experiment

    return experiment.evaluate(spec, command.workdir)


def inspect(spec: "ExperimentSpec", command: ParsedCommand) -> "Inspection":
    """Returns what follows from the shapes of a config, before any training."""
    from mmfusion_jax.commands import inspect

    return inspect.inspect_config(spec, compiled=command.flags["compile"])


def loss_gradients(spec: "ExperimentSpec", command: ParsedCommand) -> "GradientsResult":
    """Returns the gradient of every loss term, by module, in a trained run."""
    from mmfusion_jax.commands import loss_gradients

    batches = command.flags["batches"]
    curvature = command.flags["curvature"]
    return loss_gradients.compute(spec, command.workdir, batches, curvature=curvature)


def show_scores(result: "Sequence[RunEvaluation]") -> None:
    """Prints a table of the scores of every fold and seed, a column for each split."""
    from mmfusion_jax.results.summary import evaluation_lines

    print(printable("\n".join(evaluation_lines(result))))


def show_inspection(result: "Inspection") -> None:
    """Prints an inspection as tables."""
    from mmfusion_jax.commands.inspect import show

    show(result)


def show_gradients(result: "GradientsResult") -> None:
    """Prints gradient norms and cosines as tables."""
    from mmfusion_jax.commands.loss_gradients import show

    show(result)


def check_result(result: "ExperimentResult") -> None:
    """Raises DivergedError if a score is not defined."""
    from mmfusion_jax.metrics.nonfinite import undefined_in_runs
    from mmfusion_jax.runner.experiment import check_finite

    check_finite(undefined_in_runs(result.runs))


def check_scores(result: "list[RunEvaluation]") -> None:
    """Raises DivergedError if a score is not defined."""
    from mmfusion_jax.metrics.nonfinite import undefined_in_evaluations
    from mmfusion_jax.runner.experiment import check_finite

    check_finite(undefined_in_evaluations(result))


def do_nothing(result: Any) -> None:
    """Does nothing: a training prints its result itself; others have no scores."""


FLAGS_OF_MODES = {
    "inspect": ("compile",),
    "loss_gradients": ("batches", "curvature"),
}
"""Mode -> the flags that only this mode has."""


def mode_command(mode: str, help: str) -> Command:
    """Returns the command of a mode, `python -m mmfusion_jax MODE`.

    Args:
        mode: A key of `MODES`.
        help: Description of the mode, one sentence.
    """
    # The command of a mode hides --mode, and the flags of other modes.
    others = {
        flag
        for other, flags in FLAGS_OF_MODES.items()
        if other != mode
        for flag in flags
    }
    return dataclasses.replace(
        COMMAND,
        name=f"mmfusion_jax {mode}",
        help=help,
        hidden=frozenset({"mode", *others}),
    )


@dataclasses.dataclass(frozen=True)
class Mode:
    """Functions of a value of the flag --mode.

    Attributes:
        run: Maps the experiment and the command to a result.
        show: Prints the result.
        check: Raises DivergedError if a score of the result is not defined.
    """

    run: Callable[..., Any]
    show: Callable[[Any], None] = do_nothing
    check: Callable[[Any], None] = do_nothing


MODES = {
    "train": Mode(train, check=check_result),
    "evaluate": Mode(evaluate, show_scores, check_scores),
    "inspect": Mode(inspect, show_inspection),
    "loss_gradients": Mode(loss_gradients, show_gradients),
}

COMMAND = Command(
    "mmfusion_jax.main",
    "Trains, evaluates or inspects a config, or computes its loss gradients.",
    run_mode,
    (
        Flag("mode", "train", "what to do (default: train)", tuple(MODES)),
        Flag("batches", 8, "number of training batches (loss_gradients)", minimum=1),
        Flag(
            "curvature",
            False,
            "compute second derivatives too, which takes longer (loss_gradients)",
        ),
        Flag("compile", False, "compile a training step too, for its memory (inspect)"),
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
