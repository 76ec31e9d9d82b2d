"""Checks of datasets."""

import copy
import dataclasses
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from mmfusion_jax.data import dataset_checks
from mmfusion_jax.data.dataset import Dataset, Example, check_disjoint, is_ids
from mmfusion_jax.errors import UserError, shorten, shown, type_name
from mmfusion_jax.testing.report import (
    CounterexampleError,
    NotCheckedError,
    Report,
    run_properties,
)

PARTS = ("inputs", "masks", "labels")


def check_dataset(
    dataset: Dataset, label: str, *, name: str = "", max_examples: int = 64
) -> Report:
    """Checks that a dataset does what every dataset must.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> examples = mmf.data.InMemory(
        ...     {"audio": np.random.default_rng(0).random((4, 5, 3), np.float32)},
        ...     {"audio": np.ones((4, 5), bool)},
        ...     {"pitch": np.array([0, 1, 0, 1])},
        ... )
        >>> sources = {
        ...     "train": examples.rows(np.array([0, 1])),
        ...     "test": examples.rows(np.array([2, 3])),
        ... }
        >>> classes = {"pitch": ("low", "high")}
        >>> data = mmf.data.Dataset("tones", "Tones", sources, classes)
        >>> report = mmf.testing.check_dataset(data, "pitch")
        >>> "labels in range" in report.checked
        True

    Args:
        dataset: The dataset.
        label: Name of the label to predict.
        name: Name of the dataset in messages; its own by default.
        max_examples: Maximum number of examples that are read of every split, the
            first ones and others at equal distances.

    Returns:
        The properties that hold, and those that were not checked.

    Raises:
        AssertionError: A property does not hold; one sentence for each.
    """
    if not isinstance(dataset, Dataset):
        hint = "; call the function" if callable(dataset) else ""
        raise TypeError(f"the dataset is {type_name(dataset)}, not a Dataset{hint}")
    case = DatasetCase(dataset, label, max_examples)
    return run_properties(name or dataset.name, case, DATASET_PROPERTIES)


@dataclasses.dataclass
class DatasetCase:
    """A dataset and the label to predict.

    Attributes:
        dataset: The dataset.
        label: Name of the label.
        max_examples: Maximum number of examples that are read of every split.
    """

    dataset: Dataset
    label: str
    max_examples: int

    def examples(self) -> Iterator[tuple[str, int, Example]]:
        """Yields split, index and example."""
        for split, source in self.dataset.sources.items():
            count = min(self.max_examples, len(source))
            for index in np.unique(np.linspace(0, len(source) - 1, count).astype(int)):
                yield split, int(index), source[int(index)]


def splits_and_first_examples(case: DatasetCase) -> None:
    """The splits are known and not empty, and their first examples have the form."""
    try:
        dataset_checks.check_dataset(case.dataset, case.label)
        dataset_checks.check_splits(case.dataset, "test")
    except UserError as error:
        raise CounterexampleError(shorten(error.args[0])) from error


def all_examples_alike(case: DatasetCase) -> None:
    """All examples have the names, shapes and dtypes of the first."""
    wanted, first = None, ""
    for split, index, example in case.examples():
        where = f"example {index:d} of split {shown(split)}"
        try:
            dataset_checks.check_example(example, where)
        except UserError as error:
            raise CounterexampleError(shorten(error.args[0])) from error
        for part in PARTS:
            for name, x in example[part].items():
                if isinstance(x, np.ndarray) and x.dtype == np.float64:
                    raise CounterexampleError(
                        f"{part} {shown(name)} of {where} is float64, not float32"
                    )
        form = example_form(example)
        wanted, first = (form, where) if wanted is None else (wanted, first)
        for key in sorted(set(form) | set(wanted)):
            if form.get(key) != wanted.get(key):
                raise CounterexampleError(
                    f"{shown(key)} of {where} is {shown(form.get(key))}, but "
                    f"{shown(wanted.get(key))} in {shorten(first)}"
                )


def example_form(example: Example) -> dict[str, str]:
    """Returns shape and dtype of every array of an example, as text."""
    found = {}
    for part in PARTS:
        for name, x in example[part].items():
            array = np.asarray(x)
            found[f"{part}/{name}"] = f"{array.dtype.name} {array.shape}"
    return found


def valid_values_are_finite(case: DatasetCase) -> None:
    """Values are finite, also where they are masked, and weights are 1."""
    for split, index, example in case.examples():
        where = f"example {index:d} of split {shown(split)}"
        if float(example["weight"]) != 1:
            raise CounterexampleError(f"the weight of {where} is not 1")
        for name, x in example["inputs"].items():
            if np.asarray(x).dtype.kind != "f":
                continue
            finite = np.isfinite(x).reshape(len(x), -1).all(axis=1)
            if not finite.all():
                step = int(np.argmin(finite))
                raise CounterexampleError(
                    f"input {shown(name)} of {where} is not finite at step {step:d}"
                )


