"""Scores a trained run on labeled data that it was not trained on."""

import csv
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from mmfusion_jax.config import build
from mmfusion_jax.data.feature_files.emotion_labels import CLASS, FLAGS, one_class
from mmfusion_jax.data.feature_files.known_datasets import POLARITIES
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    UserError,
    join_names,
    shorten,
    shown,
    shown_name,
    shown_path,
    suggest,
    type_name,
)
from mmfusion_jax.inference.clip_inputs import clips_of_table, has_features
from mmfusion_jax.inference.predictor import Predictor, stack
from mmfusion_jax.inference.raw_example import RawExample, ReadInput, UnusableInput
from mmfusion_jax.inference.raw_inputs import SPEAKER
from mmfusion_jax.metrics.calibration import answers, measure_calibration
from mmfusion_jax.metrics.nonfinite import rows_are_finite
from mmfusion_jax.metrics.predictions_table import PREDICTIONS_CSV
from mmfusion_jax.metrics.statistics import paired_bootstrap
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.data_evaluation import (
    ClassScores,
    DataEvaluation,
    ScoreInterval,
    SpeakerScore,
)
from mmfusion_jax.results.json_file import as_read
from mmfusion_jax.results.model_result import TaskInfo, read_run
from mmfusion_jax.results.predictor_file import hashed_id
from mmfusion_jax.results.summary import FEW_EXAMPLES
from mmfusion_jax.runner.predictor import outline_of
from mmfusion_jax.tasks import Task
from mmfusion_jax.types import Batch, PyTree

LEVEL = 0.95
RESAMPLES = 1000
SPLIT = "test"
"""The split that is scored if the data have several."""

DEFAULT_ID = re.compile(r"((train|valid|test)/)?\d+")
"""Ids that are positions and do not identify an example."""

MAX_CLASSES = 20

Collected = dict[str, np.ndarray]


@dataclass(frozen=True)
class LabeledData:
    """Labeled examples.

    Attributes:
        name: Their file, for messages.
        examples: The examples, or why one cannot be used.
        remarks: What was chosen when they were read.
    """

    name: str
    examples: list[ReadInput]
    remarks: tuple[str, ...] = ()


def evaluate_data(
    predictor: Predictor,
    data: Any,
    *,
    labels: Any = None,
    masks: Mapping[str, Any] | None = None,
    split: str = "",
) -> DataEvaluation:
    """Scores labeled data, see `Predictor.evaluate`.

    Args:
        predictor: The trained run.
        data: The data.
        labels: Labels of arrays by modality.
        masks: Valid steps of arrays by modality.
        split: Split of data that have several.

    Raises:
        DataError: The data cannot be read, have other classes, or no example that can
            be used.
    """
    info, run = predictor.run.info, predictor.run
    if isinstance(data, Mapping):
        found = _with_labels(predictor, data, labels, masks)
    elif labels is not None or masks is not None:
        raise DataError(
            "D26", "labels and masks are those of arrays by modality.", "without them"
        )
    else:
        found = _read(predictor, data, split)
    unusable = [one for one in found.examples if isinstance(one, UnusableInput)]
    examples = [one for one in found.examples if isinstance(one, RawExample)]
    if not examples:
        raise _nothing_usable(found.name, unusable)
    task = build.build_task(run.spec, outline_of(info))
    examples, truth, left_out = _truth(info.task, found.name, examples)
    task.check(truth, found.name)
    collected = _collect(predictor, task, examples, truth)
    finite = rows_are_finite(collected)
    unusable += [
        UnusableInput(one.id, DataError("D72", "the prediction is not finite"))
        for one, ok in zip(examples, finite, strict=True)
        if not ok
    ]
    if not finite.any():
        raise _nothing_usable(found.name, unusable)
    examples = [one for one, ok in zip(examples, finite, strict=True) if ok]
    collected = {name: values[finite] for name, values in collected.items()}
    formula = lambda rows: task.metrics().scores(rows)
    metric = run.spec.training.selection_metric
    names = [*formula(collected)]
    metric = metric if metric in names else names[0]
    calibration = run.calibration
    evaluation = DataEvaluation(
        run=str(run.folder),
        data=found.name,
        label=info.task.label,
        metric=metric,
        count=len(examples),
        level=LEVEL,
        scores=_scores(formula, collected, _test_scores(predictor)),
        classes=_class_scores(info.task, collected),
        speakers=_speaker_scores(formula, metric, collected, examples),
        calibration=calibration
        and measure_calibration(info.task, collected, calibration),
        test_calibration=calibration and calibration.test,
        unusable={one.id: str(one.error.args[0]) for one in unusable},
        warnings=[
            *_overlap(predictor, examples),
            *_few(len(examples)),
            *_absent_classes(info.task, collected),
        ],
        remarks=[*run.remarks, *found.remarks, *left_out],
    )
    return as_read(evaluation)


