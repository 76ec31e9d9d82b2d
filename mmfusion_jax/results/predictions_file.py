"""`predictions.json`: the predictions of a run on every example of its test split."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mmfusion_jax.errors import shown, shown_name
from mmfusion_jax.results.json_file import Number, check, read_json, write_json

PREDICTIONS_FILE = "predictions.json"

Row: TypeAlias = Number | list[Number]
"""A score, or the logits or flags of an example."""


@dataclass(frozen=True)
class Predictions:
    """Labels and predictions of the selected checkpoint on the test split.

    Example:
        >>> import mmfusion_jax as mmf
        >>> found = mmf.results.Predictions(
        ...     ids=["test/0", "test/1"], y_true=[0, 1], y_pred=[[2.0, 0.5], [1.0, 3.0]]
        ... )
        >>> (found.prediction.argmax(axis=1) == found.truth).tolist()
        [True, True]

    Attributes:
        ids: Id of every example, see `Dataset.example_ids`, (n).
        y_true: Labels: classes (n), scores (n), or flags (n j).
        y_pred: Predictions: logits (n k), scores (n), or two logits of each flag (n
            2j); None, or NaN, where a value is not finite.
    """

    ids: list[str]
    y_true: list[Row]
    y_pred: list[Row]

    def __post_init__(self) -> None:
        sizes = {len(self.ids), len(self.y_true), len(self.y_pred)}
        check(len(sizes) == 1 and sizes != {0}, "ids, y_true, y_pred: wrong lengths")
        twice = next((x for x, n in Counter(self.ids).items() if n > 1), None)
        check(twice is None, f"ids: {shown(twice)} occurs twice")
        for name, rows in (("y_true", self.y_true), ("y_pred", self.y_pred)):
            shapes = {len(row) if isinstance(row, list) else None for row in rows}
            check(len(shapes) == 1, f"{shown_name(name)}: rows of different lengths")
        check(bool(np.isfinite(self.truth).all()), "y_true: not finite")

    @property
    def truth(self) -> np.ndarray:
        """The labels, float64."""
        return np.array(self.y_true, np.float64)

    @property
    def prediction(self) -> np.ndarray:
        """The predictions, float32, as the model returned them."""
        return np.array(self.y_pred, np.float64).astype(np.float32)


def write_predictions(
    folder: Path, ids: Sequence[str], truth: np.ndarray, prediction: np.ndarray
) -> None:
    """Writes the predictions of a run, atomically.

    Args:
        folder: Folder of the run.
        ids: Id of every example.
        truth: (n), or (n j) for flags.
        prediction: (n), (n k) or (n 2j), float.
    """
    # The shortest digits from which float32 is read back exactly: half of the file.
    shortest = prediction.astype(np.float32).astype(str).astype(np.float64)
    found = Predictions([*ids], truth.tolist(), shortest.tolist())
    write_json(folder / PREDICTIONS_FILE, found, indent=None)


def read_predictions(folder: Path) -> Predictions | None:
    """Reads the predictions of a run; None if it has none.

    Example:
        >>> from pathlib import Path
        >>> import mmfusion_jax as mmf
        >>> found = mmf.results.read_predictions(Path("runs/cfn_sr"))
        >>> found.ids, found.truth.tolist()
        (['test/0', 'test/1'], [0.0, 1.0])

    Raises:
        CheckpointError: The file is corrupted or has another format version.
    """
    path = folder / PREDICTIONS_FILE
    fix = (
        f"delete {path}, run.json beside it and result.json of the workdir, and rerun "
        "the training: its checkpoints are kept"
    )
    return read_json(path, Predictions, fix) if path.exists() else None
