"""Finds the examples of a file that cannot be used, and leaves them out."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.feature_files.known_datasets import FeatureDatasetSpec
from mmfusion_jax.data.feature_files.leaks import EqualExamples
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import DataError, shorten, shown, shown_name

NOTHING = "no step in any modality"
"""Kind of problem of an example from which nothing can be learned."""

MAX_LISTED = 3000
"""Number of characters of a list of examples in an error."""


@dataclasses.dataclass(frozen=True)
class BadExample:
    """An example that cannot be used.

    Attributes:
        split: Its split.
        index: Its position in the split of the file.
        id: Its id; "" without one.
        problem: Why it cannot be used, such as "score is nan".
        kind: The problem without the value, such as "score is not from -3 to 3".
    """

    split: str
    index: int
    id: str
    problem: str
    kind: str


@dataclasses.dataclass(frozen=True)
class Subset(Sequence[np.ndarray]):
    """Some examples of a modality.

    Attributes:
        rows: All examples.
        kept: Positions of some, (m) int.
    """

    rows: Sequence[np.ndarray]
    kept: np.ndarray

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.rows[int(self.kept[index])]


def find_bad(
    splits: Mapping[str, Sequences],
    empty: Mapping[str, Sequence[int]],
    spec: FeatureDatasetSpec | None,
) -> list[BadExample]:
    """Returns the examples that cannot be used, in the order of the file.

    Args:
        splits: The file.
        empty: Split -> positions of the examples with no step in any modality. In
            training they are bad; in evaluation they get the constant baseline.
        spec: The dataset; None if it is unknown, and with it the range of its scores.
    """
    found = []
    for split, part in splits.items():
        ids = part.ids or [""] * len(part)
        for index, problem, kind in [
            *_bad_labels(part.labels, spec),
            *(
                [(i, NOTHING, NOTHING) for i in empty[split]]
                if split == "train"
                else []
            ),
        ]:
            found.append(BadExample(split, index, ids[index], problem, kind))
    order = {split: i for i, split in enumerate(splits)}
    return sorted(found, key=lambda one: (order[one.split], one.index))


def copies_to_drop(
    equal: Sequence[EqualExamples], splits: Mapping[str, Sequences]
) -> list[BadExample]:
    """Returns the copies of examples with equal features in other splits.

    The copy in the last of the splits train, valid and test stays: a test split is as
    published, and training does not see it.
    """
    found = []
    for group in equal:
        last = max(group.splits, key=SPLITS.index)
        for split, index in zip(group.splits, group.indices, strict=True):
            if split != last:
                ids = splits[split].ids
                name, kind = (
                    ids[index] if ids else "",
                    f"equal features in {shown_name(last)}",
                )
                found.append(BadExample(split, index, name, kind, kind))
    return found


def drop(
    splits: Mapping[str, Sequences], bad: Sequence[BadExample]
) -> dict[str, Sequences]:
    """Returns the splits without the examples in `bad`.

    Raises:
        DataError: Nothing is left of a split.
    """
    left = {}
    for split, part in splits.items():
        dropped = {one.index for one in bad if one.split == split}
        kept = np.array([i for i in range(len(part)) if i not in dropped], int)
        if not kept.size:
            raise DataError(
                "D79",
                f"--drop_bad leaves nothing of split {shown(split)}: all {len(part):d} "
                "examples have a problem.",
                "fix the file: `data check FILE` shows the problems",
            )
        left[split] = _take(part, kept) if dropped else part
    return left


def list_bad(bad: Sequence[BadExample], limit: int = 0) -> list[str]:
    """Returns a line for each split and kind of problem, with the ids.

    Args:
        bad: The examples.
        limit: Number of characters of all lines; 0 for no limit.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for one in bad:
        value = shown_name(one.problem.removeprefix(one.kind))
        name = f" {shown(one.id)}" if one.id else ""
        examples = groups.setdefault((one.split, one.kind), [])
        examples.append(f"example {one.index:d}{shorten(name)}{shorten(value)}")
    lines, left = [], limit
    for (split, kind), examples in groups.items():
        first = examples[: max(1, left // 40)] if limit else examples
        left -= sum(map(len, first))
        rest = len(examples) - len(first)
        more = f" and {rest:d} more" if rest else ""
        listed = ", ".join(map(shorten, first))
        lines.append(f"{split}: {shown_name(kind)}: {listed}{more}")
    return lines


def bad_examples_error(where: str, bad: Sequence[BadExample], hint: str) -> DataError:
    """Returns the error for examples that cannot be used.

    Args:
        where: The file.
        bad: The examples.
        hint: Another remedy, such as another dataset; "" for none.
    """
    count = len({(one.split, one.index) for one in bad})
    listed = "\n".join(f"  {line}" for line in list_bad(bad, MAX_LISTED))
    what = "1 example" if count == 1 else f"{count:d} examples"
    fix = "--drop_bad leaves them out and lists them in the manifest, or fix the file"
    if hint:
        fix = f"{hint}\n       {fix}"
    return DataError("D79", f"{where}: {what} cannot be used:\n{listed}", fix)


def _bad_labels(
    labels: Mapping[str, np.ndarray], spec: FeatureDatasetSpec | None
) -> list[tuple[int, str, str]]:
    """Returns position, problem and kind for scores that are NaN or out of range."""
    if spec is None or spec.target is None:
        return []
    low, high = spec.target.low, spec.target.high
    found = []
    for name, values in labels.items():
        if values.ndim > 1:
            continue
        what = f"{shown_name(name)} not from {low:g} to {high:g}"
        for index in np.flatnonzero(~((values >= low) & (values <= high))):
            found.append((int(index), f"{what}: {values[index]:g}", what))
    return found


def _take(part: Sequences, kept: np.ndarray) -> Sequences:
    """Returns some examples of a split."""
    select = lambda texts: [texts[i] for i in kept] if texts else ()
    return dataclasses.replace(
        part,
        inputs={name: Subset(rows, kept) for name, rows in part.inputs.items()},
        labels={name: values[kept] for name, values in part.labels.items()},
        ids=select(part.ids),
        texts=select(part.texts),
    )
