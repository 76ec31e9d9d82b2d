"""Initializes JAX: processes, compilation cache, devices."""

import dataclasses
import inspect
import os
import sys
from typing import Any

import jax

from mmfusion_jax.config.spec import DistributedSpec
from mmfusion_jax.data.storage.array_record_store import cache_folder
from mmfusion_jax.errors import printable, shorten
from mmfusion_jax.training.accelerators import device_lines

TIMEOUT = 60  # seconds in which every process must have started


def initialize(distributed: DistributedSpec, *, cache: bool = True) -> None:
    """Connects the processes of a run, and prints the devices.

    The compilation cache is enabled.

    Args:
        distributed: The processes of the run.
        cache: Keep compiled programs for later runs, and use those of earlier ones.

    Raises:
        MissingDependencyError: The machine has an accelerator that JAX does not use, or
            that another process holds.
    """
    if cache:
        use_compilation_cache()
    if distributed.num_processes > 1:
        initialize_distributed(**dataclasses.asdict(distributed))
    for line in device_lines():  # afterwards, because it starts JAX
        log(line)


def initialize_one_process() -> None:
    """Prepares this process for a command without a config; see `initialize`."""
    initialize(DistributedSpec("", 1, 0))


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


def initialize_distributed(
    coordinator: str, num_processes: int, process_id: int
) -> None:
    """Connects this process with the others; JAX must not have been used before.

    Args:
        coordinator: "host:port" of process 0.
        num_processes: Number of processes of the run.
        process_id: Number of this process, 0..num_processes-1.
    """
    log(
        f"process {process_id:d} of {num_processes:d}: waiting up to {TIMEOUT} s for "
        f"the other processes at {shorten(coordinator)}; aborts on timeout"
    )
    # JAX notices a killed process by its heartbeat: with the default of 100 s the
    # others waited 107 s for it, with 10 s 24 s. The default limit of the start and of
    # the end is 300 s. All of these end in an abort of the process, which cannot be
    # caught, so the message comes before the call.
    limits: dict[str, Any] = {
        "initialization_timeout": TIMEOUT,
        "heartbeat_timeout_seconds": 30,
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    if "shutdown_timeout_seconds" in known:  # JAX before 0.9 has a limit of its own
        limits["shutdown_timeout_seconds"] = 60
    jax.distributed.initialize(coordinator, num_processes, process_id, **limits)


def log(line: str) -> None:
    """Prints a line to stderr at once."""
    print(printable(line), file=sys.stderr, flush=True)
