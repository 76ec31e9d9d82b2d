"""What must happen between reading the flags and the first use of JAX."""

import inspect
import os
import sys
from typing import Any

import jax
from ml_collections import ConfigDict

from mmfusion_jax.data.storage.array_record_store import cache_folder
from mmfusion_jax.train.accelerators import describe_devices

TIMEOUT = 60  # seconds in which every process must have started


def initialize(config: ConfigDict, *, cache: bool = True) -> None:
    """Joins the processes of a run and turns the compilation cache on.

    Args:
        config: with `distributed`, of several processes or of one.
        cache: keep compiled programs for later runs, and use those of earlier ones.

    Raises:
        ExtraError: the machine has an accelerator that JAX does not use.
    """
    if cache:
        use_compilation_cache()
    others = config.to_dict().get("distributed", {})
    if others.get("num_processes", 1) > 1:
        initialize_distributed(**others)
    describe_devices()  # after joining, because it starts JAX


def use_compilation_cache() -> None:
    """Keeps compiled programs on disk, if the folder is the user's alone.

    What lies there is executed: nobody else may be able to write it.
    """
    folder = cache_folder("xla")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        log(f"no compilation cache: {error}")
        return
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        log(f"no compilation cache: others can write {folder}")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def initialize_distributed(
    coordinator: str, num_processes: int, process_id: int
) -> None:
    """Connects this process with the others; nothing may have used JAX before.

    Args:
        coordinator: "host:port" of process 0.
        num_processes: of the run.
        process_id: of this process, 0..num_processes-1.
    """
    log(
        f"process {process_id} of {num_processes}: waiting up to {TIMEOUT} s for the "
        f"others at {coordinator}; if one is missing, this process is aborted"
    )
    limits: dict[str, Any] = {
        "initialization_timeout": TIMEOUT,
        "heartbeat_timeout_seconds": 30,
    }
    known = inspect.signature(jax.distributed.initialize).parameters
    if "shutdown_timeout_seconds" in known:  # JAX before 0.9 has a limit of its own
        limits["shutdown_timeout_seconds"] = 60
    jax.distributed.initialize(coordinator, num_processes, process_id, **limits)


def log(line: str) -> None:
    """One line on the screen, at once."""
    print(line, file=sys.stderr, flush=True)
