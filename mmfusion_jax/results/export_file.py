"""`export.json`: what an exported folder has besides the files of a run."""

from dataclasses import dataclass, field
from pathlib import Path

from mmfusion_jax.results.json_file import Number

EXPORT_FILE = "export.json"
WEIGHTS_FILE = "model.safetensors"


def is_exported(folder: Path) -> bool:
    """Returns whether a folder has a file that only an exported model has."""
    return (folder / EXPORT_FILE).is_file() or (folder / WEIGHTS_FILE).is_file()


@dataclass(frozen=True)
class ProgramFile:
    """A compiled-ahead program of a model.

    Attributes:
        file: Its file.
        batch_size: Number of examples that it maps; None for any number.
        platforms: Platforms of JAX that run it; [] for ONNX, which does not name any.
        difference: Largest difference of an output from that of the library, measured
            on the machine that exported it.
    """

    file: str
    batch_size: int | None
    platforms: list[str]
    difference: Number


@dataclass(frozen=True)
class ExportedScores:
    """Scores of a run on its test split, by its selection metric.

    Attributes:
        metric: Name of the metric.
        score: With all modalities.
        without: Modality -> score if all examples lack it; {} if not measured.
    """

    metric: str
    score: Number
    without: dict[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """What is known of an exported model.

    Attributes:
        model: Short name or import path of the model.
        modalities: The modalities that it reads.
        step: Step of its checkpoint.
        scores: Its scores on the test split; None if the training has not ended.
        programs: Its programs; [] without any.
        remarks: Sentences about the run, such as which of several seeds it is.
        versions: Package -> version.
    """

    model: str
    modalities: list[str]
    step: int
    scores: ExportedScores | None
    programs: list[ProgramFile]
    remarks: list[str]
    versions: dict[str, str]
