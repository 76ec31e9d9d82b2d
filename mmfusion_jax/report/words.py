"""Numbers as a reader wants them."""

import math
from collections.abc import Mapping
from typing import Any

DASH = "–"


def score(name: str, value: Any) -> str:
    """A score; shares of examples are given in percent."""
    if not is_number(value):
        return DASH
    return f"{value:.3f}" if name == "loss" else f"{100 * value:.1f} %"


def spread(name: str, summary: Mapping[str, Any]) -> str:
    """Mean and, of several runs, the standard deviation."""
    mean = score(name, summary["mean"])
    if summary.get("n", 1) < 2:
        return mean
    scale = 1 if name == "loss" else 100
    digits = 3 if name == "loss" else 1
    return f"{mean} ± {scale * summary['std']:.{digits}f}"


def points(difference: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{100 * difference:+.1f} points"


def count(value: Any) -> str:
    """A whole number with thousands separated."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def seconds(value: Any) -> str:
    """A time in the unit that fits it."""
    if not is_number(value):
        return DASH
    if value < 1:
        return f"{1000 * value:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def label(name: str) -> str:
    """A name of ours in a reader's words."""
    return {"uar": "UAR", "macro_f1": "macro F1"}.get(name, name.replace("_", " "))


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
