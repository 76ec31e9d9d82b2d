"""Damaged copies of JSON values."""

import copy
from collections.abc import Collection, Iterator
from typing import Any

WRONG = (None, "x", -1, 10**400, 1e30, True, [], {}, [[]], {"x": None})


def damaged(
    value: Any, free: Collection[str] = (), path: tuple = ()
) -> Iterator[tuple[tuple, Any]]:
    """Yields copies of a JSON value, each with one field deleted or replaced.

    Args:
        value: A dict or list.
        free: Fields whose content is arbitrary.
        path: Keys of `value` in the file; yielded with every copy.
    """
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        for wrong in WRONG:
            if wrong != item:
                changed = copy.copy(value)
                changed[key] = wrong
                yield (*path, key, wrong), changed
        if isinstance(value, dict):
            yield (*path, key, "deleted"), {k: v for k, v in items if k != key}
        if isinstance(item, dict | list) and key not in free:
            for where, inner in damaged(item, free, (*path, key)):
                changed = copy.copy(value)
                changed[key] = inner
                yield where, changed
