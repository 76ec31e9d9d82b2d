"""Looks at every number of a file of features and writes down what it saw."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.known_datasets import FeatureDatasetSpec
from mmfusion_jax.data.feature_files.padded_sequences import Sequences, video
from mmfusion_jax.data.preprocessing import RunningMoments
from mmfusion_jax.data.storage.progress import track

JSON = Any
LARGE = 1e6
"""No feature of the field has values beyond this."""


@dataclasses.dataclass
class ModalityStatistics:
    """What is known of one modality of one split.

    Attributes:
        steps: real steps of each example so far.
        silent: examples with steps that are all zero.
        nan, infinite: values that are no numbers.
        low, high: the least and greatest number.
        moments: of all steps, in which what is no number counts as 0.
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    silent: int = 0
    nan: int = 0
    infinite: int = 0
    low: float = np.inf
    high: float = -np.inf
    moments: RunningMoments | None = None

    def add(self, rows: np.ndarray) -> None:
        """Counts an example, (t f) or (t)."""
        self.steps.append(len(rows))
        if not len(rows):
            return
        finite = np.isfinite(rows)
        nan = int(np.isnan(rows).sum())
        self.nan += nan
        self.infinite += int((~finite).sum()) - nan
        self.silent += not rows.any()
        if len(numbers := rows[finite]):
            self.low = min(self.low, float(numbers.min()))
            self.high = max(self.high, float(numbers.max()))
        if rows.ndim > 1:
            new = RunningMoments.of(replace_nonfinite(rows))
            self.moments = new if self.moments is None else self.moments + new

    def report(self) -> dict[str, JSON]:
        """The same as JSON values."""
        steps = np.array(self.steps)
        told = {
            "steps": [int(steps.min()), float(np.median(steps)), int(steps.max())],
            "absent": int((steps == 0).sum()),
            "silent": self.silent,
            "nan": self.nan,
            "infinite": self.infinite,
            "low": self.low if np.isfinite(self.low) else None,
            "high": self.high if np.isfinite(self.high) else None,
            "features": 0,
        }
        if self.moments is not None:
            told |= {
                "features": len(self.moments.total),
                "constant": int(self.moments.constant().sum()),
                "count": self.moments.count,
                "total": self.moments.total.tolist(),
                "square": self.moments.square.tolist(),
            }
        return told


def compute_statistics(splits: Mapping[str, Sequences]) -> dict[str, JSON]:
    """Split -> what is in it, as JSON values."""
    return {split: _one(split, part) for split, part in splits.items()}


def replace_nonfinite(rows: np.ndarray) -> np.ndarray:
    """`rows` with 0 for what is no number."""
    return np.where(np.isfinite(rows), rows, rows.dtype.type(0))


def count_nonfinite(report: Mapping[str, JSON]) -> dict[str, dict[str, int]]:
    """Split -> modality -> values that are no numbers, where there are any."""
    found = {
        split: {
            name: told["nan"] + told["infinite"]
            for name, told in part["inputs"].items()
            if told["nan"] + told["infinite"]
        }
        for split, part in report.items()
    }
    return {split: counts for split, counts in found.items() if counts}


def shared_ids(report: Mapping[str, JSON], name: Any = str) -> dict[str, list[str]]:
    """Name -> the splits it is in, for names in more than one.

    Args:
        report: of a survey.
        name: what of an id to compare; `video` compares videos.
    """
    seen: dict[str, list[str]] = {}
    for split, part in report.items():
        for one in sorted({name(i) for i in part["ids"]}):
            seen.setdefault(one, []).append(split)
    return {one: where for one, where in seen.items() if len(where) > 1}


def problems(report: Mapping[str, JSON], kind: FeatureDatasetSpec | None) -> list[str]:
    """What is wrong with a file, in sentences."""
    found = []
    for split, counts in count_nonfinite(report).items():
        said = ", ".join(f"{count} of {name}" for name, count in counts.items())
        found.append(f"{split}: values that are NaN or infinite: {said}")
    if twice := shared_ids(report):
        names = ", ".join(list(twice)[:3])
        found.append(f"{len(twice)} clips are in two splits: {names}")
    elif (kind is None or kind.by_video) and (twice := shared_ids(report, video)):
        names = ", ".join(list(twice)[:3])
        found.append(f"{len(twice)} videos are in two splits: {names}")
    for split, part in report.items():
        again = [i for i, count in Counter(part["ids"]).items() if count > 1]
        if again:
            found.append(f"{split}: {len(again)} clips are in it twice: {again[0]}")
        for name, told in part["inputs"].items():
            if (
                told["features"]
                and max(_size(told["low"]), _size(told["high"])) > LARGE
            ):
                found.append(
                    f"{split}: {name} has values from {told['low']:g} to "
                    f"{told['high']:g}"
                )
    return found + _labels(report)


def remarks(report: Mapping[str, JSON], kind: FeatureDatasetSpec | None) -> list[str]:
    """What one should know of a file that is not wrong, in sentences."""
    found = []
    counts = tuple(part["count"] for part in report.values())
    if kind is not None and counts not in kind.counts:
        published = " or ".join("/".join(map(str, sizes)) for sizes in kind.counts)
        found.append(
            f"the splits hold {'/'.join(map(str, counts))} examples; published: "
            f"{published}"
        )
    if kind is not None and not kind.by_video and (twice := shared_ids(report, video)):
        found.append(
            f"{len(twice)} videos, and so their speakers, are in more than one split, "
            "as published"
        )
    if not any(part["ids"] for part in report.values()):
        found.append("without ids nobody can tell whether a clip is in two splits")
    for split, part in report.items():
        found += [f"{split}: {note}" for note in part["notes"]]
        for name, told in part["inputs"].items():
            found += [f"{split}: {one}" for one in _features(name, told)]
    return found


def _one(split: str, part: Sequences) -> dict[str, JSON]:
    tallies = {name: ModalityStatistics() for name in part.inputs}
    for example in track(part.examples(), len(part), f"looking at {split}"):
        for name, rows in example.items():
            tallies[name].add(rows)
    return {
        "count": len(part),
        "inputs": {name: tally.report() for name, tally in tallies.items()},
        "labels": {name: values.tolist() for name, values in part.labels.items()},
        "ids": list(part.ids),
        "notes": list(part.notes),
    }


def _features(name: str, told: Mapping[str, JSON]) -> list[str]:
    """What one should know of a modality of a split."""
    found = []
    for word, what in (("absent", "no"), ("silent", "nothing but zeros as")):
        if told[word]:
            found.append(f"{told[word]} examples have {what} {name}")
    if constant := told.get("constant"):
        found.append(
            f"{constant} of {told['features']} features of {name} never change"
        )
    return found


def _labels(report: Mapping[str, JSON]) -> list[str]:
    """Labels that are no numbers, and splits in which every example has the same."""
    found = []
    for split, part in report.items():
        for name, values in part["labels"].items():
            if bad := int((~np.isfinite(values)).sum()):
                found.append(f"{split}: {bad} labels {name} are NaN or infinite")
            if len(values) > 1 and all(value == values[0] for value in values):
                found.append(f"{split}: every example has the {name} {values[0]}")
    return found


def _size(value: float | None) -> float:
    return abs(value or 0.0)
