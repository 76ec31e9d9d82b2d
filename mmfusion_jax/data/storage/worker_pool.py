"""Work on many files in processes of their own.

A file that makes a decoder crash or hang takes its worker down, not the command: the
worker kills itself when its time is up, the files it may have been at are tried again
one by one, and the guilty one is named.
"""

import dataclasses
import functools
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from mmfusion_jax.errors import DataError, UserError
from mmfusion_jax.safe_load.parent_death import exit_with_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
_AHEAD = 2  # jobs per worker in flight: results are large


@dataclasses.dataclass(frozen=True)
class Failure:
    """A job that could not be done.

    Attributes:
        reason: why, in a few words.
    """

    reason: str


class _Pool(ProcessPoolExecutor):
    """A pool that starts all its workers with the first job.

    Python's own starts them one by one, as jobs come. One that is started at the moment
    in which another dies is not ended with the rest, and waited for without end.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._safe_to_dynamically_spawn_children = False


def map_in_processes(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    workers: int | None = None,
    timeout: float = 120.0,
) -> Iterator[Result | Failure]:
    """Does every job, in order.

    Args:
        work: a function of a module, or a `functools.partial` of one.
        jobs: its arguments.
        workers: processes; None takes one for each core, 0 works in this process, where
            `timeout` does not hold.
        timeout: seconds for one job.

    Yields:
        For each job what `work` returned, or why it could not.

    Raises:
        DataError: processes cannot be started at all.
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
            # One of the jobs in flight did it; they are tried one by one.
            for result in _singly(work, jobs[done : done + _AHEAD * count], timeout):
                done += 1
                yield result


def _pool(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    timeout: float,
    ahead: int = _AHEAD,
) -> Iterator[Result | Failure]:
    """Does jobs side by side until one of them kills its worker."""
    context = multiprocessing.get_context("spawn")
    workers = min(workers, len(jobs))
    pool = _Pool(workers, context, exit_with_parent, (os.getpid(),))
    try:
        _check(pool)
        rest = iter(jobs)
        submit = lambda job: pool.submit(_timed, work, job, timeout)
        flying: deque[Future[Any]] = deque(
            map(submit, itertools.islice(rest, ahead * workers))
        )
        while flying:
            yield flying.popleft().result()
            flying.extend(map(submit, itertools.islice(rest, 1)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _singly(
    work: Callable[[Job], Result], jobs: Sequence[Job], timeout: float
) -> Iterator[Result | Failure]:
    """Does jobs one at a time, so that the one that kills its worker is known."""
    done = 0
    while done < len(jobs):
        try:
            for result in _pool(work, jobs[done:], 1, timeout, ahead=1):
                done += 1
                yield result
        except BrokenProcessPool:
            done += 1
            yield Failure(f"the decoder crashed, or took longer than {timeout:g} s")


def _check(pool: ProcessPoolExecutor) -> None:
    """Starts one worker, so that what cannot start is not taken for a bad file."""
    try:
        pool.submit(os.getpid).result()
    except BrokenProcessPool as error:
        raise DataError(
            "D24",
            "the processes that decode clips cannot be started.",
            'in a script, put the call under `if __name__ == "__main__":`; '
            "or pass workers=0",
        ) from error


def _timed(work: Callable[[Job], Result], job: Job, timeout: float) -> Result | Failure:
    """In a worker: does a job; the system kills the process when its time is up."""
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return _guarded(work, job)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _guarded(work: Callable[[Job], Result], job: Job) -> Result | Failure:
    """Does a job; whatever it raises becomes a Failure."""
    try:
        return work(job)
    except UserError as error:
        return Failure(error.args[0])
    except Exception as error:
        return Failure(f"{type(error).__name__}: {error}")
