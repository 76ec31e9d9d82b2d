"""Exports a trained run.

python -m mmfusion_jax export --run=runs/mine --out=exported
"""

import contextlib
import sys

from mmfusion_jax.cli.command import Command
from mmfusion_jax.cli.flags import Flag, ParsedCommand
from mmfusion_jax.commands.predict import words
from mmfusion_jax.errors import ConfigError, printable, shown


def export_command(command: ParsedCommand) -> None:
    """Exports a run and prints what was written."""
    flags = command.flags
    if not flags["run"]:
        raise ConfigError("C01", "--run is missing.", "--run=runs/NAME")
    if not flags["out"]:
        raise ConfigError("C01", "--out is missing.", "--out=exported")
    sizes = [_number(word) for word in words(flags["batch_sizes"])]
    # With --json, stdout has the result alone.
    with contextlib.redirect_stdout(sys.stderr):
        from mmfusion_jax.inference.export_run import describe, export
        from mmfusion_jax.runner.runtime import initialize_one_process

        initialize_one_process()
        found = export(
            flags["run"],
            flags["out"],
            batch_sizes=sizes,
            platforms=words(flags["platforms"]),
            packages=words(flags["packages"]),
            onnx=flags["onnx"],
        )
    if flags["json"]:
        from mmfusion_jax.results.json_file import dumps

        print(dumps({**vars(found), "folder": str(found.folder)}))
    else:
        print(printable("\n".join(describe(found))))


def _number(word: str) -> int:
    """Returns a batch size."""
    if not (word.isascii() and word.isdecimal() and len(word) < 9):
        raise ConfigError(
            "C01", f"--batch_sizes has {shown(word)}, not a number.", "such as 1,8"
        )
    return int(word)


COMMAND = Command(
    "mmfusion_jax export",
    "Exports a trained run: safetensors, model card and programs for JAX alone.",
    export_command,
    (
        Flag("run", "", "workdir of the training, or the folder of one of its runs"),
        Flag("out", "", "new folder to write"),
        Flag("batch_sizes", "", "fixed batch sizes of further programs, such as 1,8"),
        Flag("platforms", "cpu,cuda,tpu", "platforms of JAX, separated by commas"),
        Flag("onnx", False, "write ONNX too, an experiment; requires the extra onnx"),
        Flag("packages", "", "packages whose parts the config of the run may name"),
    ),
    needs_config=False,
)
