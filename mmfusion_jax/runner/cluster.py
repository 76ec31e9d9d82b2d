"""Recognizes the processes that a cluster started together."""

import os
from collections.abc import Mapping

MPICH = "MPICH"

COUNTS = {
    # Of the job step: a script of sbatch that calls the program itself has none.
    "SLURM": "SLURM_STEP_NUM_TASKS",
    "Open MPI": "OMPI_COMM_WORLD_SIZE",
    MPICH: "PMI_SIZE",
}
"""Launcher -> environment variable with the number of its processes."""

TPU_HOSTS = "TPU_WORKER_HOSTNAMES"
"""Variable of the hosts of a Cloud TPU, separated by commas."""


def started_together(environment: Mapping[str, str] = os.environ) -> tuple[str, int]:
    """Returns what started this process with others, and the number of all.

    Example:
        >>> from mmfusion_jax.runner.cluster import started_together
        >>> started_together({"OMPI_COMM_WORLD_SIZE": "4"})
        ('Open MPI', 4)

    Args:
        environment: Environment variables.

    Returns:
        The launcher and the number of processes; ("", 1) for a process of its own.
    """
    hosts = environment.get(TPU_HOSTS, "").split(",")
    if len(hosts) > 1:
        return "Cloud TPU", len(hosts)
    for launcher, variable in COUNTS.items():
        count = environment.get(variable, "")
        if count.isdecimal() and int(count) > 1:
            return launcher, int(count)
    return "", 1
