"""Processes many files in worker processes that survive crashes and hangs.

A file that makes a decoder crash or hang ends its worker, not the command: the worker
is killed on timeout, the files in flight are retried one by one, and the failing file
is reported.
"""

import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from mmfusion_jax.errors import DataError, UserError, describe_exception
from mmfusion_jax.safe_load.parent_death import exit_with_parent
from mmfusion_jax.user_code import code_location

Job = TypeVar("Job")
Result = TypeVar("Result")
_IN_FLIGHT = 2  # jobs per worker: results are large


@dataclasses.dataclass(frozen=True)
class Failure:
    """A job that failed.

    Attributes:
        reason: Short description of the error.
        retry: The job may succeed another time, with more time or memory.
    """

    reason: str
    retry: bool = False


class _Pool(ProcessPoolExecutor):
    """A pool that starts all its workers with the first job.

    Python's own pool starts them one by one, as jobs come. A worker that is started at
    the moment in which another one dies is never terminated, and `shutdown` blocks.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        # A private attribute of Python's class; a version without it would ignore it.
        self._safe_to_dynamically_spawn_children = False


def map_in_processes(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    timeout: float = 120.0,
) -> Iterator[Result | Failure]:
    """Maps a function over jobs in worker processes; results are in order.

    Args:
        work: Module-level function, or a `functools.partial` of one.
        jobs: Its arguments.
        workers: Number of processes; None uses one per core, 0 runs in this process,
            without the timeout.
        timeout: Time limit of one job in seconds.

    Yields:
        The result of each job, or a `Failure`.

    Raises:
        DataError: Worker processes cannot be started.
    """
    count = (os.cpu_count() or 1) if workers is None else workers
    if not count:
        yield from map(functools.partial(_guarded, work), jobs)
        return
    done = 0
    while done < len(jobs):
        try:
            for result in _pool(work, jobs[done:], count, timeout):
                done += 1
                yield result
        except BrokenProcessPool:
            # One of the jobs in flight killed its worker; retry them one by one.
            for result in _one_by_one(
                work, jobs[done : done + _IN_FLIGHT * count], timeout
            ):
                done += 1
                yield result


def _pool(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    timeout: float,
    in_flight: int = _IN_FLIGHT,
) -> Iterator[Result | Failure]:
    """Runs jobs in parallel until one of them kills its worker."""
    # Not fork: threads of JAX and grain may hold locks that a forked process inherits
    # locked.
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(jobs))
    pool = _Pool(workers, context, exit_with_parent, (os.getpid(),))
    try:
        _check(pool)
        rest = iter(jobs)
        submit = lambda job: pool.submit(_timed, work, job, timeout)
        pending: deque[Future[Any]] = deque(
            # A bounded number of jobs, since the results of all would not fit in
            # memory.
            map(submit, itertools.islice(rest, in_flight * workers))
        )
        while pending:
            yield pending.popleft().result()
            pending.extend(map(submit, itertools.islice(rest, 1)))
    finally:
        # Also when the consumer of this generator stops early.
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(
    work: Callable[[Job], Result], jobs: Sequence[Job], timeout: float
) -> Iterator[Result | Failure]:
    """Runs one job at a time, to identify the one that kills its worker."""
    done = 0
    while done < len(jobs):
        try:
            for result in _pool(work, jobs[done:], 1, timeout, in_flight=1):
                done += 1
                yield result
        except BrokenProcessPool:
            done += 1
            reason = f"the decoder crashed or exceeded {timeout:g} s"
            yield Failure(reason, retry=True)


def _check(pool: ProcessPoolExecutor) -> None:
    """Starts the workers, so that a failing start is not reported as a bad file."""
    try:
        with _without_main_module():
            started = pool.submit(os.getpid)
        started.result()
    except BrokenProcessPool as error:
        raise DataError(
            "D24",
            "the worker processes that decode clips cannot be started.",
            "pass workers=0 to decode in this process",
        ) from error


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Hides the script of the user from processes that are started.

    A spawned process imports the main module, which would run a script without
    `if __name__ == "__main__":` once more, in every worker. The workers do not need it:
    their jobs are functions of this package.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _timed(work: Callable[[Job], Result], job: Job, timeout: float) -> Result | Failure:
    """In a worker: runs a job; the system kills the process on timeout."""
    # SIGALRM keeps its default action, which ends the process, because a decoder that
    # hangs in C code never returns to Python, and so to a handler or a check of time.
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return _guarded(work, job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _guarded(work: Callable[[Job], Result], job: Job) -> Result | Failure:
    """Runs a job; any exception becomes a Failure."""
    try:
        return work(job)
    except UserError as error:
        # A file that cannot be opened may be readable later, without another time.
        return Failure(error.args[0], retry=error.code in ("D30", "E01"))
    except Exception as error:
        reason, line = describe_exception(error), code_location(error)
        return Failure(f"{reason} ({line})" if line else reason, retry=True)