def _read(predictor: Predictor, data: Any, split: str) -> LabeledData:
    """Reads all kinds of labeled data but arrays."""
    if isinstance(data, Batch):
        return LabeledData("the batch", [*predictor.read(data)])
    if not isinstance(data, str | PathLike):
        raise DataError(
            "D26",
            f"data is {type_name(data)}.",
            "a path, arrays by modality with labels, or a Batch",
        )
    path = local_path("data", data)
    if has_features(path):
        return _of_features(predictor, path, split)
    table = path / "labels.csv" if os.path.isdir(path) else path
    if not os.path.isfile(table):
        what = "does not have labels.csv" if table != path else "does not exist"
        raise DataError(
            "D40",
            f"{shown_path(path)} {what}.",
            "a folder with labels.csv, such a table, or a feature file",
        )
    if table.suffix.lower() != ".csv":
        raise DataError(
            "D40",
            f"{shown_path(path)} does not have labels.",
            "a folder with labels.csv, such a table, or a feature file; predict for "
            "files without labels",
        )
    return _of_table(predictor, table, split)


def _with_labels(
    predictor: Predictor,
    arrays: Mapping[str, Any],
    labels: Any,
    masks: Mapping[str, Any] | None,
) -> LabeledData:
    """Returns arrays by modality with their labels."""
    if labels is None:
        raise DataError("D26", "labels is missing.", "one label for each example")
    examples = [*predictor.read(arrays, masks)]
    values = np.asarray(labels)
    if len(np.atleast_1d(values)) != len(examples) or not values.ndim:
        raise DataError(
            "D26",
            f"labels has shape {shown(values.shape)} for {len(examples)} examples.",
            "one label for each example",
        )
    name = predictor.run.info.task.label
    return LabeledData(
        "the arrays",
        [
            replace(one, labels={name: value}) if isinstance(one, RawExample) else one
            for one, value in zip(examples, values, strict=True)
        ],
    )


def _of_features(predictor: Predictor, path: Path, split: str) -> LabeledData:
    """Reads a feature file, or an .npz file with arrays by modality."""
    found = [*predictor.reader.read_features(path)]
    splits = {one.split for one in found if one.split}
    chosen = _chosen_split(str(path), splits, split)
    if not chosen:
        return LabeledData(path.name, found)
    return LabeledData(
        path.name,
        [one for one in found if one.split == chosen],
        (f"split {shown(chosen)} of {shorten(path.name)}",),
    )


def _of_table(predictor: Predictor, table: Path, split: str) -> LabeledData:
    """Reads the clips of a labels.csv with their labels."""
    rows = clips_of_table(table, predictor.reader.text_column)
    options = predictor.run.spec.data.dataset.options
    speaker = options.get("speaker_column", SPEAKER) or ""
    columns = rows[0][1]
    labels = _label_columns(predictor.run.info.task, table, columns)
    chosen = _chosen_split(
        str(table), {row.get("split", "") for _, row in rows} - {""}, split
    )
    if chosen:
        rows = [one for one in rows if one[1].get("split") == chosen]
    examples = []
    read = predictor.reader.read_clips([clip for clip, _ in rows])
    for one, (_, row) in zip(read, rows, strict=True):
        if isinstance(one, RawExample):
            cells = {name: row.get(column, "") for name, column in labels.items()}
            one = replace(one, labels=cells, speaker=row.get(speaker, ""))
        examples.append(one)
    remark = (f"split {shown(chosen)} of {shorten(table.name)}",) if chosen else ()
    return LabeledData(str(table), examples, remark)


