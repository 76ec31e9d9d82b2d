"""Silences Orbax logging."""

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
# A future of TensorStore names its driver, its file or its own source, not its caller,
# and which of them depends on the call that failed.
MARKS = (PACKAGE, ".orbax-checkpoint", "OCDBT", "tensorstore_spec", "tensorstore/")


def silence_orbax() -> None:
    """Drops log entries of Orbax and tracebacks of its abandoned reads and writes.

    A fault leaves unfinished tasks, and Python prints a traceback for each of them
    long after the fault was raised.
    """
    # Filters of these two loggers, not levels: other libraries log through them too.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_is_not_from_orbax)
    warnings.filterwarnings("ignore", _never_awaited_pattern(), RuntimeWarning)
    # Several managers in one process must not stack hooks.
    hook = sys.unraisablehook
    if not isinstance(hook, functools.partial) or hook.func is not _unraisable_hook:
        sys.unraisablehook = functools.partial(_unraisable_hook, hook)


def _is_not_from_orbax(entry: logging.LogRecord) -> bool:
    text = entry.pathname + entry.getMessage()
    return not any(mark in text for mark in MARKS)


@functools.cache
def _never_awaited_pattern() -> str:
    """Pattern of Python's warning about an Orbax task that was never started.

    The warning contains the name of the coroutine and the location where it was
    collected, which may be anywhere, so it is matched by the names Orbax defines.
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


def _unraisable_hook(previous: Callable[[Any], object], fault: Any) -> None:
    """Forwards exceptions that do not come from an Orbax task."""
    frames = [frame for frame, _ in traceback.walk_tb(fault.exc_traceback)]
    from_orbax = any(PACKAGE in frame.f_code.co_filename for frame in frames)
    text = str(fault.exc_value)
    from_orbax = from_orbax or re.match(_never_awaited_pattern(), text) is not None
    if not from_orbax and text != "Event loop is closed":
        previous(fault)
