"""Which parameters of a test are in the default group, and which in `ci`."""

from collections.abc import Hashable, Iterable
from typing import Any

import pytest


def in_ci(values: Iterable[Any], *default: Hashable) -> list[Any]:
    """`values` as parameters, of which only `default` run in the default group.

    Args:
        values: a tuple for several parameters.
        default: some of them.
    """
    marked = lambda x: pytest.param(
        *(x if isinstance(x, tuple) else (x,)), marks=pytest.mark.ci
    )
    return [value if value in default else marked(value) for value in values]