def _chosen_split(where: str, splits: set[str], asked: str) -> str:
    """Returns the split to score; "" for data without splits."""
    if asked and asked not in splits:
        raise ConfigError(
            "C10",
            f"split={shown(asked)}: {shorten(where)} has "
            f"{join_names(sorted(splits), 'no splits')}.",
            "one of these, or leave it out",
        )
    return asked or (SPLIT if SPLIT in splits else "")


def _label_columns(
    task: TaskInfo, table: Path, columns: Mapping[str, str]
) -> dict[str, str]:
    """Returns label, or flag, -> the column of a table that has it."""
    if task.kind == "multilabel":
        wanted = {name: (name,) for name in task.flags}
    else:
        other = "score" if task.kind == "regression" else "label"
        wanted = {task.label: (task.label, other)}
    found = {}
    for name, choices in wanted.items():
        column = next((one for one in choices if one in columns), None)
        if column is None:
            raise DataError(
                "D41",
                f"{table} has no column {shown(choices[-1])}; it has "
                f"{join_names(columns)}.",
                f"the label of the run is {shown_name(task.label)}",
            )
        found[name] = column
    return found


def _truth(
    task: TaskInfo, where: str, examples: Sequence[RawExample]
) -> tuple[list[RawExample], np.ndarray, list[str]]:
    """Returns the examples with a label, their labels (n ...), and a remark."""
    rows = [_label_of(task, one) for one in examples]
    if all(row is None for row in rows):
        has = sorted({name for one in examples for name in one.labels})
        raise DataError(
            "D40",
            f"{shorten(where)} does not have the label {shown(task.label)}; it has "
            f"{join_names(has, 'no labels')}.",
            "score data with this label",
        )
    kept = [i for i, row in enumerate(rows) if row is not None and row is not NONE]
    left_out = len(rows) - len(kept)
    remark = [f"{left_out:d} examples without one emotion are left out"] * bool(
        left_out
    )
    values = [rows[i] for i in kept]
    if not kept:
        raise DataError("D40", f"{shorten(where)} has no example with one emotion.")
    parse = {"classification": _classes, "regression": _numbers}.get(task.kind, _flags)
    return [examples[i] for i in kept], parse(task, where, values), remark


NONE = object()
"""The class of an example with several flags, or with none."""


def _label_of(task: TaskInfo, one: RawExample) -> Any:
    """Returns the label of an example as the data have it; None if they do not."""
    labels = one.labels
    if task.kind == "multilabel" and all(name in labels for name in task.flags):
        return [labels[name] for name in task.flags]
    if task.label in labels:
        return labels[task.label]
    # What the datasets of feature files derive from these labels.
    if task.label == CLASS and FLAGS in labels:
        rows, classes, _ = one_class(np.asarray(labels[FLAGS])[None])
        return int(classes[0]) if len(rows) else NONE
    if tuple(task.classes) == POLARITIES and "score" in labels:
        return int(np.sign(labels["score"])) + 1
    other = "score" if task.kind == "regression" else "label"
    return labels.get(other)


def _classes(task: TaskInfo, where: str, values: Sequence[Any]) -> np.ndarray:
    """Returns the indices of classes, which are given by name or by index."""
    names = {name: i for i, name in enumerate(task.classes)}
    found, unknown = [], {}
    for value in values:
        if np.ndim(value):
            unknown.setdefault(str(np.asarray(value).tolist()), 0)
            continue
        is_index = isinstance(value, int | np.integer) or (
            isinstance(value, np.ndarray) and value.dtype.kind in "iu"
        )
        index = int(value) if is_index else names.get(str(value).strip(), -1)
        found.append(index)
        if not 0 <= index < len(names):
            unknown[str(value)] = unknown.get(str(value), 0) + 1
    if unknown:
        first = next(iter(unknown))
        listed = ", ".join(
            f"{shown(name)} ({count:d})"
            for name, count in list(unknown.items())[:MAX_CLASSES]
        )
        raise DataError(
            "D07",
            f"{shorten(where)} has labels that are not classes of the run: {listed}; "
            f"{suggest(first, task.classes)}",
            "rename them to the classes of the run, or leave these rows out: "
            f"{join_names(task.classes[:MAX_CLASSES])}",
        )
    return np.array(found, np.int32)


