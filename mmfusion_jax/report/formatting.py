"""Formats numbers and other values."""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from mmfusion_jax.results.experiment_result import MeanStd, MetricInfo, RunResult
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.rounding import format_number, format_percent

DASH = "–"
MINUS = "\N{MINUS SIGN}"
UNDEFINED = "not defined"

FRACTION = MetricInfo("", "", "percent", higher_is_better=True)
"""A fraction that is not a metric, such as the weight of a modality."""


def score(metric: MetricInfo, value: Number) -> str:
    """Returns a value with its unit."""
    if not is_number(value):
        return UNDEFINED
    return f"{format_percent(value)} %" if is_fraction(metric) else format_number(value)


def std(metric: MetricInfo, summary: MeanStd) -> str:
    """Returns the standard deviation over runs, such as "± 1.2"; "" for one run."""
    std = summary.std
    if summary.n < 2 or not is_number(std):
        return ""
    return f"± {format_percent(std) if is_fraction(metric) else format_number(std)}"


def mean_std(metric: MetricInfo, summary: MeanStd) -> str:
    """Returns the mean and, of several runs, the standard deviation."""
    return f"{score(metric, summary.mean)} {std(metric, summary)}".rstrip()


def difference(metric: MetricInfo, value: Number, other: Number = 0.0) -> str:
    """Returns the signed difference of two values; a dash if one is not defined."""
    if not (is_number(value) and is_number(other)):
        return DASH
    value -= other
    fraction = is_fraction(metric)
    size = format_percent(abs(value)) if fraction else format_number(abs(value))
    # No sign if the difference is rounded to 0: "-0.0" would look like one.
    sign = "" if float(size) == 0 else MINUS if value < 0 else "+"
    # Percentage points: "%" could be read as a relative difference.
    return f"{sign}{size} points" if fraction else f"{sign}{size}"


def p_value(value: float) -> str:
    """Returns the p of a test, such as "p = 0.012" or "p < 0.001"."""
    if not is_number(value):
        return "p not defined"
    return "p < 0.001" if value < 0.001 else f"p = {format_number(value)}"


def is_fraction(metric: MetricInfo) -> bool:
    """Returns whether values are fractions, 0..1, which are shown as percentages."""
    return metric.unit == "percent"


def count(value: int) -> str:
    """Returns an integer with thousands separators."""
    return f"{value:,}"


def significant(value: Number) -> str:
    """Returns a number of any size with three significant digits."""
    return UNDEFINED if value is None else f"{value:.3g}"


def signed(cosine: float) -> str:
    """Returns a cosine with its sign and two decimals."""
    return f"{cosine:+.2f}".replace("-", MINUS)


def seconds(value: Number) -> str:
    """Returns a duration in a suitable unit."""
    if not is_number(value):
        return DASH
    if value < 1:
        return f"{1000 * value:.{1 if value < 0.01 else 0}f} ms"
    if value < 100:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def run_name(run: RunResult) -> str:
    """Returns the name of a run."""
    return f"fold {run.fold}, seed {run.seed}"


def text(value: Any) -> str:
    """Returns a JSON value as text; a dash for an empty one."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        value = [f"{key}: {text(item)}" for key, item in value.items()]
    if isinstance(value, list | tuple):
        value = ", ".join(map(text, value))
    return DASH if value is None or value == "" else str(value)


def is_number(value: Number) -> TypeGuard[float]:
    """Returns whether `value` is a finite number."""
    return value is not None and math.isfinite(value)
