"""Numbers as a reader wants them."""

import math
from collections.abc import Mapping
from typing import Any

from mmfusion_jax.metrics.rounding import format_number, format_percent

DASH = "–"
UNDEFINED = "not defined"
NO_SHARES = frozenset(
    {
        "loss",
        "mae",
        "corr",
        "mis",
        "consistency",
        "consistency_soft",
        "confidence",
        "confidence_entropy",
    }
)
LABELS = {
    "uar": "UAR",
    "macro_f1": "macro F1",
    "mae": "MAE",
    "corr": "Pearson r",
    "mis": "MIS",
    "acc7": "Acc-7",
    "acc5": "Acc-5",
    "acc3": "Acc-3",
    "acc2": "Acc-2",
    "acc2_has0": "Acc-2 (with 0)",
    "acc2_non0": "Acc-2 (without 0)",
    "acc2_mult_all": "Acc-2 (MulT)",
    "f1": "F1",
    "f1_has0": "F1 (with 0)",
    "f1_non0": "F1 (without 0)",
    "f1_swapped_non0": "F1 (swapped weights)",
}


def score(name: str, value: Any) -> str:
    """A score; shares of examples are given in percent."""
    if not is_number(value):
        return UNDEFINED
    return f"{format_percent(value)} %" if is_fraction(name) else format_number(value)


def std(name: str, summary: Mapping[str, Any]) -> str:
    """The standard deviation over several runs, such as "± 1.2"; "" for one run."""
    if summary["n"] < 2 or not is_number(summary["std"]):
        return ""
    std = summary["std"]
    return (
        f"± {format_percent(std)}" if is_fraction(name) else f"± {format_number(std)}"
    )


def mean_std(name: str, summary: Mapping[str, Any]) -> str:
    """Mean and, of several runs, the standard deviation."""
    return f"{score(name, summary['mean'])} {std(name, summary)}".rstrip()


def difference(name: str, value: Any, other: Any = 0.0) -> str:
    """How far one score is from another, with its sign; a dash without one of them."""
    if not (is_number(value) and is_number(other)):
        return DASH
    value -= other
    sign = "−" if value < 0 else "+"
    size = (
        f"{format_percent(abs(value))} points"
        if is_fraction(name)
        else format_number(abs(value))
    )
    return f"{sign}{size}"


def p_value(value: float) -> str:
    """The p of a test; a dash where it does not exist."""
    return format_number(value) if is_number(value) else DASH


def is_fraction(name: str) -> bool:
    """Whether a score is a share of examples, 0..1."""
    return name not in NO_SHARES


def count(value: Any) -> str:
    """A whole number with thousands separated."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def significant(value: float) -> str:
    """A number of any size with three figures."""
    return f"{value:.3g}"


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
    return LABELS.get(name, name.replace("_", " "))


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
