"""The scores of a trained run on other data than its own, as JSON."""

from dataclasses import dataclass, field

from mmfusion_jax.errors import shown_name, shown_path
from mmfusion_jax.results.calibration_file import CalibrationTest
from mmfusion_jax.results.json_file import Number


@dataclass(frozen=True)
class ScoreInterval:
    """A metric with its bootstrap interval over the examples.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.results.ScoreInterval(0.75, low=0.7, high=0.8, test=0.81).low
        0.7

    Attributes:
        value: The metric; None if it is not defined.
        low, high: Ends of the interval; None for one example.
        test: The metric on the test split of the run; None if it is unknown.
    """

    value: Number
    low: Number = None
    high: Number = None
    test: Number = None


@dataclass(frozen=True)
class ClassScores:
    """Scores of a class, or of a flag that is set.

    Attributes:
        name: Its name.
        count: Number of examples of it.
        predicted: Number of examples for which it is predicted.
        recall: Fraction of `count` that is predicted; None without any.
        low, high: Wilson interval of the recall.
        precision: Fraction of `predicted` that is right; None without any.
        few: There are fewer than 30 examples.
    """

    name: str
    count: int
    predicted: int
    recall: Number
    low: Number
    high: Number
    precision: Number
    few: bool


@dataclass(frozen=True)
class SpeakerScore:
    """Score of the examples of a speaker.

    Attributes:
        name: The speaker.
        count: Number of examples.
        score: The first metric, with its interval.
        few: There are fewer than 30 examples.
    """

    name: str
    count: int
    score: ScoreInterval
    few: bool


@dataclass(frozen=True, kw_only=True, repr=False)
class DataEvaluation:
    """Scores of a trained run on labeled data; see `Predictor.evaluate`.

    Example:
        >>> import mmfusion_jax as mmf
        >>> score = mmf.results.ScoreInterval(0.75, low=0.7, high=0.8)
        >>> mmf.results.DataEvaluation(
        ...     run="runs/mine",
        ...     data="new.npz",
        ...     label="emotion",
        ...     metric="accuracy",
        ...     count=40,
        ...     level=0.95,
        ...     scores={"accuracy": score},
        ... )
        emotion of 'new.npz': 40 examples
          accuracy 0.750 (0.700 to 0.800)

    Attributes:
        run: Folder of the run.
        data: The data.
        label: Name of the label.
        metric: The metric of the speakers, a key of `scores`.
        count: Number of examples that are scored.
        level: Nominal level of the intervals.
        scores: Metric -> its value and interval.
        classes: Scores of every class or flag; [] for a regression.
        speakers: Scores of every speaker; [] if they are unknown.
        calibration: Calibration on these data; None if the run has none.
        test_calibration: Calibration on the test split of the run.
        unusable: Example that is not scored -> the reason.
        warnings: What makes the scores doubtful.
        remarks: What is known of the run and the data.
    """

    run: str
    data: str
    label: str
    metric: str
    count: int
    level: float
    scores: dict[str, ScoreInterval]
    classes: list[ClassScores] = field(default_factory=list)
    speakers: list[SpeakerScore] = field(default_factory=list)
    calibration: CalibrationTest | None = None
    test_calibration: CalibrationTest | None = None
    unusable: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        where = shown_path(self.data)
        parts = [f"{shown_name(self.label)} of {where}: {self.count} examples"]
        for name, one in self.scores.items():
            suffix = "" if one.low is None else f" ({one.low:.3f} to {one.high:.3f})"
            what = "not defined" if one.value is None else f"{one.value:.3f}"
            parts.append(f"  {shown_name(name)} {what}{suffix}")
        return "\n".join(parts)
