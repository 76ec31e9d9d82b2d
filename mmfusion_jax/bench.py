"""Measures a config on this machine: compilation, steps, memory, waiting for data.

python -m mmfusion_jax.bench --config=configs/cfn_sr.py
"""

import contextlib
import json
import sys

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.cli.flags import Flag, ParsedCommand


def main(request: ParsedCommand) -> None:
    """Prints the measurements, as tables or as one JSON object."""
    # Slow, and needed only once the request is known to be sound.
    from mmfusion_jax.commands.benchmark import measure, show
    from mmfusion_jax.runner.runtime import initialize

    with contextlib.redirect_stdout(sys.stderr):
        initialize(request.config, cache=not request.flags["cold"])
        found = measure(request.config, request.flags["steps"])
    if request.flags["json"]:
        print(json.dumps(found, indent=1))
    else:
        show(found)


COMMAND = Command(
    "mmfusion_jax.bench",
    "Measures a config on this machine: compilation, steps, memory, waiting for data.",
    main,
    (
        Flag("steps", 20, "how many steps of every kind to time", minimum=1),
        Flag("cold", False, "compile without the compilation cache"),
    ),
)

if __name__ == "__main__":
    sys.exit(run_command(COMMAND))
