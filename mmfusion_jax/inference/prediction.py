"""The prediction for one example, as a program or a JSON file reads it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mmfusion_jax.metrics.calibration import (
    answers,
    conformal_threshold,
    in_set,
    probabilities,
)
from mmfusion_jax.results.calibration_file import Calibration
from mmfusion_jax.results.json_file import Number
from mmfusion_jax.results.model_result import TaskInfo


@dataclass(frozen=True)
class WithoutModality:
    """The prediction for an example when one of its modalities is left out.

    Example:
        >>> import mmfusion_jax as mmf
        >>> left = mmf.inference.WithoutModality("sad", [], None, change=-0.2)
        >>> left.label, left.change
        ('sad', -0.2)

    Attributes:
        label: The class; None for other tasks.
        flags: The flags that are predicted; [] for other tasks.
        score: The score; None for other tasks.
        change: Of the probability of the class that is predicted with all modalities,
            of the score, or the largest one of the probability of a flag.
    """

    label: str | None
    flags: list[str]
    score: Number
    change: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for one example.

    Example:
        >>> import numpy as np
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> task = mmf.tasks.Classification("emotion", ("happy", "sad"))
        >>> found = mmf.inference.Prediction(
        ...     id="a.mp4", label="happy", probabilities={"happy": 0.7, "sad": 0.3}
        ... )
        >>> found.label, found.probabilities["sad"]
        ('happy', 0.3)

    Attributes:
        id: File name with its segment, id of the example in a file, or its index.
        label: The most probable class; None for other tasks.
        flags: Flags whose probability is at least .5; [] for other tasks.
        score: The predicted number; None for other tasks.
        probabilities: Class or flag -> probability; {} for a score.
        confidence: Probability of `label`; for flags the smallest probability of an
            answer. None for a score, and for an example without any modality.
        calibrated: The probabilities were calibrated on the validation split.
        coverage: Nominal coverage of the set or interval; None without calibration.
        prediction_set: Classes that contain the true one with this coverage; for flags
            those that may be 1. None without calibration.
        interval: Lowest and highest score with this coverage; None for other tasks.
        weights: Modality -> weight, sum 1; {} if the model has no weights.
        without: Modality that the example has -> prediction without it; {} if it is
            the only one, or was not asked for.
        missing: Modalities that the model reads and the example does not have.
        remarks: What was found when the input was read.
        error: Why there is not a prediction; "" if there is one.
    """

    id: str
    label: str | None = None
    flags: list[str] = field(default_factory=list)
    score: Number = None
    probabilities: dict[str, float] = field(default_factory=dict)
    confidence: Number = None
    calibrated: bool = False
    coverage: float | None = None
    prediction_set: list[str] | None = None
    interval: tuple[float, float] | None = None
    weights: dict[str, float] = field(default_factory=dict)
    without: dict[str, WithoutModality] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    error: str = ""


class PredictionBuilder:
    """Makes predictions of the outputs of a model.

    Args:
        task: The label.
        calibration: That of the run; None leaves probabilities as they are.
        coverage: Nominal coverage of sets and intervals, 0..1.
    """

    def __init__(
        self, task: TaskInfo, calibration: Calibration | None, coverage: float
    ):
        self.task, self.calibration = task, calibration
        self.coverage = coverage if calibration else None
        rows = calibration.nonconformity if calibration else []
        self.thresholds = [conformal_threshold(row, coverage) for row in rows]

    def build(
        self,
        name: str,
        output: np.ndarray,
        *,
        weights: Mapping[str, float],
        without: Mapping[str, np.ndarray],
        missing: Sequence[str],
        remarks: Sequence[str],
        known: bool,
    ) -> Prediction:
        """Returns the prediction for one example.

        Args:
            name: Its id.
            output: Output of the model, (k) or ().
            weights: Modality -> weight.
            without: Modality -> output without it.
            missing: Modalities that it does not have.
            remarks: Remarks about its input.
            known: It has a modality; else the output is that of the labels alone.
        """
        common = {
            "id": name,
            "calibrated": self.calibration is not None and self.task.kind != REGRESSION,
            "coverage": self.coverage,
            "weights": dict(weights),
            "missing": list(missing),
            "remarks": list(remarks),
        }
        if not np.isfinite(output).all():
            return Prediction(
                id=name, remarks=list(remarks), error="the prediction is not finite"
            )
        make = {
            REGRESSION: self._score,
            "classification": self._label,
            "multilabel": self._flags,
        }[self.task.kind]
        return make(output, without, known, common)

    def _probabilities(self, output: np.ndarray) -> np.ndarray:
        """Returns calibrated probabilities, (m k)."""
        temperature = (self.calibration and self.calibration.temperature) or 1.0
        return probabilities(answers(output[None], self.task), temperature)[0]

    def _label(self, output, without, known, common) -> Prediction:
        p = self._probabilities(output)
        chosen = int(p[0].argmax())
        names = self.task.classes
        left = {}
        for modality, other in without.items():
            q = self._probabilities(other)[0]
            change = float(q[chosen] - p[0, chosen])
            left[modality] = WithoutModality(names[int(q.argmax())], [], None, change)
        members = None
        if self.thresholds:
            rows = in_set(p[None], self.thresholds)[0, 0]
            order = np.argsort(-p[0], kind="stable")
            # Nothing is known of an example without any modality.
            members = [names[i] for i in order if rows[i] or not known]
        return Prediction(
            **common,
            label=names[chosen],
            probabilities=_rounded(zip(names, p[0], strict=True)),
            confidence=round(float(p[0, chosen]), 6) if known else None,
            prediction_set=members,
            without=left,
        )

    def _flags(self, output, without, known, common) -> Prediction:
        p = self._probabilities(output)
        names = self.task.flags
        of = lambda q: [n for n, row in zip(names, q, strict=True) if row[1] >= 0.5]
        left = {}
        for modality, other in without.items():
            q = self._probabilities(other)
            changes = q[:, 1] - p[:, 1]
            change = float(changes[np.abs(changes).argmax()])
            left[modality] = WithoutModality(None, of(q), None, change)
        members = None
        if self.thresholds:
            rows = in_set(p[None], self.thresholds)[0, :, 1]
            members = [
                n for n, one in zip(names, rows, strict=True) if one or not known
            ]
        return Prediction(
            **common,
            flags=of(p),
            probabilities=_rounded(zip(names, p[:, 1], strict=True)),
            confidence=round(float(p.max(axis=-1).min()), 6) if known else None,
            prediction_set=members,
            without=left,
        )

    def _score(self, output, without, known, common) -> Prediction:
        score = float(np.reshape(output, ()))
        left = {
            modality: WithoutModality(
                None, [], float(np.reshape(x, ())), float(np.reshape(x, ())) - score
            )
            for modality, x in without.items()
        }
        interval = None
        if self.thresholds and self.task.range is not None:
            low, high = self.task.range
            width = self.thresholds[0] if known else np.inf
            # The label cannot be outside of its range.
            interval = max(low, score - width), min(high, score + width)
        return Prediction(**common, score=score, interval=interval, without=left)


REGRESSION = "regression"


def _rounded(pairs) -> dict[str, float]:
    """Returns name -> probability with six decimals, as tables have them."""
    return {name: round(float(p), 6) for name, p in pairs}
