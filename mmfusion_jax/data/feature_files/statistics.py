"""Computes statistics of feature files."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.data.feature_files.leaks import digest
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.data.feature_files.summary import (
    FeatureMoments,
    LengthStats,
    ModalityStats,
    SplitStats,
)
from mmfusion_jax.data.preprocessing import RunningMoments
from mmfusion_jax.data.storage.progress import track


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


@dataclasses.dataclass(frozen=True)
class ScannedSplit:
    """Result of reading every example of a split.

    Attributes:
        stats: Its statistics, labels and ids.
        empty: Positions of the examples without a step in any modality.
        digests: `digest` of every example.
    """

    stats: SplitStats
    empty: list[int]
    digests: list[str]


def scan(splits: Mapping[str, Sequences]) -> dict[str, ScannedSplit]:
    """Returns split -> what all of its examples show."""
    return {split: _scanned(split, part) for split, part in splits.items()}


def replace_nonfinite(rows: np.ndarray) -> np.ndarray:
    """Replaces NaN and infinite values by 0."""
    return np.where(np.isfinite(rows), rows, rows.dtype.type(0))


def _scanned(split: str, part: Sequences) -> ScannedSplit:
    running = {name: RunningStats() for name in part.inputs}
    empty, digests = [], []
    for i, example in enumerate(track(part.examples(), len(part), f"checking {split}")):
        for name, rows in example.items():
            running[name].add(rows)
        if not any(map(len, example.values())):
            empty.append(i)
        digests.append(digest(example))
    labels = part.labels.items()
    stats = SplitStats(
        count=len(part),
        inputs={name: stats.result() for name, stats in running.items()},
        scores={name: v.tolist() for name, v in labels if v.ndim == 1},
        flags={name: v.tolist() for name, v in labels if v.ndim == 2},
        ids=list(part.ids),
        notes=list(part.notes),
    )
    return ScannedSplit(stats, empty, digests)
