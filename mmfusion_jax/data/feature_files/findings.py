"""Problems of feature files, remarks about them, and what could not be checked."""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from mmfusion_jax.data.feature_files.bad_examples import list_bad
from mmfusion_jax.data.feature_files.emotion_labels import CLASS, FLAGS, one_class
from mmfusion_jax.data.feature_files.example_ids import Videos, find_videos
from mmfusion_jax.data.feature_files.known_datasets import POLARITIES, main_label
from mmfusion_jax.data.feature_files.leaks import (
    MOST,
    EqualExamples,
    in_several_splits,
)
from mmfusion_jax.data.feature_files.summary import (
    FileSummary,
    ModalityStats,
    SplitStats,
    count_nonfinite,
    list_counts,
)
from mmfusion_jax.data.label_checks import label_warnings
from mmfusion_jax.errors import join_names, shorten, shown, shown_name

LARGE = 1e6
"""Larger absolute values are reported as a problem."""


@dataclasses.dataclass(frozen=True)
class Findings:
    """What the checks of a feature file found, one sentence each.

    Attributes:
        problems: Problems.
        remarks: Remarks that are not problems.
        other_labels: Remarks about labels that a config may choose instead of the one
            that papers predict.
        unchecked: What could not be checked, and why.
    """

    problems: list[str]
    remarks: list[str]
    other_labels: list[str]
    unchecked: list[str]

    @property
    def conclusion(self) -> str:
        """A sentence on what was not found; "" if there are problems."""
        if self.problems:
            return ""
        if self.unchecked:
            return "no problem was found in what could be checked"
        return "no problems found"


def find_problems(found: FileSummary) -> Findings:
    """Returns the problems of a file or import, and what could not be checked."""
    videos = videos_of(found.splits)
    return Findings(
        [
            *_value_problems(found),
            *leaks(found, videos),
            *copies(found),
            *_label_problems(found),
        ],
        _remarks(found, videos),
        _other_labels(found),
        _unchecked(found, videos),
    )


def _unchecked(found: FileSummary, videos: Videos) -> list[str]:
    """Returns what could not be checked."""
    lines = [videos.unknown] if videos.unknown else []
    if found.spec is None:
        lines.append(
            "the range and number of the labels: the dataset is not known, --dataset "
            "names it"
        )
    return lines


def videos_of(splits: Mapping[str, SplitStats]) -> Videos:
    """Returns the videos of all examples, as far as their ids name videos."""
    return find_videos({split: part.ids for split, part in splits.items()})


def leaks(found: FileSummary, videos: Videos) -> list[str]:
    """Returns the clips and videos that are in two splits, a sentence for each kind.

    Args:
        found: The file.
        videos: Its videos.
    """
    by_video = found.spec is None or found.spec.by_video
    ids = {split: part.ids for split, part in found.splits.items()}
    if shared := in_several_splits(ids):
        return [_leak("clips", shared)]
    if by_video and (shared := in_several_splits(videos.names)):
        return [_leak("videos", shared)]
    return []


def copies(found: FileSummary) -> list[str]:
    """Returns a sentence on clips that have equal features in two splits, if any.

    Args:
        found: The file. One with a published checksum is used as it is.
    """
    if not found.equal or found.known:
        return []
    pairs = [_equal(one, found.splits) for one in found.equal[:MOST]]
    listed = _and_more(pairs, len(found.equal))
    return [
        f"{len(found.equal)} clips have equal features of all modalities in two "
        f"splits (data leakage): {listed}"
    ]


def _leak(what: str, shared: Mapping[str, Sequence[str]]) -> str:
    """Returns the sentence for names that are in two splits."""
    first = list(shared.items())[:MOST]
    names = [f"{shown(one)} in {join_names(where)}" for one, where in first]
    listed = _and_more(names, len(shared))
    return f"{len(shared)} {what} are in two splits (data leakage): {listed}"


def _and_more(names: Sequence[str], count: int) -> str:
    """Returns the first names of a list with their total number."""
    listed = "; ".join(shorten(name) for name in names)
    more = count - len(names)
    return f"{listed} and {more:d} more" if more else listed


def _equal(group: EqualExamples, splits: Mapping[str, SplitStats]) -> str:
    """Returns the ids of examples with equal features, joined by "="."""
    names = []
    for split, index in zip(group.splits, group.indices, strict=True):
        ids = splits[split].ids
        name = shown(ids[index]) if index < len(ids) else f"example {index:d}"
        names.append(f"{split} {shorten(name)}")
    return " = ".join(map(shorten, names[:MOST]))


