"""Computes statistics of feature files, and the problems that they show."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from mmfusion_jax.data.feature_files.known_datasets import FeatureDatasetSpec
from mmfusion_jax.data.feature_files.padded_sequences import Sequences, video
from mmfusion_jax.data.feature_files.summary import (
    Counts,
    FeatureMoments,
    LengthStats,
    ModalityStats,
    SplitStats,
    list_counts,
)
from mmfusion_jax.data.preprocessing import RunningMoments
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import join_names, shorten, shown, shown_name

LARGE = 1e6
"""Larger absolute values are reported as a problem."""


@dataclasses.dataclass
class RunningStats:
    """Statistics of the examples of one modality so far.

    Attributes:
        steps: Number of steps of each example.
        silent: Number of examples whose steps are all zeros.
        nan, infinite: Number of NaN and infinite values.
        low, high: Minimum and maximum of the finite values.
        moments: Moments of all steps, with 0 for NaN and infinite values.
    """

    steps: list[int] = dataclasses.field(default_factory=list)
    silent: int = 0
    nan: int = 0
    infinite: int = 0
    low: float = np.inf
    high: float = -np.inf
    moments: RunningMoments | None = None

    def add(self, rows: np.ndarray) -> None:
        """Adds an example, (t f) or (t)."""
        self.steps.append(len(rows))
        if not len(rows):
            return
        # Minimum, maximum and moments are of the finite values: one NaN would hide all
        # others.
        finite = np.isfinite(rows)
        nan = int(np.isnan(rows).sum())
        self.nan += nan
        self.infinite += int((~finite).sum()) - nan
        self.silent += not rows.any()
        if len(values := rows[finite]):
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))
        if rows.ndim > 1:
            new = RunningMoments.of(replace_nonfinite(rows))
            self.moments = new if self.moments is None else self.moments + new

    def result(self) -> ModalityStats:
        """Returns the statistics; at least one example must have been added."""
        steps, moments = np.array(self.steps), None
        if self.moments is not None:
            moments = FeatureMoments(
                count=self.moments.count,
                constant=int(self.moments.constant().sum()),
                total=self.moments.total.tolist(),
                square=self.moments.square.tolist(),
            )
        return ModalityStats(
            steps=LengthStats(
                int(steps.min()), float(np.median(steps)), int(steps.max())
            ),
            absent=int((steps == 0).sum()),
            silent=self.silent,
            nan=self.nan,
            infinite=self.infinite,
            low=self.low if np.isfinite(self.low) else None,
            high=self.high if np.isfinite(self.high) else None,
            features=len(moments.total) if moments else 0,
            moments=moments,
        )


def compute_statistics(splits: Mapping[str, Sequences]) -> dict[str, SplitStats]:
    """Returns split -> its statistics, labels and ids."""
    return {split: _split_stats(split, part) for split, part in splits.items()}


def replace_nonfinite(rows: np.ndarray) -> np.ndarray:
    """Replaces NaN and infinite values by 0."""
    return np.where(np.isfinite(rows), rows, rows.dtype.type(0))


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


def shared_ids(
    splits: Mapping[str, SplitStats], name: Callable[[str], str] = str
) -> dict[str, list[str]]:
    """Name -> its splits, for names that are in more than one split.

    Args:
        splits: Result of `compute_statistics`.
        name: Maps an id to the name to compare, such as `video`.
    """
    seen: dict[str, list[str]] = {}
    for split, part in splits.items():
        for one in sorted({name(i) for i in part.ids}):
            seen.setdefault(one, []).append(split)
    return {one: where for one, where in seen.items() if len(where) > 1}


def problems(
    splits: Mapping[str, SplitStats], spec: FeatureDatasetSpec | None
) -> list[str]:
    """Returns the problems of a file, one sentence each."""
    found = []
    for split, counts in count_nonfinite(splits).items():
        listed = list_counts(counts)
        found.append(f"{split}: NaN or infinite values: {listed}")
    if shared := shared_ids(splits):
        listed = join_names(list(shared)[:3])
        found.append(f"{len(shared)} clips are in two splits (data leakage): {listed}")
    elif (spec is None or spec.by_video) and (shared := shared_ids(splits, video)):
        listed = join_names(list(shared)[:3])
        found.append(f"{len(shared)} videos are in two splits (data leakage): {listed}")
    for split, part in splits.items():
        twice = [i for i, count in Counter(part.ids).items() if count > 1]
        if twice:
            found.append(
                f"{split}: {len(twice)} duplicate clips, such as {shown(twice[0])}"
            )
        for name, stats in part.inputs.items():
            low, high = stats.low or 0.0, stats.high or 0.0
            if stats.features and max(abs(low), abs(high)) > LARGE:
                found.append(
                    f"{split}: {shown_name(name)} has values from {low:g} to {high:g}"
                )
    return found + _label_problems(splits)


def remarks(
    splits: Mapping[str, SplitStats], spec: FeatureDatasetSpec | None
) -> list[str]:
    """Returns remarks about a file that are not problems, one sentence each."""
    found = []
    counts = tuple(part.count for part in splits.values())
    if spec is not None and counts not in spec.counts:
        listed = " or ".join("/".join(map(str, sizes)) for sizes in spec.counts)
        found.append(
            f"the splits have {'/'.join(map(str, counts))} examples; published: "
            f"{listed}"
        )
    if spec is not None and not spec.by_video and (shared := shared_ids(splits, video)):
        found.append(
            f"{len(shared)} videos, and their speakers, are in more than one split, as "
            "published"
        )
    if not any(part.ids for part in splits.values()):
        found.append("no ids: clips in two splits (data leakage) cannot be checked")
    for split, part in splits.items():
        found += [f"{split}: {shorten(note)}" for note in part.notes]
        for name, stats in part.inputs.items():
            found += [
                f"{split}: {shorten(one)}" for one in _modality_remarks(name, stats)
            ]
    return found


def _split_stats(split: str, part: Sequences) -> SplitStats:
    running = {name: RunningStats() for name in part.inputs}
    for example in track(part.examples(), len(part), f"checking {split}"):
        for name, rows in example.items():
            running[name].add(rows)
    labels = part.labels.items()
    return SplitStats(
        count=len(part),
        inputs={name: stats.result() for name, stats in running.items()},
        scores={name: v.tolist() for name, v in labels if v.ndim == 1},
        flags={name: v.tolist() for name, v in labels if v.ndim == 2},
        ids=list(part.ids),
        notes=list(part.notes),
    )


def _modality_remarks(name: str, stats: ModalityStats) -> list[str]:
    """Remarks about a modality of a split."""
    found = []
    if absent := stats.absent:
        found.append(f"{absent:d} examples have no {shown_name(name)}")
    if silent := stats.silent:
        found.append(f"{shown_name(name)} of {silent:d} examples is all zeros")
    if stats.moments and (constant := stats.moments.constant):
        found.append(
            f"{constant:d} of {stats.features:d} features of "
            f"{shown_name(name)} are constant"
        )
    return found


def _label_problems(splits: Mapping[str, SplitStats]) -> list[str]:
    """Labels that are NaN or infinite, and splits in which all labels are equal."""
    found = []
    for split, part in splits.items():
        for name, values in part.labels.items():
            if bad := int((~np.isfinite(values)).sum()):
                found.append(
                    f"{split}: {bad:d} values of label "
                    f"{shown(name)} are NaN or infinite"
                )
            if len(values) > 1 and (values == values[0]).all():
                found.append(
                    f"{split}: label {shown(name)} is "
                    f"{shown(values[0].tolist())} in every example"
                )
    return found
