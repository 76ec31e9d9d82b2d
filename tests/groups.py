"""Which parameters of a test are in the default group, in `ci`, and in `slow`."""

from collections.abc import Collection, Hashable, Iterable
from typing import Any

import pytest


def in_ci(
    values: Iterable[Any],
    *default: Hashable,
    several: bool = False,
    slow: Collection[Any] = (),
) -> list:
    """`values` as parameters, of which only `default` run in the default group.

    Args:
        values: Of one parameter, or tuples of several.
        default: Some of them.
        several: The test has several parameters.
        slow: Those that run in the group `slow` only.
    """
    values = list(values)
    if unknown := [name for name in default if name not in values]:
        raise ValueError(f"{unknown} are not among the values {values}.")
    marked = lambda x: pytest.param(
        *(x if several else (x,)),
        marks=pytest.mark.slow if x in slow else pytest.mark.ci,
    )
    return [value if value in default else marked(value) for value in values]
