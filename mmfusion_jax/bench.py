"""Measures a config on this machine: compilation, steps, memory, data stalls.

python -m mmfusion_jax.bench --config=configs/cfn_sr.py
python -m mmfusion_jax.bench --config=configs/cfn_sr.py --compile_for=v5e:2x2
"""

import contextlib
import os
import sys
from collections.abc import Callable
from typing import Any

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.cli.flags import Flag, ParsedCommand

HERE = "here"
"""Value of --compile_for that measures on this machine."""


def run_benchmark(command: ParsedCommand) -> None:
    """Prints the measurements, as tables or as one JSON object."""
    run = _measure if command.flags["compile_for"] == HERE else _compile
    with contextlib.redirect_stdout(sys.stderr):
        found, show = run(command)
    if command.flags["json"]:
        # Slow to import, and needed only once the command line is known to be valid.
        from mmfusion_jax.results.json_file import dumps

        print(dumps(found))
    else:
        show(found)


def _measure(command: ParsedCommand) -> tuple[Any, Callable[[Any], None]]:
    """Returns the measurements on this machine, and how to print them."""
    from mmfusion_jax.commands.benchmark import measure, show
    from mmfusion_jax.config.resolve import distributed_spec, resolve
    from mmfusion_jax.runner.runtime import initialize

    cache = not command.flags["no_compilation_cache"]
    initialize(distributed_spec(command.config), cache=cache)
    return measure(resolve(command.config), command.flags["steps"]), show


def _compile(command: ParsedCommand) -> tuple[Any, Callable[[Any], None]]:
    """Returns the cost on chips that need not be there, and how to print it."""
    # Nothing runs, so accelerators of this machine stay free; and with a plug-in for
    # one JAX would wait for it. JAX reads this when it is imported.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from mmfusion_jax.commands.compile_for import compile_for, show
    from mmfusion_jax.config.resolve import resolve

    return compile_for(resolve(command.config), command.flags["compile_for"]), show


COMMAND = Command(
    "mmfusion_jax.bench",
    "Measures a config on this machine: compilation, steps, memory, data stalls.",
    run_benchmark,
    (
        Flag("steps", 20, "number of timed steps of every kind", minimum=1),
        Flag("no_compilation_cache", False, "compile without the compilation cache"),
        Flag(
            "compile_for",
            HERE,
            "other than here: measure nothing; compile for chips that need not be "
            "there, v5e:2x2, v6e:1x1, cuda, ..., and print memory, collectives, FLOP "
            "and bounds",
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
