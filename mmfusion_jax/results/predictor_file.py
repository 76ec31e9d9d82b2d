"""`predictor.json`: what turns raw inputs into those of a trained model, and back.

With the config in `config.json` and a checkpoint, a model can be built and used without
its training data.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmfusion_jax.results.json_file import check, names_match, read_json
from mmfusion_jax.results.model_result import TaskInfo
from mmfusion_jax.results.run_identity import RunIdentity

PREDICTOR_FILE = "predictor.json"


@dataclass(frozen=True)
class ArraySpec:
    """Shape and dtype of an array of one example.

    Attributes:
        shape: Of an input, (t ...), t being the number of steps after padding.
        dtype: Name of a NumPy dtype.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Scaling:
    """Scaling of the values of a modality, fitted to the training split.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.results.Scaling("min_max", a=[0.0], b=[2.0]).kind
        'min_max'

        standardize          (x - a) / b                         mean, std
        standardize_pixels   (x / 255 - a) / b                   mean, std of a channel
        min_max              (x - a) / (b - a)                   minimum, maximum

    Features after the last parameter are not scaled.

    Attributes:
        kind: The formula.
        a: First parameter, one value per feature or channel, (f).
        b: Second parameter, (f).
    """

    kind: Literal["standardize", "standardize_pixels", "min_max"]
    a: list[float]
    b: list[float]

    def __post_init__(self) -> None:
        check(len(self.a) == len(self.b), "scaling: not of the same length")


@dataclass(frozen=True)
class Clipping:
    """Limits to which the values of a modality are clipped, before they are scaled.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.results.Clipping(low=[-1.0], high=[1.0]).high
        [1.0]

    Attributes:
        low: Minimum of each feature, (f).
        high: Maximum of each feature, (f).
    """

    low: list[float]
    high: list[float]

    def __post_init__(self) -> None:
        check(len(self.low) == len(self.high), "clipping: not of the same length")


@dataclass(frozen=True)
class ClipDecoding:
    """How frames and audio are read from a clip.

    Attributes:
        spec: Fields of `ClipSpec`.
        crop: How a frame is cropped and resized, JSON values by name: "mode" is
            "center_crop", "letterbox" or "stretch", of the part "box" of a frame if it
            is given; or "landmarks", where "without_landmarks" is the mode of a clip
            that has none, and "note" the difference that this makes.
    """

    spec: dict[str, Any]
    crop: dict[str, Any]


@dataclass(frozen=True)
class Tokenizer:
    """How a text becomes token ids.

    Attributes:
        vocabulary: Tokens, whose index is their id.
        length: Number of ids; longer texts are truncated, shorter ones padded with 0.
        lowercase: Lower-case the text and strip accents.
        options: Options of `TranscriptCleaner`, by name.
    """

    vocabulary: list[str]
    length: int
    lowercase: bool
    options: dict[str, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Preprocessing:
    """How the examples of a dataset are made from its files, as far as it is known.

    Example:
        >>> import mmfusion_jax as mmf
        >>> scaling = mmf.results.Scaling("standardize", a=[0.5], b=[2.0])
        >>> mmf.results.Preprocessing({"audio": scaling}).scaling["audio"].a
        [0.5]

    Attributes:
        scaling: Modality -> scaling; a modality that is not scaled is left out.
        decoding: How clips are read; None for data that are not clips.
        tokenizer: How transcripts become ids; None if the data has ids, or no text.
        clipping: Modality -> limits; a modality that is not clipped is left out.
    """

    scaling: dict[str, Scaling] = field(default_factory=dict)
    decoding: ClipDecoding | None = None
    tokenizer: Tokenizer | None = None
    clipping: dict[str, Clipping] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class PredictorInfo:
    """What is needed to use a trained model without its training data.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> info = mmf.results.read_predictor(Path("runs/cfn_sr"))
        >>> info.task.classes, info.inputs["audio"].shape
        (['no', 'yes'], (63, 13))

    Attributes:
        title: Title of the dataset.
        task: The label that the model predicts.
        inputs: Modality -> padded shape and dtype.
        labels: Label of the dataset -> shape and dtype.
        targets: Numeric label -> minimum, maximum, neutral value and metric family.
        prior: Prediction for an example without any modality, (k) or ().
        preprocessing: How inputs are made from files.
        identity: The run.
        train_ids: Hashes of the ids of the training examples, see `hashed_id`; [] if
            these do not have names.
    """

    title: str
    task: TaskInfo
    inputs: dict[str, ArraySpec]
    labels: dict[str, ArraySpec]
    targets: dict[str, tuple[float, float, float, str]]
    prior: list[float] | float
    preprocessing: Preprocessing
    identity: RunIdentity
    train_ids: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check(self.task.label in self.labels, "task: label is not in labels")
        names_match(self.inputs, self.identity.data.inputs, "inputs")


def hashed_id(name: str) -> str:
    """Returns a hash of the id of an example, which may be the name of a person.

    Example:
        >>> from mmfusion_jax.results.predictor_file import hashed_id
        >>> hashed_id("clip 7")
        'd15b8410250af904'

    Args:
        name: The id.
    """
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def read_predictor(folder: Path) -> PredictorInfo | None:
    """Reads what is needed to use the model of a run; None if it is not stored.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> mmf.results.read_predictor(Path("runs/cfn_sr")).identity.seed
        7

    Args:
        folder: Folder of the run.

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = folder / PREDICTOR_FILE
    fix = f"delete {path} and rerun the training: it writes the file again"
    return read_json(path, PredictorInfo, fix) if path.exists() else None
