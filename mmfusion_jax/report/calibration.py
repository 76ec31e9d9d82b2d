"""Calibration: how far the probabilities and intervals of the runs can be trusted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmfusion_jax.report import charts, formatting
from mmfusion_jax.results.calibration_file import (
    Calibration,
    CalibrationTest,
    ReliabilityBin,
    read_calibration,
)
from mmfusion_jax.results.experiment_result import ExperimentResult, MetricInfo
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.summarize import mean_std

PLAIN = MetricInfo("", "", "", higher_is_better=True)
"""A value that is not a fraction, such as the size of a set."""


@dataclass(frozen=True)
class CalibrationSection:
    """Calibration of all runs that have one.

    Attributes:
        chart: Reliability diagram; None for a regression.
        errors: Expected calibration error before and after, and the temperature; [] for
            a regression.
        coverage: Nominal and measured coverage, and the mean size.
        count: Number of test examples of a run.
        valid: Number of validation examples of a run.
        runs: Number of runs with a calibration.
        is_interval: Intervals of scores; False for sets of classes.
        is_multilabel: A set is of the two values of a flag.
    """

    chart: charts.Chart | None
    errors: list[list[str]]
    coverage: list[list[str]]
    count: str
    valid: str
    runs: int
    is_interval: bool
    is_multilabel: bool


def section(workdir: Path, result: ExperimentResult) -> CalibrationSection | None:
    """Returns the calibration of the runs; None if none has one.

    Args:
        workdir: Directory of the experiment.
        result: The experiment.
    """
    read = [read_calibration(workdir / run.folder) for run in result.runs]
    found = [one for one in read if one is not None and one.test is not None]
    tests = [one.test for one in found if one.test is not None]
    if not tests:
        return None
    return CalibrationSection(
        chart=_reliability_chart(tests),
        errors=_errors(found, tests),
        coverage=_coverage(result, tests),
        count=_counts([one.count for one in tests]),
        valid=_counts([one.count for one in found]),
        runs=len(tests),
        is_interval=result.task.kind == "regression",
        is_multilabel=result.task.kind == "multilabel",
    )


def _errors(
    found: Sequence[Calibration], tests: Sequence[CalibrationTest]
) -> list[list[str]]:
    """Returns the rows of the table of errors; [] for a regression."""
    if any(one.ece is None for one in tests):
        return []
    spread = mean_std(
        {
            "before": test.ece_uncalibrated,
            "after": test.ece,
            "temperature": one.temperature,
        }
        for one, test in zip(found, tests, strict=True)
    )
    show = formatting.mean_std
    return [
        ["of the model", show(formatting.FRACTION, spread["before"]), "1"],
        [
            "calibrated",
            show(formatting.FRACTION, spread["after"]),
            show(PLAIN, spread["temperature"]),
        ],
    ]


def _coverage(
    result: ExperimentResult, tests: Sequence[CalibrationTest]
) -> list[list[str]]:
    """Returns nominal and measured coverage, and the mean size."""
    rows = []
    for i, first in enumerate(tests[0].coverage):
        same: list[Mapping[str, Number]] = [
            {"measured": one.coverage[i].measured, "size": one.coverage[i].size}
            for one in tests
        ]
        spread = mean_std(same)
        size = formatting.mean_std(PLAIN, spread["size"])
        if not formatting.is_number(spread["size"].mean):
            # There are too few validation examples for this coverage.
            size = "the whole range" if result.task.range else formatting.DASH
        measured = formatting.mean_std(formatting.FRACTION, spread["measured"])
        nominal = formatting.score(formatting.FRACTION, first.nominal)
        rows.append([nominal, measured, size])
    return rows


def _reliability_chart(tests: Sequence[CalibrationTest]) -> charts.Chart | None:
    """Returns the reliability diagram of all runs together; None for a regression."""
    lines = {
        "of the model": _pooled([one.bins_uncalibrated for one in tests]),
        "calibrated": _pooled([one.bins for one in tests]),
    }
    lines = {name: points for name, points in lines.items() if points}
    return charts.reliability_diagram(lines) if lines else None


def _pooled(
    runs: Sequence[Sequence[ReliabilityBin]],
) -> list[tuple[float, float, int]]:
    """Returns confidence, accuracy and count of the bins over all runs."""
    points = []
    for bins in zip(*runs, strict=False):
        filled = [
            (one.count, one.confidence, one.accuracy)
            for one in bins
            if one.confidence is not None and one.accuracy is not None
        ]
        total = sum(count for count, _, _ in filled)
        if total:
            confidence = sum(n * x for n, x, _ in filled) / total
            accuracy = sum(n * y for n, _, y in filled) / total
            points.append((confidence, accuracy, total))
    return points


def _counts(counts: Sequence[int]) -> str:
    """Returns a number of examples, or its range over the runs."""
    low, high = formatting.count(min(counts)), formatting.count(max(counts))
    return low if low == high else f"{low} to {high}"
