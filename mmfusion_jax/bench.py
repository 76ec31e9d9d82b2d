"""Measures a config on this machine: compilation, steps, memory, data stalls.

python -m mmfusion_jax.bench --config=configs/cfn_sr.py
"""

import contextlib
import sys

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.cli.flags import Flag, ParsedCommand


def run_benchmark(command: ParsedCommand) -> None:
    """Prints the measurements, as tables or as one JSON object."""
    # Slow to import, and needed only once the command line is known to be valid.
    from mmfusion_jax.commands.benchmark import measure, show
    from mmfusion_jax.config.resolve import distributed_spec, resolve
    from mmfusion_jax.results.json_file import dumps
    from mmfusion_jax.runner.runtime import initialize

    with contextlib.redirect_stdout(sys.stderr):
        cache = not command.flags["no_compilation_cache"]
        initialize(distributed_spec(command.config), cache=cache)
        found = measure(resolve(command.config), command.flags["steps"])
    if command.flags["json"]:
        print(dumps(found))
    else:
        show(found)


COMMAND = Command(
    "mmfusion_jax.bench",
    "Measures a config on this machine: compilation, steps, memory, data stalls.",
    run_benchmark,
    (
        Flag("steps", 20, "number of timed steps of every kind", minimum=1),
        Flag("no_compilation_cache", False, "compile without the compilation cache"),
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
