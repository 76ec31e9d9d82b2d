"""A bar on a terminal, a line now and then elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as bar

T = TypeVar("T")
EVERY = 10.0
"""Seconds between two lines."""


def track(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Passes `items` on and shows on stderr how far they are.

    Args:
        items: anything that can be gone through once.
        total: how many there will be.
        what: is going on, such as "preparing clips".
    """
    console = Console(file=sys.stderr)
    if console.is_terminal:
        yield from bar(items, what, total=total, console=console)
        return
    said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - said > EVERY or done == total:
            said = time.monotonic()
            print(f"{what}: {done} of {total}", file=sys.stderr, flush=True)
