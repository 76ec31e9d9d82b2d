"""Streams, loss terms and modalities: which parts of a model have an effect."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmfusion_jax.report import formatting
from mmfusion_jax.results.experiment_result import ExperimentResult, RunResult
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.results.model_result import Diagnosis, ModelResult

ADDED = "log/added/"
"""Prefix of the share that a cross-modal block adds, in the metrics of training."""

CONSTANT = 1e-3
"""A stream with a smaller varying fraction of its energy is reported as constant."""

AT_CHANCE = 0.98
"""A loss term above this fraction of its chance level is reported."""

NEGLIGIBLE = 1e-3
"""A loss term whose gradient is a smaller fraction of the task's is reported."""


@dataclass(frozen=True)
class Tables:
    """Rows of the tables, means over the runs.

    Attributes:
        modalities: Modality, its weight, and what its absence costs.
        has_weights: Whether the model has modality weights.
        streams: Stream, and the fraction of its energy that differs.
        terms: Loss term, value, chance level, weight and relative gradient.
    """

    modalities: list[list[str]]
    has_weights: bool
    streams: list[list[str]]
    terms: list[list[str]]


def findings(result: ExperimentResult) -> list[str]:
    """Returns a sentence for every part that has no effect, with the number of runs.

    Args:
        result: The experiment.
    """
    # Sentence without its figure -> figure in every run that it holds for.
    found: dict[str, list[str]] = {}
    for run in result.runs:
        for where, model in _models(run):
            if model.diagnosis is not None:
                for what, figure in _problems(model.diagnosis):
                    found.setdefault(f"{where}{what}", []).append(figure)
    total = len(result.runs)
    return [
        f"{what} ({', '.join(figures)})"
        + (f" in {len(figures)} of {total} runs." if total > 1 else ".")
        for what, figures in found.items()
    ]


def tables(result: ExperimentResult) -> Tables:
    """Returns the tables of the section about modalities, streams and loss terms."""
    found = [run.diagnosis for run in result.runs if run.diagnosis is not None]
    weights = result.summary.modality_weights
    first = found[0] if found else Diagnosis()
    streams = [
        [name, _fraction(_mean([one.streams.get(name) for one in found]))]
        for name in first.streams
    ]
    terms = []
    for name in first.terms:
        states = [one.terms[name] for one in found if name in one.terms]
        chance = _mean([state.chance for state in states])
        terms.append(
            [
                name,
                formatting.significant(_mean([state.value for state in states])),
                formatting.DASH if chance is None else formatting.significant(chance),
                formatting.significant(_mean([state.weight for state in states])),
                formatting.significant(_mean([state.gradient for state in states])),
            ]
        )
    names = [*first.without] or [*weights]
    modalities = [
        [
            name,
            formatting.mean_std(formatting.FRACTION, weights[name])
            if name in weights
            else formatting.DASH,
            _lost(result, found, name),
        ]
        for name in names
    ]
    return Tables(modalities, bool(weights), streams, terms)


def added(workdir: Path, result: ExperimentResult) -> list[list[str]]:
    """Returns the share that a cross-modal block adds to every modality it changes.

    Args:
        workdir: Directory of the experiment, which contains the metrics of training.
        result: The experiment.
    """
    values: dict[str, list[Number]] = {}
    for run in result.runs:
        logs = read_metrics(workdir / run.folder)
        # The last entry of training: the diagnosis is of a trained model too.
        trained = [line.values for line in logs if line.kind == "train"]
        for name, value in (trained[-1] if trained else {}).items():
            if name.startswith(ADDED):
                values.setdefault(name.removeprefix(ADDED), []).append(value)
    return [[name, _fraction(_mean(found))] for name, found in values.items()]


def _models(run: RunResult) -> Iterator[tuple[str, ModelResult]]:
    """Yields the models of a run, with a prefix that names a unimodal one."""
    yield "", run
    for name, stage in run.stages.items():
        yield f"{name} only: ", stage


def _problems(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """Yields what has no effect, and the figure that shows it."""
    for name, fraction in diagnosis.streams.items():
        if fraction is not None and fraction < CONSTANT:
            yield (
                f"Stream “{name}” is the same for all examples",
                f"{fraction:.1g} of its energy differs",
            )
    for name, term in diagnosis.terms.items():
        value, chance, gradient = term.value, term.chance, term.gradient
        if chance and value is not None and value >= AT_CHANCE * chance:
            yield (
                f"Loss term “{name}” is at its chance level",
                f"{value:.2f}, chance {chance:.2f}",
            )
        if gradient is not None and gradient < NEGLIGIBLE:
            yield (
                f"Loss term “{name}” has less than a thousandth of the gradient of the "
                "task",
                f"{gradient:.1g}",
            )


def _lost(result: ExperimentResult, found: list[Diagnosis], modality: str) -> str:
    """Returns the change of the selection metric if a modality is missing."""
    select = result.selection_metric
    metric, full = result.metrics[select], result.summary.test[select].mean
    scores = [one.without.get(modality, {}).get(select) for one in found]
    return formatting.difference(metric, _mean(scores), full)


def _fraction(value: Number) -> str:
    """Returns a fraction with enough digits to show a small one."""
    return formatting.DASH if value is None else f"{100 * value:.2g} %"


def _mean(values: list[Number]) -> Number:
    """Returns the mean of numbers; None without any, or if one is not defined."""
    defined = [value for value in values if value is not None]
    if not defined or len(defined) < len(values):
        return None
    return sum(defined) / len(defined)