def _numbers(task: TaskInfo, where: str, values: Sequence[Any]) -> np.ndarray:
    """Returns scores, (n) float32."""
    found = []
    for value in values:
        try:
            found.append(float(value))
        except (TypeError, ValueError):
            found.append(float("nan"))
        if not np.isfinite(found[-1]):
            raise DataError(
                "D41",
                f"{shorten(where)}: {shown_name(task.label)} is {shown(value)}, which "
                "is not a number.",
                "a number with a point, such as 1.5",
            )
    return np.array(found, np.float32)


def _flags(task: TaskInfo, where: str, values: Sequence[Any]) -> np.ndarray:
    """Returns flags, (n j) int32."""
    try:
        found = np.array([[float(x) for x in row] for row in values])
    except (TypeError, ValueError):
        found = np.zeros(())
    if found.shape != (len(values), len(task.flags)):
        raise DataError(
            "D41",
            f"{shorten(where)}: the labels are not {len(task.flags)} flags, 0 or 1.",
            f"one for each of {join_names(task.flags)}",
        )
    # Values other than 0 and 1 are errors of the task.
    whole = np.where(found == np.round(found), found, -1)
    return whole.astype(np.int32)


def _collect(
    predictor: Predictor, task: Task, examples: Sequence[RawExample], truth: np.ndarray
) -> Collected:
    """Returns what the metrics need of every example, (n ...)."""
    size, label = predictor.batch_size, task.label
    metrics, modalities = task.metrics(), predictor.modalities
    prior = np.asarray(predictor.run.info.prior, np.float32)

    def step(variables: PyTree, prior: Any, batch: Batch) -> PyTree:
        outputs = predictor.apply(variables, batch)
        y = outputs.prediction
        present = batch.has_any_modality(*modalities)
        present = present.reshape(present.shape + (1,) * (y.ndim - 1))
        y = jnp.where(present, y, prior.astype(y.dtype))
        return metrics.collect(outputs.replace(prediction=y), batch)

    step, parts = jax.jit(step), []
    variables = jax.device_put(predictor.variables)
    for start in range(0, len(examples), size):
        rows = slice(start, start + size)
        count = len(truth[rows])
        labels = np.concatenate([truth[rows], np.repeat(truth[:1], size - count, 0)])
        batch = stack(examples[rows], size).replace(labels={label: labels})
        found = jax.device_get(step(variables, prior, batch))
        parts.append({name: np.asarray(x)[:count] for name, x in found.items()})
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def _scores(
    formula: Callable[[Collected], dict[str, float]],
    collected: Collected,
    test: Mapping[str, Any],
) -> dict[str, ScoreInterval]:
    """Returns every metric with its bootstrap interval."""
    values = formula(collected)
    count = len(collected["truth"])
    intervals = np.full((len(values), 2), np.nan)
    if count > 1:
        of = lambda rows: {name: x[rows[0]] for name, x in collected.items()}
        statistic = lambda rows: np.array([*formula(of(rows)).values()])
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # A sample may lack a class, for which a metric is not defined.
            warnings.simplefilter("ignore")
            intervals = paired_bootstrap(statistic, [count], LEVEL, resamples=RESAMPLES)
    return {
        name: ScoreInterval(value, float(low), float(high), test.get(name))
        for (name, value), (low, high) in zip(values.items(), intervals, strict=True)
    }


def _class_scores(task: TaskInfo, collected: Collected) -> list[ClassScores]:
    """Returns recall and precision of every class or flag."""
    if task.kind == "regression":
        return []
    choice = answers(collected["prediction"], task).argmax(axis=-1)
    truth = collected["truth"].reshape(len(choice), -1)
    if task.kind == "classification":
        pairs = [(n, truth[:, 0] == i, choice[:, 0] == i) for i, n in
                 enumerate(task.classes)]  # fmt: skip
    else:
        pairs = [(n, truth[:, i] == 1, choice[:, i] == 1) for i, n in
                 enumerate(task.flags)]  # fmt: skip
    found = []
    for name, is_true, is_predicted in pairs:
        hits = int((is_true & is_predicted).sum())
        count, predicted = int(is_true.sum()), int(is_predicted.sum())
        low, high = _wilson(hits, count)
        recall = hits / count if count else None
        precision = hits / predicted if predicted else None
        few = count < FEW_EXAMPLES
        found.append(
            ClassScores(name, count, predicted, recall, low, high, precision, few)
        )
    return found


