"""Charts as SVG with the colors of the page."""

import io
import itertools
import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.metrics_file import MetricsLine
from mmfusion_jax.results.rounding import format_number

# Placeholders for the page's colors, which differ between light and dark mode:
# `_inline` replaces these values by variables of the style sheet.
COLORS = {
    "ink": "#010101",
    "soft": "#020202",
    "grid": "#030303",
    "first": "#040404",
    "second": "#050505",
    "third": "#060606",
    "fourth": "#070707",
    "fifth": "#080808",
}
LIGHT = {
    "ink": "#1c1f24",
    "soft": "#5b6370",
    "grid": "#e3e1dc",
    "first": "#1f5fbf",
    "second": "#c2571a",
    "third": "#4d7a3a",
    "fourth": "#8a4fa3",
    "fifth": "#8c6d1f",
}
"""Colors of a picture by itself: those of the page in light mode."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text, not outlines: it can be selected and searched
    # One size for all letters; names from data are not formulas.
    "font.size": 10,
    "axes.titlesize": 10,
    "legend.fontsize": 10,
    "text.parse_math": False,
    "legend.handlelength": 1.2,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.2,
    "text.color": COLORS["ink"],
    "axes.labelcolor": COLORS["soft"],
    "axes.edgecolor": COLORS["grid"],
    "xtick.color": COLORS["soft"],
    "ytick.color": COLORS["soft"],
    "grid.color": COLORS["grid"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}

WIDTH = 4.2
"""Width in inches, the same for all charts, which are scaled to one width."""
LONGEST_NAME = 24
"""Number of characters of a name in a chart; longer ones are shortened."""
LABEL_WIDTH = 44
"""Number of characters in a line of the label of an interval plot."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Points: TypeAlias = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """An SVG element and its text alternative."""

    svg: Markup
    description: str


def curves(
    lines: Mapping[str, Sequence[Points]],
    marks: Points,
    what: str,
    salt: str,
    *,
    percent: bool = True,
) -> Chart:
    """Draws curves over epochs.

    Args:
        lines: Name -> one series of (epoch, value) per run.
        marks: Points to mark with a dot.
        what: The quantity, for the title and the text alternative.
        salt: Unique identifier of the chart on the page.
        percent: Show values as percentages.
    """
    colors = ("first", "second", "third")
    # Without a salt the ids of the elements are random, and the same result would give
    # another page. Charts have different salts, since ids must be unique on a page.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": salt}):
        figure, axes = _empty()
        for (name, runs), color in zip(lines.items(), itertools.cycle(colors)):
            alpha = 1.0 if len(runs) == 1 else max(0.25, 0.9 / len(runs) ** 0.5)
            for number, series in enumerate(runs):
                # A line of one point is invisible.
                few = len(series) < 3
                axes.plot(
                    *zip(*series, strict=True) if series else ((), ()),
                    color=COLORS[color],
                    alpha=alpha,
                    linewidth=1.6,
                    linestyle="--" if color == "third" else "-",
                    marker="o" if few else "",
                    markersize=3,
                    label="" if number else name,
                )
        if marks:
            x, y = zip(*marks, strict=True)
            axes.plot(x, y, "o", color=COLORS["ink"], markersize=5, label="selected")
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_title(shortened(what, 2 * LONGEST_NAME), loc="left")
        axes.grid(axis="x", visible=False)
        axes.tick_params(length=0)
        _legend_below(figure, [*lines, "selected"])
        return _inline(figure, _described(lines, what))


def term_curves(
    lines: Mapping[str, Points], numbers: Mapping[str, int], what: str, *, signed: bool
) -> Chart:
    """Draws a curve over epochs for every loss term.

    Args:
        lines: Term -> points (epoch, value).
        numbers: Term -> number that decides its color, the same in all charts.
        what: The quantity, for the title and the text alternative.
        signed: Show values from -1 to 1 with a line at 0; else percentages from 0.
    """
    colors = ("first", "second", "third", "fourth", "fifth")
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"terms {what}"}):
        figure, axes = _empty()
        if signed:
            axes.axhline(0, color=COLORS["soft"], linewidth=1)
        for name, points in lines.items():
            # A sixth term has the color of the first one and another line.
            repeat, number = divmod(numbers[name], len(colors))
            axes.plot(
                *zip(*points, strict=True) if points else ((), ()),
                color=COLORS[colors[number]],
                linewidth=1.6,
                linestyle=("-", "--", ":")[repeat % 3],
                marker="o" if len(points) < 3 else "",
                markersize=3,
                label=shortened(name),
            )
        axes.set_xlabel("epoch")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if signed:
            axes.set_ylim(-1.05, 1.05)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.set_title(shortened(what, 2 * LONGEST_NAME), loc="left")
        axes.grid(axis="x", visible=False)
        axes.tick_params(length=0)
        _legend_below(figure, lines)
        return _inline(figure, _described({k: [v] for k, v in lines.items()}, what))


def scatter(
    y_true: np.ndarray, y_pred: np.ndarray, limits: Sequence[float], what: str
) -> Chart:
    """Draws predictions vs. labels.

    Args:
        y_true: Labels.
        y_pred: Predictions.
        limits: Minimum and maximum label.
        what: Name of the label.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"scatter {what}"}):
        figure, axes = _empty()
        axes.plot(limits, limits, color=COLORS["soft"], linewidth=1)
        alpha = max(0.15, min(0.8, 20 / max(len(y_true), 1) ** 0.5))
        axes.plot(
            y_true, y_pred, "o",
            color=COLORS["first"], markersize=3.5, markeredgewidth=0, alpha=alpha,
        )  # fmt: skip
        name = shortened(what)
        axes.set_xlabel(f"{name}, label")
        axes.set_title(f"{name}, prediction", loc="left")
        axes.tick_params(length=0)
        return _inline(figure, f"{what}: {len(y_true)} predictions vs. labels")


