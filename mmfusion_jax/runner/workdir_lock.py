"""The lock of a work folder: one process writes, any number of them read."""

import contextlib
import datetime
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock
import jax

from mmfusion_jax.errors import CheckpointError, UserError, shorten
from mmfusion_jax.results.json_file import read_json, write_json
from mmfusion_jax.runner.run_checkpoints import log
from mmfusion_jax.runner.workdir import unusable
from mmfusion_jax.training.checkpoint.storage import all_processes

LOCK_FILE, HOLDER_FILE = ".lock", ".lock.json"


@dataclass(frozen=True)
class LockHolder:
    """The process that writes to a work folder, or was the last to do so.

    Attributes:
        pid: Its process id.
        host: Name of its machine.
        since: Time at which it began, ISO 8601 in UTC.
    """

    pid: int
    host: str
    since: str

    @classmethod
    def this_process(cls) -> "LockHolder":
        """Returns this process, from now on."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(os.getpid(), socket.gethostname(), now)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the lock of a work folder, which is created if it does not exist.

    The system releases the lock when the process ends, however it ends. Of the
    processes of one run, the first one holds it.

    Args:
        workdir: The work folder.

    Raises:
        CheckpointError: K08, another process writes to the folder.
        MissingDependencyError: E06, the folder cannot be used.
    """
    lock, error = None, None
    if jax.process_index() == 0:
        try:
            lock = _acquire(workdir)
        except UserError as found:
            error = found
    try:
        # All processes of the run end if the first one does not get the lock.
        if not all_processes(error is None):
            raise error or CheckpointError(
                "K08", f"process 0 cannot use {workdir}; its message has the reason."
            )
        yield
    finally:
        if lock is not None:
            lock.release()


def _acquire(workdir: Path) -> filelock.BaseFileLock | None:
    """Returns the acquired lock; None where the file system has no locks."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(workdir / LOCK_FILE, timeout=0)
        lock.acquire()
    except filelock.Timeout as error:
        raise _in_use(workdir) from error
    except NotImplementedError:
        log(
            f"warning: the file system of {workdir} has no locks: a second training in "
            "it would not be refused"
        )
        return None
    except OSError as error:
        raise unusable(workdir, error) from error
    try:
        write_json(workdir / HOLDER_FILE, LockHolder.this_process())
    except OSError as error:
        lock.release()
        raise unusable(workdir, error) from error
    return lock


def _in_use(workdir: Path) -> CheckpointError:
    """Returns the error for a folder that another process writes to."""
    holder = "another process"
    # The holder writes this file after it has the lock: for a moment it is missing, or
    # is that of an earlier process.
    with contextlib.suppress(UserError):
        path = workdir / HOLDER_FILE
        one = read_json(path, LockHolder, "")
        holder = (
            f"process {one.pid:d} on {shorten(one.host)} since {shorten(one.since)}"
        )
    return CheckpointError(
        "K08",
        f"{workdir} is in use by {shorten(holder)}.",
        "wait until it ends, or use another --workdir",
    )
