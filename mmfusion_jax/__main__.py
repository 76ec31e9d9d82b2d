"""All commands: `python -m mmfusion_jax COMMAND`, or `mmfusion-jax COMMAND`.

python -m mmfusion_jax train --config=cfn_sr
python -m mmfusion_jax data import FILE --dataset=mosi
python -m mmfusion_jax evaluate --run=runs/mine --data=new_clips
"""

import dataclasses
import sys
from collections.abc import Sequence

import mmfusion_jax
from mmfusion_jax import bench, main
from mmfusion_jax.cli.command import HELP, run_command, run_subcommand
from mmfusion_jax.commands import (
    compare,
    demo,
    doctor,
    evaluate_data,
    export,
    predict,
)
from mmfusion_jax.commands import data_files as data
from mmfusion_jax.errors import ConfigError, printable, shown, suggest

MODES = {
    "train": "Trains a config, or resumes its training.",
    "evaluate": "Computes the metrics of a trained run; --run, --data: of other data.",
    "inspect": "Shows parameters, operations, shapes and memory, without training.",
    "loss_gradients": "Computes the gradient of every loss term in a trained run.",
}
OTHERS = {
    "bench": "Measures the speed and memory of a config on this machine.",
    "compare": compare.COMMAND.help,
    "data": "Imports, checks, lists and removes datasets.",
    "doctor": doctor.COMMAND.help,
    "demo": "Shows the predictions of a trained run on a web page of this machine.",
    "export": export.COMMAND.help,
    "predict": "Predicts clips or feature files with a trained run.",
}


COMMANDS = {
    "bench": dataclasses.replace(bench.COMMAND, name="mmfusion_jax bench"),
    "compare": compare.COMMAND,
    "doctor": doctor.COMMAND,
    "demo": demo.COMMAND,
    "export": export.COMMAND,
    "predict": predict.COMMAND,
}
"""Commands without subcommands."""


def run(words: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names, and returns its exit code.

    Args:
        words: The arguments of the program; None for those of the process.
    """
    words = sys.argv[1:] if words is None else words
    first, rest = (words[0], words[1:]) if words else ("", ())
    if first == "evaluate" and any(
        word.startswith(("--run", "--data")) for word in rest
    ):
        return run_command(evaluate_data.COMMAND, rest)
    if first in MODES:
        command = main.mode_command(first, MODES[first])
        return run_command(command, [f"--mode={first}", *rest])
    if first in COMMANDS:
        return run_command(COMMANDS[first], rest)
    if first == "data":
        return run_subcommand("mmfusion_jax data", OTHERS[first], data.COMMANDS, rest)
    if first == "--version":
        print("mmfusion_jax", printable(mmfusion_jax.__version__))
        return 0
    if not words or first in HELP:
        print(printable(help_text()))
        return 0 if words else ConfigError.exit_code
    if first.startswith("-"):  # no command: the flags are those of main
        return run_command(main.COMMAND, words)
    hint = suggest(first, [*MODES, *OTHERS])
    print(ConfigError("C01", f"unknown command {shown(first)}.", hint), file=sys.stderr)
    return ConfigError.exit_code


def help_text() -> str:
    """Returns the text of `--help`."""
    commands = [
        f"  {command:15} {about}" for command, about in (MODES | OTHERS).items()
    ]
    return "\n".join(
        [
            "Multimodal fusion in JAX and Flax.",
            "",
            "usage:",
            "  mmfusion-jax COMMAND [flags]",
            "  python -m mmfusion_jax COMMAND [flags]",
            "",
            "commands:",
            *commands,
            "",
            "  COMMAND --help  lists the flags of a command",
            "",
            "example, on embedded data, without a download:",
            "  python -m mmfusion_jax train --config=cfn_sr",
        ]
    )


if __name__ == "__main__":
    sys.exit(run())