def reliability_diagram(
    lines: Mapping[str, Sequence[tuple[float, float, int]]],
) -> Chart:
    """Draws the accuracy of predictions vs. their confidence.

    Args:
        lines: Name of the probabilities -> confidence, accuracy and number of
            predictions of every bin; the area of a dot grows with the number.
    """
    colors = {"of the model": "second", "calibrated": "first"}
    what = "accuracy of predictions of this confidence"
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "reliability"}):
        figure, axes = _empty(3.4)
        axes.plot((0, 1), (0, 1), color=COLORS["soft"], linewidth=1)
        most = max(count for points in lines.values() for _, _, count in points)
        for name, points in lines.items():
            x, y, counts = zip(*points, strict=True)
            color = COLORS[colors[name]]
            style = "--" if name == "of the model" else "-"
            axes.plot(x, y, style, color=color, linewidth=1.4, label=name)
            sizes = [10 + 70 * count / most for count in counts]
            axes.scatter(
                *(x, y, sizes), color=color, linewidths=0, alpha=0.8, clip_on=False
            )
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("confidence")
        axes.set_title(what, loc="left")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.tick_params(length=0)
        _legend_below(figure, lines)
        parts = [
            f"{name} "
            + ", ".join(
                f"{format_number(y)} at {format_number(x)} ({n})" for x, y, n in points
            )
            for name, points in lines.items()
        ]
        return _inline(figure, f"{what}: {'; '.join(parts)}")


def dot_plot(values: Mapping[str, Mapping[str, Number]], what: str) -> Chart:
    """Draws positive values on a log scale, one row per item.

    Args:
        values: Name of a series -> item -> value; None and 0 are omitted.
        what: The quantity.
    """
    items = list(next(iter(values.values())))
    # Marker and color of each series.
    # More terms than markers and colors share them; the table below names all.
    kinds = itertools.cycle(itertools.product("osD^v", ("first", "second", "third")))
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"dots {what}"}):
        figure, axes = _empty(1.2 + 0.25 * len(items) + 0.1 * len(values))
        for (name, row), (marker, color) in zip(values.items(), kinds, strict=False):
            points = [(x, i) for i, x in enumerate(row.values()) if x and x > 0]
            axes.plot(
                *zip(*points, strict=True) if points else ((), ()),
                marker, color=COLORS[color], markersize=6, alpha=0.8,
                label=shortened(name),
            )  # fmt: skip
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(_power_of_ten)
        axes.xaxis.set_minor_formatter("")
        axes.set_yticks(range(len(items)), [*map(shortened, items)])
        axes.set_ylim(len(items) - 0.5, -0.5)
        axes.set_xlabel(what)
        axes.tick_params(length=0, which="both")
        if len(values) > 1:
            _legend_below(figure, values)
        return _inline(figure, f"{what}, by {', '.join(values)}")


@dataclass(frozen=True)
class IntervalRow:
    """A row of an interval plot.

    Attributes:
        name: The item.
        value: A large dot.
        low, high: Ends of its interval; None or NaN for no interval.
        values: Small dots, such as the score of every seed.
    """

    name: str
    value: Number
    low: Number = None
    high: Number = None
    values: Sequence[Number] = ()


def interval_plot(
    rows: Sequence[IntervalRow], what: str, *, percent: bool, signed: bool = False
) -> Chart:
    """Draws values with their intervals, one row per item.

    Args:
        rows: The items, from top to bottom.
        what: The quantity.
        percent: Show values as percentages.
        signed: Show a line at 0, for differences.
    """
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": f"intervals {what}"}):
        figure = _interval_figure(rows, what, COLORS, percent=percent, signed=signed)
        parts = [f"{row.name} {format_number(row.value)}" for row in rows]
        return _inline(figure, f"{what}: {', '.join(parts)}")


