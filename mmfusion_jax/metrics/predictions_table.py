"""`predictions.csv`: the predictions of a run as a table."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.metrics.calibration import answers, probabilities
from mmfusion_jax.results.calibration_file import Calibration
from mmfusion_jax.results.json_file import write_text
from mmfusion_jax.results.model_result import TaskInfo

PREDICTIONS_CSV = "predictions.csv"


def write_predictions_csv(
    folder: Path,
    task: TaskInfo,
    splits: Mapping[str, tuple[Sequence[str], Mapping[str, np.ndarray]]],
    calibration: Calibration | None,
) -> None:
    """Writes the predictions of a run as a table, atomically.

    Columns: split, id, truth and prediction, and for classes and flags the probability
    of each. Every flag has its own columns for truth and prediction. A cell without a
    finite value is empty.

    Args:
        folder: Folder of the run.
        task: The label.
        splits: Split -> ids and "truth" and "prediction" of the examples.
        calibration: Calibrates the probabilities; None writes those of the model.
    """
    temperature = (calibration and calibration.temperature) or 1.0
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(["split", "id", *_columns(task)])
    for split, (ids, part) in splits.items():
        rows = _rows(task, part["truth"], part["prediction"], temperature)
        for name, cells in zip(ids, rows, strict=True):
            table.writerow([split, name, *cells])
    write_text(folder / PREDICTIONS_CSV, stream.getvalue())


def _columns(task: TaskInfo) -> list[str]:
    """Returns the names of the columns after split and id."""
    if task.kind == "regression":
        return ["truth", "prediction"]
    if task.kind == "classification":
        return ["truth", "prediction", *(f"p_{name}" for name in task.classes)]
    columns = ("truth", "prediction", "p")
    return [f"{column}_{name}" for name in task.flags for column in columns]


def _rows(
    task: TaskInfo, truth: np.ndarray, prediction: np.ndarray, temperature: float
) -> Iterator[list[Any]]:
    """Yields the cells after split and id."""
    if task.kind == "regression":
        for label, score in zip(truth, prediction.reshape(-1), strict=True):
            yield [f"{label:.6g}", _cell(score, "{:.6g}")]
        return
    finite = np.atleast_1d(np.isfinite(prediction).all(axis=-1))
    for label, row, ok in zip(truth, answers(prediction, task), finite, strict=True):
        p = probabilities(row[None], temperature)[0]
        choice = p.argmax(axis=-1)
        if task.kind == "classification":
            chosen = task.classes[choice[0]] if ok else ""
            yield [task.classes[int(label)], chosen, *(_cell(x) for x in p[0])]
        else:
            yield [
                cell
                for flag, one, x in zip(label, choice, p[:, 1], strict=True)
                for cell in (int(flag), int(one) if ok else "", _cell(x))
            ]


def _cell(value: float, form: str = "{:.6f}") -> str:
    """Returns a number as text; "" if it is not finite."""
    return form.format(value) if np.isfinite(value) else ""
