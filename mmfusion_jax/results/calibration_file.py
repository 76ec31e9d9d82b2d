"""`calibration.json`: how far the probabilities of a run can be trusted."""

from dataclasses import dataclass, field
from pathlib import Path

from mmfusion_jax.results.json_file import Number, check, read_json
from mmfusion_jax.results.summary import FEW_EXAMPLES

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class ReliabilityBin:
    """Examples with a similar confidence.

    Attributes:
        low: Smallest confidence of the bin.
        high: Largest confidence of the bin.
        count: Number of predictions.
        confidence: Their mean confidence; None without any.
        accuracy: Fraction of them that is correct; None without any.
    """

    low: float
    high: float
    count: int
    confidence: Number
    accuracy: Number


@dataclass(frozen=True)
class Coverage:
    """Conformal sets or intervals for one nominal coverage.

    Attributes:
        nominal: Fraction of the examples that should contain the label, 0..1.
        measured: Fraction that does on the test split.
        size: Mean number of classes of a set, or mean width of an interval.
    """

    nominal: float
    measured: float
    size: Number


@dataclass(frozen=True)
class CalibrationTest:
    """Calibration on the test split, which fits nothing.

    Attributes:
        count: Number of examples.
        ece: Expected calibration error of the calibrated probabilities; None for a
            regression.
        ece_uncalibrated: That of the probabilities of the model.
        bins: Reliability of the calibrated probabilities; [] for a regression.
        coverage: Measured coverage of sets or intervals.
        bins_uncalibrated: Reliability of the probabilities of the model; [] for a
            regression, and in older files.
    """

    count: int
    ece: Number
    ece_uncalibrated: Number
    bins: list[ReliabilityBin]
    coverage: list[Coverage]
    bins_uncalibrated: list[ReliabilityBin] = field(default_factory=list)


@dataclass(frozen=True)
class Calibration:
    """Calibration of a run, fitted to its validation split.

    Example:
        >>> import mmfusion_jax as mmf
        >>> found = mmf.results.Calibration(3, 1.5, [[0.1, 0.2, 0.7]], None)
        >>> found.temperature
        1.5

    Attributes:
        count: Number of validation examples.
        temperature: Divides the logits; None for a regression.
        nonconformity: Scores of the validation examples, ascending, one list for a
            label and one for each flag: 1 - probability of the label, or the absolute
            error of a regression.
        test: Calibration on the test split; None without it.
    """

    count: int
    temperature: float | None
    nonconformity: list[list[float]]
    test: CalibrationTest | None

    def __post_init__(self) -> None:
        temperature = self.temperature
        check(temperature is None or temperature > 0, "temperature: not above 0")
        sizes = {len(row) for row in self.nonconformity}
        check(sizes == {self.count} and self.count > 0, "nonconformity: wrong lengths")


def calibration_notes(calibration: Calibration) -> list[str]:
    """Returns how far the calibration of a run can be relied on, as sentences."""
    count = calibration.count
    notes = [
        f"calibrated on the {count:d} validation examples; the coverage holds for "
        "examples that are drawn like these"
    ]
    if count < FEW_EXAMPLES:
        notes.append(
            f"warning: {count:d} validation examples are too few to rely on the "
            "probabilities"
        )
    return notes


def read_calibration(folder: Path) -> Calibration | None:
    """Reads the calibration of a run; None if it has none.

    A run without a validation split, or with predictions that are not finite, has none.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> mmf.results.read_calibration(Path("runs/cfn_sr")).count
        3

    Args:
        folder: Folder of the run.

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = folder / CALIBRATION_FILE
    fix = f"delete {path}, run.json beside it and result.json, and rerun the training"
    return read_json(path, Calibration, fix) if path.exists() else None
