"""Trains, evaluates, inspects or analyses what a config describes.

python -m mmfusion_jax.main --config=configs/cfn_sr.py
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.cli.flags import Flag, ParsedCommand


def main(request: ParsedCommand) -> None:
    """Does what `request` asks; with --json, stdout holds one JSON object."""
    # Slow, and needed only once the request is known to be sound.
    from mmfusion_jax.runner.experiment import check_finite
    from mmfusion_jax.runner.provenance import to_json
    from mmfusion_jax.runner.runtime import initialize

    answer_to, show = MODES[request.flags["mode"]]
    with contextlib.redirect_stdout(sys.stderr):
        initialize(request.config)
        answer = answer_to(request)
    if request.flags["json"]:
        print(json.dumps(to_json(answer), indent=1, allow_nan=False))
    else:
        show(answer)
    if request.flags["mode"] in ("train", "evaluate"):
        check_finite(answer["runs"] if request.flags["mode"] == "train" else answer)


def train(request: ParsedCommand) -> dict[str, Any]:
    """Trains, or goes on; the content of result.json."""
    from mmfusion_jax.runner import experiment

    command = shlex.join(["python", "-m", "mmfusion_jax.main", *request.args])
    return experiment.train(request.config, request.workdir, command)


def evaluate(request: ParsedCommand) -> list[dict[str, Any]]:
    """Scores of the chosen checkpoints, a fold and seed each."""
    from mmfusion_jax.runner import experiment

    return experiment.evaluate(request.config, request.workdir)


def inspect(request: ParsedCommand) -> dict[str, Any]:
    """What the config describes, before any training."""
    from mmfusion_jax.commands import inspect

    return inspect.inspect(request.config, compiled=request.flags["compile"])


def analyse(request: ParsedCommand) -> dict[str, Any]:
    """The gradient of every loss term, module by module, in a trained run."""
    from mmfusion_jax.commands import loss_gradients

    batches = request.flags["batches"]
    return loss_gradients.compute(request.config, request.workdir, batches)


def show_nothing(answer: Any) -> None:
    """The training has said everything while it ran."""


def show_scores(answer: Sequence[Mapping[str, Any]]) -> None:
    """Prints the scores of every fold, seed and split, a line each."""
    from mmfusion_jax.metrics.rounding import format_number

    for unit in answer:
        place = f"fold {unit['fold']} seed {unit['seed']} step {unit['step']}"
        for split in ("train", "valid", "test"):
            scores = unit.get(split, {}).items()
            parts = [
                f"{k} {format_number(v)}" for k, v in scores if isinstance(v, float)
            ]
            if parts:
                print(f"{place} {split}: {', '.join(parts)}")


def show_inspection(answer: Mapping[str, Any]) -> None:
    """Prints what was found as tables."""
    from mmfusion_jax.commands.inspect import show

    show(answer)


def show_analysis(answer: Mapping[str, Any]) -> None:
    """Prints norms and angles as tables."""
    from mmfusion_jax.commands.loss_gradients import show

    show(answer)


MODES = {
    "train": (train, show_nothing),
    "evaluate": (evaluate, show_scores),
    "inspect": (inspect, show_inspection),
    "analyse": (analyse, show_analysis),
}

COMMAND = Command(
    "mmfusion_jax.main",
    "Trains, evaluates, inspects or analyses what a config describes.",
    main,
    (
        Flag("mode", "train", "what to do (default: train)", tuple(MODES)),
        Flag("batches", 8, "analyse: training batches to look at", minimum=1),
        Flag("compile", False, "inspect: compile a step to know its memory"),
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