def save_interval_plot(
    path: Path,
    rows: Sequence[IntervalRow],
    what: str,
    *,
    percent: bool,
    signed: bool = False,
) -> None:
    """Writes an interval plot to a file, `.svg` or `.png`, on white."""
    used = {COLORS[name]: LIGHT[name] for name in COLORS}
    style = {key: used.get(value, value) for key, value in STYLE.items()}
    with matplotlib.rc_context({**style, "svg.hashsalt": f"intervals {what}"}):
        figure = _interval_figure(rows, what, LIGHT, percent=percent, signed=signed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")
            # Without the date, the same result gives the same file.
            metadata = {"Date": None} if path.suffix == ".svg" else None
            figure.savefig(path, dpi=200, facecolor="white", metadata=metadata)


def _interval_figure(
    rows: Sequence[IntervalRow],
    what: str,
    colors: Mapping[str, str],
    *,
    percent: bool,
    signed: bool,
) -> Figure:
    """Draws the rows of an interval plot."""
    label = textwrap.fill(shortened(what, 4 * LONGEST_NAME), LABEL_WIDTH)
    figure, axes = _empty(0.75 + 0.3 * len(rows) + 0.17 * len(label.splitlines()))
    if signed:
        axes.axvline(0, color=colors["soft"], linewidth=1)
    defined = lambda *values: all(x is not None and np.isfinite(x) for x in values)
    for i, row in enumerate(rows):
        dots = [x for x in row.values if defined(x)]
        axes.plot(
            dots, [i] * len(dots), "o",
            color=colors["second"], markersize=3.5, markeredgewidth=0, alpha=0.7,
        )  # fmt: skip
        if defined(row.low, row.high):
            line = (row.low, row.high)
            axes.plot(line, (i, i), color=colors["first"], linewidth=1.6)
        if defined(row.value):
            axes.plot(row.value, i, "D", color=colors["first"], markersize=6)
    axes.set_yticks(range(len(rows)), [shortened(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    if percent:
        axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=""))
    axes.grid(axis="y", visible=False)
    # Below the figure, not the axes: long names leave these half of the width.
    figure.supxlabel(label, fontsize=10, color=colors["soft"])
    axes.tick_params(length=0)
    return figure


def shortened(name: str, length: int = LONGEST_NAME) -> str:
    """Returns a name that fits into a chart, without control characters."""
    name = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return name if len(name) <= length else f"{name[: length - 1]}…"


def _power_of_ten(value: float, position: int) -> str:
    """Labels a tick of a log scale without a formula, whose letters have two sizes."""
    del position
    power = str(round(np.log10(value))) if value > 0 else ""
    return f"10{power.translate(SUPERSCRIPTS)}" if power else ""


def _legend_below(figure: Figure, names: Iterable[str]) -> None:
    """Adds a legend below the axes, where it covers nothing, in columns that fit."""
    # In points: line, letters and gap.
    widths = [30 + 5.6 * len(shortened(name)) for name in names]
    fits = sum(widths) <= 72 * WIDTH
    columns = len(widths) if fits else max(1, int(72 * WIDTH / max(widths)))
    legend = figure.legend(loc="outside lower center", ncols=columns)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1.0)  # lines of many runs are pale


def _empty(height: float = 2.9) -> tuple[Figure, Any]:
    """Creates a figure and its axes."""
    # Not pyplot, which keeps every figure until it is closed and may open a window.
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.add_subplot()


def _inline(figure: Figure, description: str) -> Chart:
    """Converts a figure to SVG for use inside the page."""
    text = io.StringIO()
    with warnings.catch_warnings():
        # The browser, not matplotlib, has the font.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    # Inline SVG: without the XML header, and without width and height, so that a chart
    # has the width of its column. matplotlib's style sheet would apply to the whole
    # page, and the namespace of xlink:href is not declared in HTML.
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r"<svg \1>", svg)
    svg = svg.replace("'DejaVu Sans'", "system-ui").replace("xlink:href", "href")
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    # Screen readers get the description instead of single letters and numbers.
    svg = svg.replace("<svg ", '<svg aria-hidden="true" ', 1)
    # matplotlib escapes every text in it.
    return Chart(Markup(svg), description)


def _described(lines: Mapping[str, Sequence[Points]], what: str) -> str:
    """Describes the chart: first and last value of every line."""
    parts = [
        f"{name} from {format_number(series[0][1])} to {format_number(series[-1][1])}"
        for name, runs in lines.items()
        for series in runs[:1]
        if series
    ]
    return f"{what} over epochs: {'; '.join(parts) or 'nothing recorded'}"


def series(lines: Sequence[MetricsLine], name: str) -> list[tuple[float, float]]:
    """Returns (epoch, value) of every line with a number `name`."""
    return [
        (line.epoch, value)
        for line in lines
        if (value := line.values.get(name)) is not None
    ]
