"""Progress bar on a terminal, periodic lines in logs."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

from rich.console import Console
from rich.progress import track as bar

from mmfusion_jax.errors import printable

T = TypeVar("T")
EVERY = 10.0
"""Seconds between two lines."""


def progress_console(stream: TextIO) -> Console:
    """Returns a console with bars on a terminal, and plain lines elsewhere.

    Notebooks get plain lines: rich would make each line an HTML block, and as their
    kernels set FORCE_COLOR it would print a bar again for every step.

    Args:
        stream: Where it prints.
    """
    return Console(
        file=stream,
        highlight=False,
        markup=False,  # names from data and configs may contain square brackets
        force_jupyter=False,
        force_terminal=stream.isatty(),
    )


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yields `items` and shows the progress on stderr.

    Args:
        items: Any iterable.
        total: Number of items.
        what: Description of the work, such as "decoding clips".
    """
    console = progress_console(sys.stderr)
    if console.is_terminal:
        yield from bar(items, what, total=total, console=console)
        return
    printed = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - printed > EVERY or done == total:
            printed = time.monotonic()
            line = f"{what}: {done:d} of {total}"
            print(printable(line), file=sys.stderr, flush=True)
