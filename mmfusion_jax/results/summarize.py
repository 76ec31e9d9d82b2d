"""Mean and standard deviation of the scores of all folds and seeds."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from mmfusion_jax.results.experiment_result import (
    ExperimentResult,
    MeanStd,
    RunResult,
    StageSummary,
    Summary,
)
from mmfusion_jax.results.json_file import Number


def summarize(runs: Sequence[RunResult]) -> Summary:
    """Returns mean and standard deviation of all scores.

    Args:
        runs: At least one, all with the same metrics and stages.
    """
    best = [{"score": run.best_test.score} for run in runs if run.best_test]
    weights = [run.modality_weights for run in runs if run.modality_weights]
    return Summary(
        test=mean_std(run.test.scores for run in runs),
        last=mean_std(run.last.scores for run in runs),
        best_test=mean_std(best)["score"] if best else None,
        modality_weights=mean_std(weights),
        stages={
            name: StageSummary(mean_std(run.stages[name].test.scores for run in runs))
            for name in runs[0].stages
        },
    )


def with_seeds(result: ExperimentResult, seeds: Collection[int]) -> ExperimentResult:
    """Returns the result of some of the seeds of an experiment.

    Args:
        result: The result of all seeds.
        seeds: At least one of its seeds.
    """
    runs = [run for run in result.runs if run.seed in seeds]
    scores = mean_std(run.baseline.scores for run in runs)
    baseline = dataclasses.replace(result.baseline, scores=scores)
    return dataclasses.replace(
        result, runs=runs, summary=summarize(runs), baseline=baseline
    )


def mean_std(scores: Iterable[Mapping[str, Number]]) -> dict[str, MeanStd]:
    """Returns, by score, the mean and the standard deviation (n - 1) over the runs.

    NaN where the score of one run is not defined; empty without runs.
    """
    rows = [*scores]
    made = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows], np.float64)  # NaN for None
        std = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        made[name] = MeanStd(float(values.mean()), std, len(values))
    return made
