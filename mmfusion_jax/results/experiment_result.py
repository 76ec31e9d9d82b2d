"""`result.json`: all folds and seeds of an experiment."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmfusion_jax.option_types import SelectionProtocol
from mmfusion_jax.results.json_file import Number, check, names_match, read_json
from mmfusion_jax.results.model_result import (
    Evaluation,
    ModelResult,
    Parameters,
    TaskInfo,
)

RESULT_FILE = "result.json"


@dataclass(frozen=True)
class MeanStd:
    """Mean and standard deviation (n - 1) over n runs.

    Both are None, or NaN, where the value of one run is not defined.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.results.MeanStd(mean=0.91, std=0.02, n=3).mean
        0.91
    """

    mean: Number
    std: Number
    n: int


@dataclass(frozen=True)
class MetricInfo:
    """A metric, as reports show it.

    Attributes:
        label: The name in reports.
        definition: One sentence.
        unit: "percent" for a fraction, which reports show as a percentage, or "".
        higher_is_better: The direction.
    """

    label: str
    definition: str
    unit: Literal["", "percent"]
    higher_is_better: bool


@dataclass(frozen=True)
class DataInfo:
    """Dataset of an experiment.

    Attributes:
        name: Its short name or import path.
        title: Its title.
        facts: Metadata by name, JSON values.
        counts: Split -> number of examples.
    """

    name: str
    title: str
    facts: dict[str, Any]
    counts: dict[str, int]


@dataclass(frozen=True)
class ModelInfo:
    """Model of an experiment: its short name or import path, and its size."""

    name: str
    parameters: Parameters


@dataclass(frozen=True)
class BaselineSummary:
    """Best constant prediction, and its test scores over all runs."""

    description: str
    scores: dict[str, MeanStd]


@dataclass(frozen=True)
class StageSummary:
    """Test scores of a unimodal model over all runs."""

    test: dict[str, MeanStd]


@dataclass(frozen=True)
class Summary:
    """Scores over all runs.

    Attributes:
        test: Metric or "loss" -> test score at the selected checkpoints.
        last: The same after the last step.
        best_test: Best test score of the selection metric over all evaluations; None if
            there is none.
        modality_weights: Modality -> weight; empty for a model without them.
        stages: Modality -> scores of its unimodal model.
    """

    test: dict[str, MeanStd]
    last: dict[str, MeanStd]
    best_test: MeanStd | None
    modality_weights: dict[str, MeanStd]
    stages: dict[str, StageSummary]


@dataclass(frozen=True)
class Device:
    """Kind, platform and number of the devices."""

    kind: str
    platform: str
    count: int


@dataclass(frozen=True, kw_only=True)
class RunResult(ModelResult):
    """One fold with one seed.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> run = mmf.read_result(Path("runs/cfn_sr")).runs[0]
        >>> run.seed, run.test.scores["accuracy"]
        (7, 0.75)

    Attributes:
        fold: Number of the fold.
        seed: Seed of weights, order and augmentation.
        folder: Relative to the work folder; "." for a run that is alone.
        stages: Modality -> result of its unimodal model.
    """

    fold: int
    seed: int
    folder: str
    stages: dict[str, ModelResult]


@dataclass(frozen=True)
class RunEvaluation:
    """Scores of a trained run at its selected checkpoint.

    Attributes:
        fold, seed, folder: The run.
        step: Step of the checkpoint.
        splits: Split -> scores.
        counts: Split -> number of examples.
    """

    fold: int
    seed: int
    folder: str
    step: int
    splits: dict[str, Evaluation]
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, repr=False)
class ExperimentResult:
    """Everything that is known of a finished experiment; prints as the final table.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> result = mmf.read_result(Path("runs/cfn_sr"))
        >>> result.model.name, result.protocol, result.summary.test["accuracy"].mean
        ('cfn_sr', 'validation', 0.75)

    Attributes:
        command: The command line.
        config: The config, as JSON values.
        config_sha256: Hash of the fields of the config that change a run.
        data: The dataset; `runs` have its fingerprint, by fold.
        model: The model.
        protocol: Selection of the checkpoint.
        task: The label.
        selection_metric: A key of `metrics`.
        metrics: Name -> what is known of a metric, "loss" included.
        baseline: The constant baseline.
        runs: Every fold and seed.
        summary: Scores over all runs.
        versions: Package -> version.
        git: Commit of the library; "" if unknown.
        device: The devices.
        created: Time of the end of the experiment, ISO 8601 in UTC.
    """

    command: str
    config: dict[str, Any]
    config_sha256: str
    data: DataInfo
    model: ModelInfo
    protocol: SelectionProtocol
    task: TaskInfo
    selection_metric: str
    metrics: dict[str, MetricInfo]
    baseline: BaselineSummary
    runs: list[RunResult]
    summary: Summary
    versions: dict[str, str]
    git: str
    device: Device
    created: str

    def __post_init__(self) -> None:
        # The report looks up metrics, stages and classes by name, without checks.
        check(bool(self.runs), "runs: empty")
        check(self.data.counts.get("test", 0) > 0, "data.counts: no test examples")
        metrics, stages = self.metrics, self.summary.stages
        check(self.selection_metric in metrics, "selection_metric: not in metrics")
        names_match(self.summary.test, metrics, "summary.test")
        names_match(self.summary.last, metrics, "summary.last")
        known = self.baseline.scores.keys() <= metrics.keys()
        check(known, "baseline.scores: a score that is not in metrics")
        for name, stage in stages.items():
            names_match(stage.test, metrics, f"summary.stages.{name}.test")
        for run in self.runs:
            names_match(run.stages, stages, "runs: stages")
            for model in (run, *run.stages.values()):
                names_match(model.test.scores, metrics, "runs: test")
                problem = model.plot_data.problem(self.task)
                check(not problem, f"runs: {problem}")

    def __repr__(self) -> str:
        from mmfusion_jax.results.summary import summary_lines  # it imports this module

        return "\n".join(summary_lines(self))


def read_result(workdir: Path) -> ExperimentResult | None:
    """Reads the result of an experiment; None if it is not finished.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> result = mmf.read_result(Path("runs/cfn_sr"))
        >>> result.selection_metric, result.summary.test["accuracy"].mean
        ('accuracy', 0.75)
        >>> mmf.read_result(Path("another")) is None
        True

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = workdir / RESULT_FILE
    fix = f"delete {path} and rerun: finished runs are kept"
    return read_json(path, ExperimentResult, fix) if path.exists() else None
