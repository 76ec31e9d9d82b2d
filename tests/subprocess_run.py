"""One process of several: `subprocess_run.py WORKDIR PORT PROCESSES ID FLAG ...`.

Without PORT, "", the processes join as SLURM describes them.
"""

import sys

import jax

from mmfusion_jax.cli.command import run_command
from mmfusion_jax.main import COMMAND

WORKDIR, PORT, PROCESSES, ID = sys.argv[1:5]

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", max(1, 2 // int(PROCESSES)))

words = [f"--config={WORKDIR}/config.py", f"--workdir={WORKDIR}/{PROCESSES}"]
if PORT:
    words += [
        f"--config.distributed.coordinator=localhost:{PORT}",
        f"--config.distributed.num_processes={PROCESSES}",
        f"--config.distributed.process_id={ID}",
    ]
elif int(PROCESSES) > 1:
    words.append("--config.distributed.mode=auto")
sys.exit(run_command(COMMAND, [*words, *sys.argv[5:]]))
