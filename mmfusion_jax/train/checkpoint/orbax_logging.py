"""Orbax without its pages on the screen: what matters is raised, and told in a line."""

import functools
import logging
import re
import sys
import traceback
import types
import warnings
from collections.abc import Callable
from typing import Any

PACKAGE = "orbax/checkpoint"
MARKS = (PACKAGE, "tensorstore_spec")  # a bare future names its driver, not its caller


def silence_orbax() -> None:
    """Drops what orbax logs, and what its abandoned reads and writes leave behind.

    A fault leaves unfinished tasks, and Python prints a traceback for each of them,
    long after the fault itself was raised.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)
    warnings.filterwarnings("ignore", _never_awaited(), RuntimeWarning)
    hook = sys.unraisablehook
    if not isinstance(hook, functools.partial) or hook.func is not _unraisable:
        sys.unraisablehook = functools.partial(_unraisable, hook)


def _not_of_orbax(entry: logging.LogRecord) -> bool:
    told = entry.pathname + entry.getMessage()
    return not any(mark in told for mark in MARKS)


@functools.cache
def _never_awaited() -> str:
    """Pattern of what Python says of a task of orbax that ended before it began.

    The warning carries the coroutine's name and the place where it was collected,
    which may be anywhere; so it is known by what orbax defines.
    """
    modules = [
        m for name, m in sys.modules.items() if name.startswith("orbax.checkpoint")
    ]
    names = {
        name
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type | types.FunctionType)
        and value.__module__ == module.__name__
    }
    return rf"coroutine '({'|'.join(sorted(map(re.escape, names)))})[.'].*never awaited"


def _unraisable(before: Callable[[Any], object], fault: Any) -> None:
    """Passes on what does not come from a task of orbax."""
    frames = [frame for frame, _ in traceback.walk_tb(fault.exc_traceback)]
    of_orbax = any(PACKAGE in frame.f_code.co_filename for frame in frames)
    told = str(fault.exc_value)
    of_orbax = of_orbax or re.match(_never_awaited(), told) is not None
    if not of_orbax and told != "Event loop is closed":
        before(fault)
