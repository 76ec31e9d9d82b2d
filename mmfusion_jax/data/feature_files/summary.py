"""Summary of a feature file: the statistics of its splits, and a table of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

import msgspec
import numpy as np

from mmfusion_jax.data.feature_files.bad_examples import BadExample
from mmfusion_jax.data.feature_files.emotion_labels import CLASS, FLAGS, one_class
from mmfusion_jax.data.feature_files.known_datasets import (
    FEATURE_DATASETS,
    FeatureDatasetSpec,
    main_label,
)
from mmfusion_jax.data.feature_files.leaks import EqualExamples
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import shorten, shown, shown_name
from mmfusion_jax.results.json_file import check, names_match

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Counts: TypeAlias = dict[str, dict[str, Count]]
"""Split -> modality -> number of values."""

COLUMNS: tuple[str, ...] = (
    "split",
    "examples",
    "modality",
    "features",
    "steps",
    "values",
    "NaN or infinite",
)


@dataclass(frozen=True)
class LengthStats:
    """Number of steps of an example: minimum, median and maximum over a split."""

    minimum: Count
    median: float
    maximum: Count

    def __post_init__(self) -> None:
        ordered = self.minimum <= self.median <= self.maximum
        check(ordered, "steps: not in increasing order")


@dataclass(frozen=True)
class FeatureMoments:
    """Sums over all steps of a split, with 0 for NaN and infinite values.

    Attributes:
        count: Number of steps.
        constant: Number of constant features.
        total: Sum of the steps, (f).
        square: Sum of their squares, (f).
    """

    count: Count
    constant: Count
    total: list[float]
    square: list[float]

    def __post_init__(self) -> None:
        check(self.count > 0, "moments: no steps")
        check(len(self.total) == len(self.square), "moments: not of the same length")
        check(self.constant <= len(self.total), "moments: too many constant features")
        finite = all(map(math.isfinite, (*self.total, *self.square)))
        check(finite, "moments: not finite")


@dataclass(frozen=True, kw_only=True)
class ModalityStats:
    """Statistics of one modality of one split.

    Attributes:
        steps: Number of steps of an example.
        absent: Number of examples without steps.
        silent: Number of examples whose steps are all zeros.
        nan, infinite: Number of NaN and infinite values.
        low, high: Minimum and maximum of the finite values; None if there are none.
        features: f, number of features; 0 for ids, and if all examples are absent.
        moments: Moments of the features; None without features.
    """

    steps: LengthStats
    absent: Count
    silent: Count
    nan: Count
    infinite: Count
    low: float | None
    high: float | None
    features: Count
    moments: FeatureMoments | None

    def __post_init__(self) -> None:
        low, high, moments = self.low, self.high, self.moments
        if low is None or high is None:
            check(low is high, "low and high: one is missing")
        else:
            check(-math.inf < low <= high < math.inf, "low and high: not a range")
        check(
            self.features == (len(moments.total) if moments else 0),
            "features: not the length of the moments",
        )
        if moments:
            check(moments.count >= self.steps.maximum, "moments: too few steps")

    @property
    def nonfinite(self) -> int:
        """Number of NaN and infinite values."""
        return self.nan + self.infinite


@dataclass(frozen=True, kw_only=True)
class SplitStats:
    """Statistics of one split, with its labels and ids.

    Attributes:
        count: n, number of examples.
        inputs: Modality -> its statistics.
        scores: Label -> score of every example, (n).
        flags: Label -> flags of every example, (n k), 0 or 1.
        ids: Ids of the examples, "video$_$clip"; empty if the file has none.
        notes: Remarks about the file.
    """

    count: Count
    inputs: dict[str, ModalityStats]
    scores: dict[str, list[float]]
    flags: dict[str, list[list[int]]]
    ids: list[str]
    notes: list[str]

    def __post_init__(self) -> None:
        check(self.count > 0, "count: no examples")
        check(bool(self.inputs), "inputs: empty")
        for name, values in {**self.scores, **self.flags}.items():
            complete = len(values) == self.count
            check(complete, f"label {shown(name)}: not {self.count} examples")
        for name, rows in self.flags.items():
            same = len({len(row) for row in rows}) == 1
            check(same, f"label {shown(name)}: not the same number of flags")
            binary = {flag for row in rows for flag in row} <= {0, 1}
            check(binary, f"label {shown(name)}: not 0 or 1")
        check(len(self.ids) in (0, self.count), f"ids: not {self.count} examples")

    @property
    def labels(self) -> dict[str, np.ndarray]:
        """Label -> its scores (n) float64, or its flags (n k) int64."""
        return {k: np.array(v) for k, v in {**self.scores, **self.flags}.items()}


@dataclass(frozen=True, kw_only=True)
class FileSummary:
    """Feature file and its statistics.

    Attributes:
        file: Its name.
        layout: Name of the layout, such as "mmsa_aligned".
        sha256: Hash of its bytes.
        known: Name of the published file with this hash; "" if there is none.
        name: Key of its dataset in `FEATURE_DATASETS`; "" if it is unknown.
        splits: "train", "valid" and "test".
        repaired: Number of values that an import has replaced by 0, where there are
            any.
        bad: Examples that cannot be used; an import has none.
        dropped: Examples that an import left out.
        equal: Examples with equal features in more than one split.
    """

    file: str
    layout: str
    sha256: str
    known: str
    name: str
    splits: dict[str, SplitStats]
    repaired: Counts = field(default_factory=dict)
    bad: list[BadExample] = field(default_factory=list)
    dropped: list[BadExample] = field(default_factory=list)
    equal: list[EqualExamples] = field(default_factory=list)

    def __post_init__(self) -> None:
        names_match(self.splits, SPLITS, "splits")
        train = self.splits["train"]
        for split, part in self.splits.items():
            names_match(part.inputs, train.inputs, f"{split}: inputs")
            names_match(part.scores, train.scores, f"{split}: scores")
            names_match(part.flags, train.flags, f"{split}: flags")
        if self.name:
            check(self.name in FEATURE_DATASETS, "name: not a dataset")
            spec = FEATURE_DATASETS[self.name]
            fit = _labels_fit(self.splits, spec, not self.bad)
            check(fit, f"labels: not those of {spec.title}")
        for group in self.equal:
            for split, index in zip(group.splits, group.indices, strict=True):
                inside = split in SPLITS and index < self.splits[split].count
                check(inside, "equal: not an example of a split")

    @property
    def spec(self) -> FeatureDatasetSpec | None:
        """Dataset of the file; None if it is unknown."""
        return FEATURE_DATASETS[self.name] if self.name else None


@dataclass(frozen=True, kw_only=True)
class ImportSummary(FileSummary):
    """Result of an import.

    Attributes:
        license: License of the data.
        folder: Folder of the store.
        already_imported: True if the file had been imported before.
    """

    license: str
    folder: str
    already_imported: bool


def header_lines(found: FileSummary) -> list[str]:
    """Returns the name, layout and checksum of the file."""
    what = f"recognized: {shorten(found.known)}"
    if not found.known:
        what = "not recognized: not a published checksum"
    title = found.spec.title if found.spec else "unknown dataset"
    return [
        f"{found.file}: {title}, layout {shorten(found.layout)}",
        f"  {what}; SHA-256 {shorten(found.sha256)}",
    ]


def table_lines(found: FileSummary) -> list[str]:
    """Returns a table of the sizes, lengths and ranges of every modality."""
    rows = [COLUMNS]
    for split, part in found.splits.items():
        for name, stats in part.inputs.items():
            steps, low, high = stats.steps, stats.low, stats.high
            rows.append(
                (
                    split,
                    str(part.count),
                    name,
                    str(stats.features or "ids"),
                    f"{steps.minimum} to {steps.maximum}, median {steps.median:g}",
                    "none" if low is None else f"{low:.4g} to {high:.4g}",
                    str(stats.nonfinite),
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  " + "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True))
        for row in rows
    ]
    for split, counts in found.repaired.items():
        listed = list_counts(counts)
        lines.append(f"  {split}: NaN and infinite values set to 0: {listed}")
    return [line.rstrip() for line in lines]


def class_lines(found: FileSummary) -> list[str]:
    """Returns the numbers of examples of each emotion, and of those without one."""
    if found.spec is None or FLAGS not in found.splits["train"].flags:
        return []
    names, lines = found.spec.flags, []
    for split, part in found.splits.items():
        _, classes, left_out = one_class(part.labels[FLAGS])
        pairs = zip(np.bincount(classes, minlength=len(names)), names, strict=True)
        listed = ", ".join(f"{count:d} {shown_name(name)}" for count, name in pairs)
        lines.append(f"  {split}: {CLASS}: {listed}; left out: {left_out.description}")
    return lines


def count_nonfinite(splits: Mapping[str, SplitStats]) -> Counts:
    """Returns the numbers of NaN and infinite values, where there are any."""
    found = {
        split: {
            name: stats.nonfinite
            for name, stats in part.inputs.items()
            if stats.nonfinite
        }
        for split, part in splits.items()
    }
    return {split: counts for split, counts in found.items() if counts}


def list_counts(counts: Mapping[str, int]) -> str:
    """Returns numbers of values by modality as text, such as "2 of audio"."""
    return ", ".join(f"{count} of {shown_name(name)}" for name, count in counts.items())


def _labels_fit(
    splits: Mapping[str, SplitStats], spec: FeatureDatasetSpec, in_range: bool
) -> bool:
    """Returns whether the labels are those of a dataset, as in `check_labels`.

    Args:
        splits: The splits.
        spec: The dataset.
        in_range: Every score must be in the range of the dataset.
    """
    parts = splits.values()
    if any(name != FLAGS for part in parts for name in part.flags):
        return False
    rows = [rows for part in parts for rows in part.flags.values()]
    if not all(len(first) == len(spec.flags) for first, *_ in rows):
        return False
    if spec.target is None:
        return all(spec.label in part.flags for part in parts)
    low, high = spec.target.low, spec.target.high
    return all(
        main_label(spec, part.labels) in part.labels
        and (
            not in_range
            or all(low <= score <= high for v in part.scores.values() for score in v)
        )
        for part in parts
    )
