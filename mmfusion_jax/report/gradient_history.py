"""Gradients of the loss terms over the training, from the logs of the runs."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmfusion_jax.errors import shown_name
from mmfusion_jax.losses.objective import TASK
from mmfusion_jax.report import formatting
from mmfusion_jax.report.charts import Chart, Points, term_curves
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.gradient_names import COSINE, NORM, SHARE
from mmfusion_jax.results.metrics_file import MetricsLine, read_metrics

ALL_MODULES = "all"
FREQUENT = 0.5
"""Fraction of the batches above which the conflict of a pair has a sentence."""
RELEVANT = 0.01
"""Share of the gradient norm below which a term has no sentence."""
MAX_SENTENCES = 5
MAX_ROWS = 12
"""Rows of the table that are shown at once."""
MAX_POINTS = 50
"""Points of a curve; the records of neighboring steps are averaged."""


@dataclass(frozen=True)
class Conflict:
    """Gradients of two loss terms in a module.

    Attributes:
        module: The module.
        pair: Names of the terms.
        shares: Mean share of each in the gradient norm of the module, 0..1.
        cosine: Mean cosine.
        rate: Fraction of the batches in which the cosine is negative, 0..1.
    """

    module: str
    pair: tuple[str, str]
    shares: tuple[float, float]
    cosine: float
    rate: float


@dataclass(frozen=True)
class ModuleCharts:
    """Charts of one module."""

    name: str
    charts: list[Chart]


@dataclass(frozen=True)
class GradientSection:
    """The section of the report.

    Attributes:
        batches: Number of recorded batches.
        sentences: The most frequent conflicts.
        charts: Charts of all modules together.
        modules: Charts of each module in which several terms have a gradient.
        rows: Rows of the table of conflicts, the most frequent first.
        more: Its other rows.
    """

    batches: int
    sentences: list[str]
    charts: list[Chart]
    modules: list[ModuleCharts]
    rows: list[list[str]]
    more: list[list[str]]


def section(workdir: Path, result: ExperimentResult) -> GradientSection | None:
    """Returns the section about gradients during training; None if none are recorded.

    Args:
        workdir: Directory of the experiment, which contains the logs of its runs.
        result: The experiment.
    """
    logs = [read_metrics(workdir / run.folder) for run in result.runs]
    lines = [line for log in logs for line in log if line.kind == "gradients"]
    if not lines:
        return None
    shares: dict[str, list[str]] = {}
    for name in lines[0].values:
        kind, _, rest = name.partition("/")
        if kind == NORM:
            module, _, term = rest.partition("/")
            shares.setdefault(module, []).append(term)
    terms = shares[ALL_MODULES]
    found = conflicts(lines, list(shares), terms)
    rows = [_row(one) for one in found]
    modules = [
        name
        for name in shares
        if name != ALL_MODULES and len({*_active(lines, name, terms)}) > 1
    ]
    return GradientSection(
        batches=len(lines),
        sentences=[*sentences(found)],
        charts=_charts(lines, ALL_MODULES, terms),
        modules=[ModuleCharts(name, _charts(lines, name, terms)) for name in modules],
        rows=rows[:MAX_ROWS],
        more=rows[MAX_ROWS:],
    )


def conflicts(
    lines: Sequence[MetricsLine], modules: Sequence[str], terms: Sequence[str]
) -> list[Conflict]:
    """Returns all pairs of terms by module, the most frequent conflict first.

    Args:
        lines: Records of gradients.
        modules: Names of the modules.
        terms: Names of the loss terms.
    """
    found = []
    for module, pair in itertools.product(modules, itertools.combinations(terms, 2)):
        cosines = _values(lines, f"{COSINE}/{module}/{'/'.join(pair)}")
        if not cosines.size:
            continue
        first, second = (
            float(np.mean(_values(lines, f"{SHARE}/{module}/{term}"))) for term in pair
        )
        rate = float(np.mean(cosines < 0))
        mean = float(np.mean(cosines))
        found.append(Conflict(module, pair, (first, second), mean, rate))
    return sorted(found, key=lambda one: (-one.rate, one.cosine))


def sentences(found: Sequence[Conflict]) -> Iterator[str]:
    """Yields a sentence for each of the most frequent conflicts.

    Args:
        found: Result of `conflicts`.
    """
    frequent = [
        one
        for one in found
        if one.rate > FREQUENT
        and min(one.shares) >= RELEVANT
        and one.module != ALL_MODULES
    ]
    for one in frequent[:MAX_SENTENCES]:
        first, second = map(shown_name, one.pair)
        yield (
            f"The gradients of {first} and {second} conflict in "
            f"{shown_name(one.module)} in {_percent(one.rate)} of the batches "
            f"(mean cosine {formatting.signed(one.cosine)})."
        )
    if found and not frequent:
        yield (
            "In every module, the gradients of any two terms conflict in at most half "
            "of the batches."
        )


def _row(one: Conflict) -> list[str]:
    """Returns a row of the table."""
    return [
        f"{one.pair[0]}, {one.pair[1]}",
        one.module,
        _percent(one.rate),
        formatting.signed(one.cosine),
        " and ".join(map(_percent, one.shares)),
    ]


def _charts(
    lines: Sequence[MetricsLine], module: str, terms: Sequence[str]
) -> list[Chart]:
    """Returns the curves of shares, and of cosines to the task, in a module."""
    active = _active(lines, module, terms)
    shares = {t: _curve(lines, f"{SHARE}/{module}/{t}") for t in active}
    cosines: dict[str, Points] = {}
    if TASK in active and len(active) > 1:
        for term in active:
            pair = [x for x in terms if x in (term, TASK)]  # in the order of the log
            if term != TASK:
                cosines[term] = _curve(lines, f"{COSINE}/{module}/{'/'.join(pair)}")
    where = "all modules" if module == ALL_MODULES else module
    colors = {term: number for number, term in enumerate(terms)}
    charts = [
        term_curves(shares, colors, f"share of gradient norm, {where}", signed=False)
    ]
    if cosines:
        charts.append(
            term_curves(cosines, colors, f"cosine to task, {where}", signed=True)
        )
    return charts


def _active(
    lines: Sequence[MetricsLine], module: str, terms: Sequence[str]
) -> list[str]:
    """Returns the terms that have a gradient in a module."""
    return [t for t in terms if np.any(_values(lines, f"{NORM}/{module}/{t}") > 0)]


def _values(lines: Sequence[MetricsLine], name: str) -> np.ndarray:
    """Returns all finite values of a scalar."""
    found = [line.values.get(name) for line in lines]
    return np.array([x for x in found if x is not None])


def _curve(lines: Sequence[MetricsLine], name: str) -> Points:
    """Returns (epoch, value), means of neighboring records of all runs."""
    points: dict[float, list[float]] = {}
    for line in lines:
        if (value := line.values.get(name)) is not None:
            points.setdefault(line.epoch, []).append(value)
    means = sorted((epoch, float(np.mean(x))) for epoch, x in points.items())
    parts = np.array_split(np.array(means), min(len(means), MAX_POINTS) or 1)
    return [(part[:, 0].mean(), part[:, 1].mean()) for part in parts if len(part)]


def _percent(fraction: float) -> str:
    """Returns a fraction as a percentage without decimals."""
    return "< 1 %" if 0 < fraction < 0.005 else f"{100 * fraction:.0f} %"
