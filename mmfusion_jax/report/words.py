"""Numbers as a reader wants them."""

import math
from collections.abc import Mapping
from typing import Any

DASH = "–"
NO_SHARES = frozenset({"loss", "mae", "correlation"})


def score(name: str, value: Any) -> str:
    """A score; shares of examples are given in percent."""
    if not is_number(value):
        return DASH
    return f"{100 * value:.1f} %" if is_share(name) else f"{value:.3f}"


def deviation(name: str, summary: Mapping[str, Any]) -> str:
    """The standard deviation over several runs, such as "± 1.2"; "" for one run."""
    if summary["n"] < 2:
        return ""
    std = summary["std"]
    return f"± {100 * std:.1f}" if is_share(name) else f"± {std:.3f}"


def spread(name: str, summary: Mapping[str, Any]) -> str:
    """Mean and, of several runs, the standard deviation."""
    return f"{score(name, summary['mean'])} {deviation(name, summary)}".rstrip()


def difference(name: str, value: float) -> str:
    """How far one score is from another, with its sign."""
    text = f"{100 * value:+.1f} points" if is_share(name) else f"{value:+.3f}"
    return text.replace("-", "−")


def is_share(name: str) -> bool:
    """Whether a score is a share of examples, 0..1."""
    return name not in NO_SHARES


def count(value: Any) -> str:
    """A whole number with thousands separated."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def seconds(value: Any) -> str:
    """A time in the unit that fits it."""
    if not is_number(value):
        return DASH
    if value < 1:
        return f"{1000 * value:.{1 if value < 0.01 else 0}f} ms"
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
