"""Orbax without its pages on the screen: what matters is raised, and told in a line."""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any


def quiet_orbax() -> None:
    """Drops what orbax logs, and what its abandoned writes leave behind.

    A failed save leaves tasks of a closed event loop; Python prints a traceback for
    each of them, long after the fault itself was raised.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).addFilter(_not_of_orbax)
    hook = sys.unraisablehook
    if not isinstance(hook, functools.partial) or hook.func is not _unraisable:
        sys.unraisablehook = functools.partial(_unraisable, hook)


def _not_of_orbax(entry: logging.LogRecord) -> bool:
    package = "orbax/checkpoint"
    return package not in entry.pathname and package not in entry.getMessage()


def _unraisable(before: Callable[[Any], object], fault: Any) -> None:
    """Passes everything on but the callbacks of a closed event loop."""
    if str(fault.exc_value) != "Event loop is closed":
        before(fault)
