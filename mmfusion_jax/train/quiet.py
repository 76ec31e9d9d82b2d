"""Orbax without its pages on the screen: what matters is raised, and told in a line."""

import functools
import logging
import sys
import traceback
from collections.abc import Callable
from typing import Any

PACKAGE = "orbax/checkpoint"
MARKS = (PACKAGE, "tensorstore_spec")  # a bare future names its driver, not its caller


def quiet_orbax() -> None:
    """Drops what orbax logs, and what its abandoned reads and writes leave behind.

    A fault leaves unfinished tasks, and Python prints a traceback for each of them,
    long after the fault itself was raised.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)
    hook = sys.unraisablehook
    if not isinstance(hook, functools.partial) or hook.func is not _unraisable:
        sys.unraisablehook = functools.partial(_unraisable, hook)


def _not_of_orbax(entry: logging.LogRecord) -> bool:
    told = entry.pathname + entry.getMessage()
    return not any(mark in told for mark in MARKS)


def _unraisable(before: Callable[[Any], object], fault: Any) -> None:
    """Passes on what does not come from a task of orbax."""
    frames = [frame for frame, _ in traceback.walk_tb(fault.exc_traceback)]
    of_orbax = any(PACKAGE in frame.f_code.co_filename for frame in frames)
    if not of_orbax and str(fault.exc_value) != "Event loop is closed":
        before(fault)
