"""`run.json`: the result of training one model on one fold with one seed."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mmfusion_jax.results.json_file import Number, check, read_json
from mmfusion_jax.results.run_identity import RunIdentity

RUN_FILE = "run.json"


@dataclass(frozen=True)
class NotFinite:
    """Predictions that are not finite, so that the scores are not defined.

    Attributes:
        count: Number of such examples.
        of: Number of all examples.
        examples: Indices of the first ones.
    """

    count: int
    of: int
    examples: list[int]


@dataclass(frozen=True)
class Evaluation:
    """Scores of one split.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.results.Evaluation({"accuracy": 0.91, "loss": 0.3}).scores["accuracy"]
        0.91

    Attributes:
        scores: Metric or "loss" -> value; None, or NaN, where it is not defined.
        not_finite: Why the scores are not defined; None if they are.
    """

    scores: dict[str, Number]
    not_finite: NotFinite | None = None


@dataclass(frozen=True)
class Parameters:
    """Number of parameters, in total and of every top-level module."""

    total: int
    components: dict[str, int]

    def __post_init__(self) -> None:
        check(min(self.components.values(), default=0) >= 0, "parameters: negative")
        check(self.total == sum(self.components.values()), "parameters: wrong total")


@dataclass(frozen=True)
class StepTime:
    """Median, 10th and 90th percentile of the time of a training step, in seconds."""

    median: Number
    p10: Number
    p90: Number


@dataclass(frozen=True)
class Times:
    """Time of a run by phase, in seconds.

    Attributes:
        step_s: Time of a training step.
        compile_s: Time of the first step, which includes compilation.
        data_stall_fraction: Fraction of the step time for which the devices waited for
            data, 0..1.
        evaluate_s: Time of evaluations.
        save_s: Time to start checkpoints.
        total_s: Time of the whole run.
    """

    step_s: StepTime
    compile_s: Number
    data_stall_fraction: Number
    evaluate_s: Number
    save_s: Number
    total_s: Number


@dataclass(frozen=True)
class PeakMemory:
    """The highest memory use of a process so far, all its runs included, in bytes.

    Attributes:
        bytes: Memory of the first device if it counts it, else of the process, which
            also has the data.
        of: The one of the two.
    """

    bytes: int
    of: Literal["device", "process"]


@dataclass(frozen=True)
class BestTest:
    """Best test score over all evaluations, which selects nothing.

    Attributes:
        score: Value of the selection metric.
        rank: The score with its sign changed where lower is better.
        step: The step of the evaluation.
    """

    score: float
    rank: float
    step: int


@dataclass(frozen=True)
class Baseline:
    """Best constant prediction.

    Attributes:
        description: Such as "majority class: “happy”".
        scores: Its metrics on the test split; None, or NaN, where it is not defined.
    """

    description: str
    scores: dict[str, Number]


@dataclass(frozen=True)
class TaskInfo:
    """Label that a model predicts.

    Attributes:
        label: Its name.
        kind: Its type.
        classes: Names of the classes, by index.
        range: Lowest and highest value of a regression.
        flags: Names of the flags of a multilabel task.
        family: Metrics of a regression, see `RegressionTarget`; "" in older files.
        neutral: Value between negative and positive of a regression.
    """

    label: str
    kind: Literal["classification", "regression", "multilabel"]
    classes: list[str] = field(default_factory=list)
    range: tuple[float, float] | None = None
    flags: list[str] = field(default_factory=list)
    family: str = ""
    neutral: float = 0.0

    def __post_init__(self) -> None:
        regression = self.kind == "regression"
        check((self.range is not None) == regression, "task: range does not fit kind")


@dataclass(frozen=True)
class Pairs:
    """Labels and predictions of a regression, (n) each."""

    truth: list[float]
    prediction: list[float]

    def __post_init__(self) -> None:
        check(len(self.truth) == len(self.prediction), "pairs: not of the same length")
        finite = all(map(math.isfinite, (*self.truth, *self.prediction)))
        check(finite, "pairs: not finite")


@dataclass(frozen=True)
class PlotData:
    """Predictions on the test split, as the report plots them.

    Attributes:
        confusion: (k k) counts, true class by predicted class; None for other labels.
        pairs: Labels and predictions of a regression; None for other labels.
    """

    confusion: list[list[int]] | None = None
    pairs: Pairs | None = None

    def __post_init__(self) -> None:
        if (rows := self.confusion) is not None:
            square = all(len(row) == len(rows) for row in rows)
            check(square, "confusion: not a square matrix")
            check(min(map(min, rows), default=0) >= 0, "confusion: a negative count")

    def problem(self, task: TaskInfo) -> str:
        """Returns what does not fit the label; "" if everything fits."""
        # Not in `__post_init__`: the label is in the result of the experiment only.
        if (self.pairs is not None) != (task.kind == "regression"):
            return f"plot_data: pairs do not fit a {task.kind}"
        size = len(self.confusion or ())
        if size != (len(task.classes) if task.kind == "classification" else 0):
            return "plot_data: confusion does not fit the classes"
        return ""


@dataclass(frozen=True)
class LossTermState:
    """A loss term in training mode at the selected checkpoint, mean of some batches.

    Attributes:
        value: The unweighted term.
        weight: Its weight.
        gradient: Norm of its weighted gradient, relative to that of the task.
        chance: Its chance level; None for a term that does not have one.
    """

    value: Number
    weight: Number
    gradient: Number
    chance: Number = None


@dataclass(frozen=True)
class Diagnosis:
    """What shows whether parts of a model have an effect, at the selected checkpoint.

    Attributes:
        streams: Stream -> fraction of its energy that differs between test examples,
            see `analysis.varying_energy`; NaN, or None, if fewer than two examples
            have it.
        terms: Loss term -> its state; empty if the task is the only one.
        without: Modality -> test scores if all examples lack it; empty for a model of
            one modality.
    """

    streams: dict[str, Number] = field(default_factory=dict)
    terms: dict[str, LossTermState] = field(default_factory=dict)
    without: dict[str, dict[str, Number]] = field(default_factory=dict)


@dataclass(frozen=True)
class DeviceSpan:
    """Devices that trained a run from a step on.

    Attributes:
        step: Number of steps that were complete.
        kind: Kind of the devices.
        count: Their number.
    """

    step: int
    kind: str
    count: int


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """Result of training one model on one fold with one seed.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> run = mmf.read_result(Path("runs/cfn_sr")).runs[0]
        >>> {name: stage.test.scores["accuracy"] for name, stage in run.stages.items()}
        {'audio': 0.5, 'video': 0.6}

    Attributes:
        model: Short name of the model.
        baseline: The constant baseline of the label.
        parameters: Number of parameters.
        step, epoch: Selected checkpoint.
        steps: Number of training steps.
        ended: "early" if the score stopped improving, else "finished".
        valid: Scores at the selected checkpoint; None without a validation split.
        test: Scores at the selected checkpoint.
        last: Test scores after the last step.
        best_test: Best test score over all evaluations; None if there is none.
        plot_data: Predictions on the test split.
        modality_weights: Modality -> mean weight, 0..1; empty for a model without them.
        skipped_steps: Number of steps skipped because of non-finite values.
        times: Time by phase.
        macs_per_example: Multiply-accumulates of the forward pass of one example; None
            if they could not be counted, and in older files.
        peak_memory: The highest memory use; None in older files.
        diagnosis: Streams, loss terms and modalities; None if it failed or is off, and
            in older files.
        identity: Data, config, fold and seed.
        devices: The devices; several if a run was resumed on others.
    """

    model: str
    baseline: Baseline
    parameters: Parameters
    step: int
    epoch: float
    steps: int
    ended: Literal["early", "finished"]
    valid: Evaluation | None
    test: Evaluation
    last: Evaluation
    best_test: BestTest | None
    plot_data: PlotData
    modality_weights: dict[str, Number] = field(default_factory=dict)
    skipped_steps: int
    times: Times
    macs_per_example: int | None = None
    peak_memory: PeakMemory | None = None
    diagnosis: Diagnosis | None = None
    identity: RunIdentity
    devices: list[DeviceSpan] = field(default_factory=list)

    def __post_init__(self) -> None:
        check(0 <= self.step <= self.steps, "step: not between 0 and steps")
        names = self.test.scores.keys()
        for split in (self.valid, self.last):
            same = split is None or split.scores.keys() == names
            check(same, "valid, test and last: not the same scores")
        check(self.baseline.scores.keys() <= names, "baseline: an unknown score")
        for scores in self.diagnosis.without.values() if self.diagnosis else ():
            check(scores.keys() == names, "diagnosis: not the same scores")


def read_run(folder: Path) -> ModelResult | None:
    """Reads the result of a run; None if it is not finished.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> run = mmf.results.read_run(Path("runs/cfn_sr"))
        >>> run.steps, run.test.scores["accuracy"]
        (80, 0.75)

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = folder / RUN_FILE
    fix = f"delete {path} and rerun: its checkpoints are kept"
    return read_json(path, ModelResult, fix) if path.exists() else None
