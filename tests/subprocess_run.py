"""One process of a run of several: `subprocess_run.py WORKDIR PORT PROCESSES ID`."""

import sys

import jax

from mmfusion_jax.cli.command import run_command
from mmfusion_jax.main import COMMAND

WORKDIR, PORT, PROCESSES, ID = sys.argv[1:]

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2 // int(PROCESSES))

words = [
    f"--config={WORKDIR}/config.py",
    f"--workdir={WORKDIR}/{PROCESSES}",
    f"--config.distributed.coordinator=localhost:{PORT}",
    f"--config.distributed.num_processes={PROCESSES}",
    f"--config.distributed.process_id={ID}",
]
sys.exit(run_command(COMMAND, words))
