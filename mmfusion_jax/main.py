"""Trains, evaluates or inspects what a config describes.

python -m mmfusion_jax.main --config=configs/cfn_sr.py
"""

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmfusion_jax import cli
from mmfusion_jax.arguments import Flag, Request


def main(request: Request) -> None:
    """Does what `request` asks; with --json, stdout holds one JSON object."""
    # Slow, and needed only once the request is known to be sound.
    from mmfusion_jax.startup import start

    with contextlib.redirect_stdout(sys.stderr):
        start(request.config)
        answer = MODES[request.flags["mode"]](request)
    if request.flags["json"]:
        print(json.dumps(answer, indent=1))
    elif request.flags["mode"] == "evaluate":
        print("\n".join(score_lines(answer)))


def train(request: Request) -> Any:
    """Trains, or goes on; the content of result.json."""
    from mmfusion_jax import experiment

    command = shlex.join(["python", "-m", "mmfusion_jax.main", *sys.argv[1:]])
    return experiment.train(request.config, request.workdir, command)


def evaluate(request: Request) -> Any:
    """Scores of the chosen checkpoints."""
    from mmfusion_jax import experiment

    return experiment.evaluate(request.config, request.workdir)


def score_lines(units: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The scores of every unit and split, a line each."""
    for unit in units:
        for split in ("train", "valid", "test"):
            scores = unit.get(split, {}).items()
            shown = [f"{k} {v:.3f}" for k, v in scores if isinstance(v, float)]
            if shown:
                place = f"fold {unit['fold']} seed {unit['seed']} step {unit['step']}"
                yield f"{place} {split}: {', '.join(shown)}"


MODES = {"train": train, "evaluate": evaluate}

COMMAND = cli.Command(
    "mmfusion_jax.main",
    "Trains, evaluates or inspects what a config describes.",
    main,
    (Flag("mode", "train", "what to do", tuple(MODES)),),
)

if __name__ == "__main__":
    sys.exit(cli.run(COMMAND))