def _wilson(hits: int, count: int) -> tuple[float | None, float | None]:
    """Returns the Wilson interval of a fraction; None without examples.

    Reference:
        Wilson 1927.
    """
    if not count:
        return None, None
    interval = stats.binomtest(hits, count).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def _speaker_scores(
    formula: Callable[[Collected], dict[str, float]],
    metric: str,
    collected: Collected,
    examples: Sequence[RawExample],
) -> list[SpeakerScore]:
    """Returns a metric of every speaker; [] if they are unknown."""
    speakers = np.array([one.speaker for one in examples])
    found = []
    for name in sorted({*speakers.tolist()} - {""}):
        rows = speakers == name
        part = {key: values[rows] for key, values in collected.items()}
        only = lambda chosen: {metric: formula(chosen)[metric]}
        score = _scores(only, part, {})[metric]
        count = int(rows.sum())
        found.append(SpeakerScore(name, count, score, count < FEW_EXAMPLES))
    return found


def _test_scores(predictor: Predictor) -> Mapping[str, Any]:
    """Returns the scores of the run on its test split; {} if they are not known."""
    result = read_run(predictor.run.folder)
    return result.test.scores if result is not None else {}


def _overlap(predictor: Predictor, examples: Sequence[RawExample]) -> Iterator[str]:
    """Yields which examples may have been used to make the model."""
    ids = [one.id for one in examples if not DEFAULT_ID.fullmatch(one.id)]
    if not ids:
        yield (
            "the examples do not have ids, so it is unknown whether the run was "
            "trained on them"
        )
        return
    known = {*predictor.run.info.train_ids}
    if not known:
        yield (
            "the run did not store ids of its training examples, so it is unknown "
            "whether it was trained on these"
        )
    of_split = _ids_by_split(predictor.run.folder)
    used = {
        "training": [name for name in ids if hashed_id(name) in known],
        "validation": [name for name in ids if name in of_split.get("valid", ())],
    }
    for split, found in used.items():
        if found:
            yield (
                f"{len(found)} of {len(examples)} examples have the id of a "
                f"{shorten(split)} example of the run, such as {shown(found[0])}: if "
                "they are the same, the scores are too high"
            )


def _ids_by_split(folder: Path) -> dict[str, set[str]]:
    """Returns the ids in predictions.csv of a run; {} without it."""
    path = folder / PREDICTIONS_CSV
    found: dict[str, set[str]] = {}
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                found.setdefault(row.get("split") or "", set()).add(row.get("id") or "")
    return found


def _few(count: int) -> Iterator[str]:
    """Yields a note if there are few examples."""
    if count < FEW_EXAMPLES:
        yield (
            f"there are {count:d} examples: one of them is {100 / count:.1f} points of "
            "accuracy, and small differences are chance"
        )


def _absent_classes(task: TaskInfo, collected: Collected) -> Iterator[str]:
    """Yields which classes of the run do not occur."""
    if task.kind != "classification":
        return
    present = {*collected["truth"].tolist()}
    absent = [name for i, name in enumerate(task.classes) if i not in present]
    if absent:
        yield (
            f"no example has the class {join_names(map(shown, absent[:MAX_CLASSES]))}, "
            "which counts in means over the classes"
        )


def _nothing_usable(where: str, unusable: Sequence[UnusableInput]) -> UserError:
    """Returns the error for data without an example that can be used."""
    if not unusable:
        return DataError("D40", f"{shorten(where)} has no example.")
    lines = "\n".join(f"  {shorten(one.error.args[0])}" for one in unusable[:20])
    return DataError("D43", f"no example of {shorten(where)} can be used:\n{lines}")
