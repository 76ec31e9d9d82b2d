"""The comparison of finished experiments on the same test examples."""

from dataclasses import dataclass
from typing import Literal

from mmfusion_jax.option_types import SelectionProtocol
from mmfusion_jax.results.experiment_result import (
    BaselineSummary,
    Device,
    MeanStd,
    MetricInfo,
)
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.model_result import PeakMemory, TaskInfo


@dataclass(frozen=True)
class UnimodalScores:
    """The best unimodal model of an experiment: its modality and test scores."""

    modality: str
    scores: dict[str, MeanStd]


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """One of the compared experiments.

    Attributes:
        name: Shortest name of its workdir that no other has.
        workdir: Its workdir.
        model: Short name of the model.
        folds, seeds: Those that it was trained on.
        scores: Metric -> test score over all folds and seeds.
        selection_scores: Selection metric of every fold and seed.
        best_unimodal: The best unimodal model; None if none was trained.
        parameters: Number of parameters.
        macs_per_example: Multiply-accumulates of the forward pass of one example; None
            if unknown.
        step_s: Mean over folds and seeds of the median time of a training step.
        peak_memory: The highest memory use; None if unknown.
        device: The devices.
    """

    name: str
    workdir: str
    model: str
    folds: list[int]
    seeds: list[int]
    scores: dict[str, MeanStd]
    selection_scores: list[Number]
    best_unimodal: UnimodalScores | None
    parameters: int
    macs_per_example: int | None
    step_s: Number
    peak_memory: PeakMemory | None
    device: Device


@dataclass(frozen=True)
class Difference:
    """A difference of means, and its bootstrap interval over the test examples.

    All are None, or NaN, where the metric is not defined; the bounds also where it
    cannot be computed from the stored predictions.
    """

    value: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class ExampleTest:
    """A paired test over the test examples.

    Attributes:
        name: The test.
        n: Number of examples.
        better: Number of examples on which the run is better than the first one.
        worse: Number of examples on which it is worse.
        p: Two-sided p.
        p_holm: p adjusted for the number of runs, by Holm.
    """

    name: Literal["McNemar", "sign test", "Wilcoxon signed-rank"]
    n: int
    better: int
    worse: int
    p: Number
    p_holm: Number


@dataclass(frozen=True)
class SeedTest:
    """A paired t-test over the seeds that both runs have.

    Attributes:
        seeds: These seeds.
        t: Student's t; None, or NaN, if all differences are equal.
        p: Two-sided p.
        p_holm: p adjusted for the number of runs, by Holm.
    """

    seeds: list[int]
    t: Number
    p: Number
    p_holm: Number


@dataclass(frozen=True)
class Contrast:
    """A run compared with the first one.

    Attributes:
        name: Name of the run.
        differences: Metric -> score of the run minus score of the first one.
        examples: Test over the examples; None if a prediction is not finite.
        seeds: Test over the seeds; None with fewer than two common seeds.
    """

    name: str
    differences: dict[str, Difference]
    examples: ExampleTest | None
    seeds: SeedTest | None


@dataclass(frozen=True, kw_only=True)
class ComparisonResult:
    """Everything that is known of a comparison.

    Attributes:
        data: Title of the dataset.
        task: The label.
        protocol: Selection of the checkpoints.
        selection_metric: That of the first run; a key of `metrics`.
        metrics: Name -> what is known of a metric that all runs have.
        test_examples: Number of test examples, of all folds.
        level: Level of the intervals.
        resamples: Number of bootstrap samples.
        baseline: The constant baseline.
        runs: The experiments; the others are compared with the first one.
        contrasts: The comparisons, in the order of the runs.
        notes: What differs between the runs, and what is missing.
    """

    data: str
    task: TaskInfo
    protocol: SelectionProtocol
    selection_metric: str
    metrics: dict[str, MetricInfo]
    test_examples: int
    level: float
    resamples: int
    baseline: BaselineSummary
    runs: list[ComparedRun]
    contrasts: list[Contrast]
    notes: list[str]