def labels_in_range(case: DatasetCase) -> None:
    """Labels are among the declared classes, flags or range, and those of examples."""
    data, label = case.dataset, case.label
    if label not in (*data.classes, *data.values, *data.flags):
        raise CounterexampleError(f"label {shown(label)} is not declared")
    for split, index, example in case.examples():
        where = f"example {index:d} of split {shown(split)}"
        value = np.asarray(example["labels"][label])
        if label in data.classes:
            low, high = 0, len(data.classes[label]) - 1
            integer = value.dtype.kind in "iu"
        elif label in data.flags:
            low, high, integer = 0, 1, True
        else:
            target = data.values[label]
            low, high, integer = target.low, target.high, True
        if not integer:
            raise CounterexampleError(
                f"label {shown(label)} of {where} is {value.dtype.name}, not an integer"
            )
        if not np.all((value >= low) & (value <= high)):
            raise CounterexampleError(
                f"label {shown(label)} of {where} is {shown(value.tolist())}, outside "
                f"{low:g}..{high:g}"
            )
        known = data.labels.get(split, {}).get(label)
        if known is not None and not np.array_equal(known[index], value):
            raise CounterexampleError(
                f"label {shown(label)} of {where} is {shown(value.tolist())}, but "
                f"{shown(np.asarray(known[index]).tolist())} in Dataset.labels"
            )


def same_example_twice(case: DatasetCase) -> None:
    """An index gives equal examples, also after a caller has changed one in place."""
    for split, index, example in case.examples():
        source = case.dataset.sources[split]
        where = f"example {index:d} of split {shown(split)}"
        kept = copy.deepcopy(example)
        if what := first_difference(kept, source[index]):
            raise CounterexampleError(
                f"{what} of {where} differs when it is read again"
            )
        if what := _changed_in_place(source, index):
            raise CounterexampleError(
                f"{what} of {where} changes when an example that was read before is "
                "changed in place: return copies, or arrays that are not writeable"
            )


def _changed_in_place(source: Any, index: int) -> str:
    """What differs after an example was changed in place, "" for nothing."""
    example = source[index]
    arrays = [x for part in ("inputs", "masks") for x in example[part].values()]
    arrays = [x for x in arrays if isinstance(x, np.ndarray) and x.flags.writeable]
    want, kept = copy.deepcopy(source[index]), copy.deepcopy(arrays)
    for x in arrays:
        x[...] = ~x if x.dtype.kind == "b" else 1 - x
    name = first_difference(want, source[index])
    for x, old in zip(arrays, kept, strict=True):
        x[...] = old
    return name


def first_difference(want: Example, got: Example) -> str:
    """Returns the text of the first array that differs, "" if none does."""
    for part in PARTS:
        if set(want[part]) != set(got[part]):
            return f"the names of {part}"
        for name, x in want[part].items():
            y = np.asarray(got[part][name])
            if not np.array_equal(x, y, equal_nan=y.dtype.kind == "f"):
                return f"{part} {shown(name)}"
    return ""


def sources_can_be_pickled(case: DatasetCase) -> None:
    """A source can be sent to another process, and has the same examples there."""
    for split, source in case.dataset.sources.items():
        try:
            other = ForkingPickler.loads(ForkingPickler.dumps(source))  # pyright: ignore
        except Exception as error:
            raise CounterexampleError(
                f"the source of split {shown(split)} cannot be pickled, so worker "
                f"processes cannot read it: {shorten(error)}"
            ) from error
        if what := first_difference(source[0], other[0]):
            raise CounterexampleError(
                f"{what} of example 0 of split {shown(split)} differs after pickling"
            )


def groups_in_one_split(case: DatasetCase) -> None:
    """No speaker or video is in two splits."""
    if not any(case.dataset.groups.values()):
        raise NotCheckedError("Dataset.groups is empty: the speakers are not known")
    try:
        check_disjoint(case.dataset.groups)
    except UserError as error:
        raise CounterexampleError(shorten(error.args[0])) from error


def examples_in_one_split(case: DatasetCase) -> None:
    """No example is in two splits."""
    seen: dict[bytes, tuple[str, int]] = {}
    for split, index, example in case.examples():
        content = b"".join(
            np.ascontiguousarray(x).tobytes() for x in example["inputs"].values()
        )
        first, number = seen.setdefault(content, (split, index))
        if first != split:
            raise CounterexampleError(
                f"example {index:d} of split {shown(split)} has the inputs of example "
                f"{number:d} of split {shown(first)}"
            )


def ids_in_range(case: DatasetCase) -> None:
    """Declared ranges of ids contain all ids."""
    ids = case.dataset.ids
    for name, (low, high) in ids.items():
        for split, index, example in case.examples():
            x = np.asarray(example["inputs"][name])
            x = x[np.asarray(example["masks"][name])]
            if is_ids(x) and len(x) and not low <= x.min() <= x.max() <= high:
                raise CounterexampleError(
                    f"input {shown(name)} of example {index:d} of split {shown(split)} "
                    f"has ids {x.min():d}..{x.max():d}, outside {low:d}..{high:d}"
                )
    if not ids:
        raise NotCheckedError("Dataset.ids is empty")


DATASET_PROPERTIES = (
    splits_and_first_examples,
    all_examples_alike,
    valid_values_are_finite,
    labels_in_range,
    same_example_twice,
    sources_can_be_pickled,
    groups_in_one_split,
    examples_in_one_split,
    ids_in_range,
)
"""All properties, in the order in which they are checked."""