def _value_problems(found: FileSummary) -> list[str]:
    """NaN, infinite and large values, bad examples and duplicate ids."""
    lines = []
    if not found.repaired:
        for split, counts in count_nonfinite(found.splits).items():
            listed = list_counts(counts)
            lines.append(f"{split}: NaN or infinite values: {listed}")
    lines += list_bad(found.bad)
    for split, part in found.splits.items():
        twice = [i for i, count in Counter(part.ids).items() if i and count > 1]
        if twice:
            lines.append(
                f"{split}: {len(twice)} duplicate clips, such as {shown(twice[0])}"
            )
        for name, stats in part.inputs.items():
            low, high = stats.low or 0.0, stats.high or 0.0
            if stats.features and max(abs(low), abs(high)) > LARGE:
                lines.append(
                    f"{split}: {shown_name(name)} has values from {low:g} to {high:g}"
                )
    return lines


def _label_problems(found: FileSummary) -> list[str]:
    """Labels that are NaN or infinite, and labels of the dataset with one value."""
    lines = []
    listed = {one.split for one in found.bad}
    for split, part in found.splits.items():
        for name, values in part.labels.items():
            count = int((~np.isfinite(values)).sum())
            if count and split not in listed:
                lines.append(
                    f"{split}: {count:d} values of label "
                    f"{shown(name)} are NaN or infinite"
                )
    labels = found.splits["train"].labels
    main = [main_label(found.spec, labels)] if found.spec else list(labels)
    return lines + [line for name in main for line in _constant(found, name)]


def _constant(found: FileSummary, name: str) -> list[str]:
    """Returns the warnings about a label, such as one that is constant."""
    names = found.spec.flags if found.spec and name == FLAGS else ()
    labels = {split: part.labels[name] for split, part in found.splits.items()}
    return label_warnings(labels, name, names)


def _other_labels(found: FileSummary) -> list[str]:
    """Returns the warnings about labels that a config may choose instead."""
    spec, splits = found.spec, found.splits
    if spec is None:
        return []
    labels = splits["train"].labels
    main = main_label(spec, labels)
    lines = [line for n in labels if n != main for line in _constant(found, n)]
    if FLAGS in labels:
        classes = {s: one_class(part.labels[FLAGS])[1] for s, part in splits.items()}
        if classes["train"].size:
            lines += label_warnings(classes, CLASS, spec.flags)
    if "score" in labels and not found.bad:
        signs = {s: np.sign(part.labels["score"]) for s, part in splits.items()}
        if np.unique(labels["score"]).size > 1 and spec.target is not None:
            classes = {s: x.astype(int) + 1 for s, x in signs.items()}
            lines += label_warnings(classes, "polarity", POLARITIES)
    return lines


def _remarks(found: FileSummary, videos: Videos) -> list[str]:
    """Returns remarks about a file that are not problems."""
    lines, splits, spec = [], found.splits, found.spec
    counts = tuple(part.count for part in splits.values())
    if spec is not None and counts not in spec.counts:
        listed = " or ".join("/".join(map(str, sizes)) for sizes in spec.counts)
        lines.append(
            f"the splits have {'/'.join(map(str, counts))} examples; published: "
            f"{listed}"
        )
    shared = in_several_splits(videos.names)
    if spec is not None and not spec.by_video and shared:
        lines.append(
            f"{len(shared)} videos, and their speakers, are in more than one split, as "
            "published"
        )
    if found.equal and found.known:
        lines.append(
            f"{len(found.equal)} clips have equal features in two splits, as published"
        )
    lines += [f"left out: {line}" for line in list_bad(found.dropped)]
    lines += _yes_no_scores(splits)
    for split, part in splits.items():
        lines += [f"{split}: {shorten(note)}" for note in part.notes]
        for name, stats in part.inputs.items():
            lines += [
                f"{split}: {shorten(one)}" for one in _modality_remarks(name, stats)
            ]
    return lines


def _yes_no_scores(splits: Mapping[str, SplitStats]) -> list[str]:
    """Returns a remark for every score that has only the values 0 and 1."""
    lines = []
    for name in splits["train"].scores:
        values = {v for part in splits.values() for v in part.scores[name]}
        if values == {0.0, 1.0}:
            lines.append(
                f"{shown_name(name)} is 0 or 1 in every example, as yes/no labels are: "
                "it is predicted as a number, and 0 counts as neutral"
            )
    return lines


def _modality_remarks(name: str, stats: ModalityStats) -> list[str]:
    """Remarks about a modality of a split."""
    lines = []
    if absent := stats.absent:
        lines.append(f"{absent:d} examples have no {shown_name(name)}")
    if silent := stats.silent:
        lines.append(f"{shown_name(name)} of {silent:d} examples is all zeros")
    if stats.moments and (constant := stats.moments.constant):
        lines.append(
            f"{constant:d} of {stats.features:d} features of "
            f"{shown_name(name)} are constant"
        )
    return lines
