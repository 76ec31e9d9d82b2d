"""Initializes JAX: processes, compilation cache, devices."""

import inspect
import os
import sys
from collections.abc import Mapping
from typing import Any

import jax

from mmfusion_jax.config.spec import DistributedSpec
from mmfusion_jax.data.storage.array_record_store import cache_folder
from mmfusion_jax.errors import ConfigError, printable, shorten, shown, shown_name
from mmfusion_jax.runner.cluster import MPICH, started_together
from mmfusion_jax.training.accelerators import device_lines


def initialize(distributed: DistributedSpec, *, cache: bool = True) -> None:
    """Connects the processes of a run, and prints the devices.

    The compilation cache is enabled.

    Args:
        distributed: The processes of the run.
        cache: Keep compiled programs for later runs, and use those of earlier ones.

    Raises:
        ConfigError: A cluster started several processes, which do not join; or they
            shall join, and JAX recognizes no cluster.
        MissingDependencyError: The machine has an accelerator that JAX does not use, or
            that another process holds.
    """
    if cache:
        use_compilation_cache()
    if distributed.joins:
        initialize_distributed(distributed)
    alone = distributed.mode == "manual" and not distributed.joins
    if alone:
        _check_alone(*started_together())
        if distributed.coordinator:  # as in a script for any number of processes
            log("one process: num_processes is 1, and the coordinator is not used")
    for line in device_lines():  # afterwards, because it starts JAX
        log(line)
    if alone:  # the hosts of a TPU know each other without a variable
        _check_alone("Cloud TPU", jax.process_count())


def initialize_one_process() -> None:
    """Prepares this process for a command without a config; see `initialize`."""
    initialize(DistributedSpec(mode="off"))


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, if only the user can write the folder.

    The files are executed: no other user may be able to write them.
    """
    folder = cache_folder("xla")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        log(f"no compilation cache: {shorten(error)}")
        return
    # 0o022: writable by the group or by others.
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        log(f"no compilation cache: {folder} is writable by other users")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    # JAX's default of 1 s leaves out many small programs of a run.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def initialize_distributed(distributed: DistributedSpec) -> None:
    """Connects this process with the others; JAX must not have been used before.

    Args:
        distributed: The processes of the run.

    Raises:
        ConfigError: The mode is "auto", and JAX recognizes no cluster; or process 0
            cannot listen at the address of the config.
    """
    # All timeouts end in an abort of the process, which cannot be caught, so the
    # message comes before the call.
    by_hand = distributed.mode == "manual"
    log(
        (
            f"process {distributed.process_id:d} of {distributed.num_processes:d}: "
            if by_hand
            else "process of a cluster: "
        )
        + f"waiting up to {distributed.start_timeout:d} s for the others"
        + (f" at {shorten(distributed.coordinator)}" if by_hand else "")
        + "; aborts on timeout"
    )
    # JAX notices a killed process by its heartbeat: with its default of 100 s the
    # others waited 107 s for it, with 10 s 24 s.
    limits: dict[str, Any] = {
        "initialization_timeout": distributed.start_timeout,
        "heartbeat_timeout_seconds": distributed.heartbeat_timeout,
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    if "shutdown_timeout_seconds" in known:  # JAX before 0.9 has a limit of its own
        limits["shutdown_timeout_seconds"] = distributed.stop_timeout
    if by_hand:
        _connect(distributed, limits)
        return
    try:
        jax.distributed.initialize(**limits)
    except ValueError as error:  # what JAX raises without an address
        raise ConfigError(
            "C41",
            f"--config.distributed.mode=auto: JAX recognizes no cluster: "
            f"{shorten(error)}",
            "start the processes with srun, mpirun or on the hosts of a TPU, or set "
            "coordinator, num_processes and process_id",
        ) from error
    log(f"process {jax.process_index():d} of {jax.process_count():d}")


def _connect(distributed: DistributedSpec, limits: Mapping[str, Any]) -> None:
    """Connects this process with the others at the address of the config."""
    try:
        jax.distributed.initialize(
            distributed.coordinator,
            distributed.num_processes,
            distributed.process_id,
            **limits,
        )
    except RuntimeError as error:  # JAX's own are, such as that of a port in use
        raise ConfigError(
            "C12",
            f"--config.distributed.coordinator={shown(distributed.coordinator)}: "
            f"process {distributed.process_id:d} cannot connect: {shorten(error)}",
            "the machine of process 0, and a port that no other program uses there",
        ) from error


def _check_alone(launcher: str, count: int) -> None:
    """Raises ConfigError if others were started with this process, which stays alone.

    Each would train the entire run, and write to the same work folder.
    """
    if count == 1:
        return
    # JAX does not recognize the processes of MPICH by itself.
    how = "coordinator, num_processes and process_id join them to one run"
    if launcher != MPICH:
        how = "--config.distributed.mode=auto joins them to one run"
    raise ConfigError(
        "C41",
        f"{shown_name(launcher)} started {count:d} processes, and the config is of "
        "one.",
        f"{shorten(how)}; --config.distributed.mode=off trains in each by itself, with "
        "a --workdir of its own",
    )


def log(line: str) -> None:
    """Prints a line to stderr at once."""
    print(printable(line), file=sys.stderr, flush=True)
