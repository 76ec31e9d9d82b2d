"""Trains, evaluates or inspects a config, or computes its loss gradients.

python -m mmfusion_jax.main --config=configs/cfn_sr.py
"""

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.cli.flags import Flag, ParsedCommand


def run_mode(command: ParsedCommand) -> None:
    """Runs the mode that `command` asks for; with --json, stdout is one JSON object."""
    # Slow to import, and needed only once the command line is known to be valid.
    from mmfusion_jax.config.resolve import distributed_spec, resolve
    from mmfusion_jax.runner.experiment import check_finite
    from mmfusion_jax.runner.provenance import to_json
    from mmfusion_jax.runner.runtime import initialize

    mode = command.flags["mode"]
    run, show = MODES[mode]
    with contextlib.redirect_stdout(sys.stderr):
        initialize(distributed_spec(command.config))
        result = run(resolve(command.config), command)
    if command.flags["json"]:
        print(json.dumps(to_json(result), indent=1, allow_nan=False))
    else:
        show(result)
    if mode in ("train", "evaluate"):
        check_finite(result["runs"] if mode == "train" else result)


def train(spec: Any, command: ParsedCommand) -> dict[str, Any]:
    """Trains or resumes; returns the content of result.json."""
    from mmfusion_jax.runner import experiment

    words = shlex.join(["python", "-m", "mmfusion_jax.main", *command.args])
    return experiment.train(spec, command.workdir, words)


def evaluate(spec: Any, command: ParsedCommand) -> list[dict[str, Any]]:
    """Returns the scores of the selected checkpoints, by fold and seed."""
    from mmfusion_jax.runner import experiment

    return experiment.evaluate(spec, command.workdir)


def inspect(spec: Any, command: ParsedCommand) -> dict[str, Any]:
    """Returns what the shapes of a config tell, before any training."""
    from mmfusion_jax.commands import inspect

    return inspect.inspect_config(spec, compiled=command.flags["compile"])


def loss_gradients(spec: Any, command: ParsedCommand) -> dict[str, Any]:
    """Returns the gradient of every loss term, by module, in a trained run."""
    from mmfusion_jax.commands import loss_gradients

    batches = command.flags["batches"]
    return loss_gradients.compute(spec, command.workdir, batches)


def show_nothing(result: Any) -> None:
    """Prints nothing: the training has printed its result."""


def show_scores(result: Sequence[Mapping[str, Any]]) -> None:
    """Prints the scores of every fold, seed and split, a line each."""
    from mmfusion_jax.metrics.rounding import format_number

    for entry in result:
        run = f"fold {entry['fold']} seed {entry['seed']} step {entry['step']}"
        for split in ("train", "valid", "test"):
            scores = entry.get(split, {}).items()
            parts = [
                f"{k} {format_number(v)}" for k, v in scores if isinstance(v, float)
            ]
            if parts:
                print(f"{run} {split}: {', '.join(parts)}")


def show_inspection(result: Mapping[str, Any]) -> None:
    """Prints an inspection as tables."""
    from mmfusion_jax.commands.inspect import show

    show(result)


def show_gradients(result: Mapping[str, Any]) -> None:
    """Prints gradient norms and cosines as tables."""
    from mmfusion_jax.commands.loss_gradients import show

    show(result)


FLAGS_OF_MODES = {"inspect": "compile", "loss_gradients": "batches"}
"""Mode -> the flag that only this mode has."""


def mode_command(mode: str, help: str) -> Command:
    """Returns the command of a mode, `python -m mmfusion_jax MODE`.

    Args:
        mode: A key of `MODES`.
        help: What it does, in a sentence.
    """
    others = {flag for other, flag in FLAGS_OF_MODES.items() if other != mode}
    return dataclasses.replace(
        COMMAND,
        name=f"mmfusion_jax {mode}",
        help=help,
        hidden=frozenset({"mode", *others}),
    )


MODES: dict[str, tuple[Callable[..., Any], Callable[[Any], None]]] = {
    "train": (train, show_nothing),
    "evaluate": (evaluate, show_scores),
    "inspect": (inspect, show_inspection),
    "loss_gradients": (loss_gradients, show_gradients),
}

COMMAND = Command(
    "mmfusion_jax.main",
    "Trains, evaluates or inspects a config, or computes its loss gradients.",
    run_mode,
    (
        Flag("mode", "train", "what to do (default: train)", tuple(MODES)),
        Flag("batches", 8, "number of training batches (loss_gradients)", minimum=1),
        Flag("compile", False, "compile a training step too, for its memory (inspect)"),
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
