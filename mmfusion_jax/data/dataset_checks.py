"""Checks that a dataset and its examples have the form that the pipeline needs."""

import inspect
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example, RegressionTarget
from mmfusion_jax.errors import DataError, join_names, shorten, shown, type_name

SPLITS = ("train", "valid", "test")
PARTS = ("inputs", "masks", "labels", "weight")
MAPPINGS = ("sources", "classes", "values", "flags", "labels", "groups", "facts", "ids")


def check_dataset(data: Dataset, label: str) -> None:
    """Checks the splits of a dataset, and the first example of each.

    Args:
        data: The dataset.
        label: Name of the label to predict.

    Raises:
        DataError: A split is unknown or empty, an example is malformed, or the dataset
            declares something else than `Dataset` describes.
    """
    _check_types(data)
    check_splits(data, "train")
    _check_declarations(data)
    for split, source in data.sources.items():
        if split not in SPLITS:
            raise _invalid(f"split {shown(split)} is not one of {join_names(SPLITS)}")
        if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
            raise _invalid(
                f"split {shown(split)} is {type_name(source)}, not a sequence"
            )
        if not len(source):
            code = "D12" if split == "train" else "D23"
            raise DataError(code, f"split {shown(split)} of {data.title} is empty.")
        where = f"the first example of split {shown(split)}"
        check_example(source[0], where)
        _check_label(data, label, source[0]["labels"].get(label), where)
        given = data.labels.get(split, {}).get(label, source)
        if len(given) != len(source):
            raise _invalid(
                f"split {shown(split)} has {len(source)} examples and "
                f"{len(given)} labels"
            )
        _check_example_ids(data, split)


def _check_example_ids(data: Dataset, split: str) -> None:
    """Raises DataError unless every example of a split has its own id."""
    ids, count = data.example_id_list(split), len(data.sources[split])
    if len(ids) != count:
        raise _invalid(
            f"split {shown(split)} has {count} examples and {len(ids)} example_ids"
        )
    if len(set(ids)) < count:
        twice = next(name for name, n in Counter(ids).items() if n > 1)
        raise _invalid(f"example_ids of split {shown(split)} has {shown(twice)} twice")


def _check_types(data: Dataset) -> None:
    """Raises DataError if a field of a dataset is not a string or a mapping."""
    for field in ("name", "title"):
        if not isinstance(value := getattr(data, field), str):
            raise _invalid(f"{shown(field)} is {type_name(value)}, not a string")
    for field in MAPPINGS:
        if not isinstance(value := getattr(data, field), Mapping):
            raise _invalid(f"{shown(field)} is {type_name(value)}, not a dictionary")
    for split, labels in data.labels.items():
        if not isinstance(labels, Mapping):
            raise _invalid(
                f"labels[{shown(split)}] is {type_name(labels)}, not a dictionary"
            )


def _takes(function: Any, count: int) -> bool:
    """Returns whether a value can be called with some positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a function without a signature, such as one written in C
        return callable(function)
    return True


def _check_declarations(data: Dataset) -> None:
    """Raises DataError if a field of a dataset has the wrong type."""
    for name, target in data.values.items():
        if not isinstance(target, RegressionTarget):
            raise _invalid(
                f"values[{shown(name)}] is {type_name(target)}, not a RegressionTarget"
            )
    for name, classes in {**data.classes, **data.flags}.items():
        if isinstance(classes, str) or not all(isinstance(c, str) for c in classes):
            raise _invalid(
                f"classes or flags of {shown(name)} are {shown(classes)}, not a tuple "
                "of strings"
            )
    if data.augment is not None and not _takes(data.augment, 2):
        raise _invalid(
            f"augment is {type_name(data.augment)}, not a function of (example, rng)"
        )
    try:
        json.dumps(dict(data.facts))
    except (TypeError, ValueError) as error:
        raise _invalid(f"facts cannot be written as JSON: {shorten(error)}") from error


def _check_label(data: Dataset, label: str, value: Any, where: str) -> None:
    """Raises DataError if a declared label does not have the shape of its type."""
    if label not in (*data.classes, *data.values, *data.flags):
        return  # an error that names all labels follows
    found = np.asarray(value)
    shape = (len(data.flags[label]),) if label in data.flags else ()
    if found.dtype.kind not in "biuf" or found.shape != shape:
        kind = f"{shape[0]} flags" if shape else "one number"
        raise _malformed(
            f"label {shown(label)} of {where} is {found.dtype.name} "
            f"{found.shape}, not {kind}"
        )


def check_splits(data: Dataset, *splits: str) -> None:
    """Raises DataError if the dataset does not have a split."""
    for split in splits:
        if split not in data.sources:
            raise DataError(
                "D25",
                f"{data.title} does not have the split {shown(split)}.",
                f"its splits are {join_names(data.sources)}",
            )


def check_example(example: Any, where: str) -> None:
    """Raises DataError if an example does not have inputs with masks, and labels.

    Args:
        example: Value to check.
        where: Description of the value, for the message.
    """
    if not isinstance(example, Mapping):
        raise _malformed(f"{where} is {type_name(example)}, not a dictionary")
    if missing := [part for part in PARTS if part not in example]:
        raise _malformed(f"{where} does not have {shown(missing[0])}")
    for name, x in example["inputs"].items():
        if not isinstance(x, np.ndarray):
            raise _malformed(
                f"input {shown(name)} of {where} is {type_name(x)}, not a NumPy array"
            )
        values, mask = x, np.asarray(example["masks"].get(name))
        if values.dtype.kind not in "biuf" or not values.ndim:
            raise _malformed(
                f"input {shown(name)} of {where} is not an array of numbers"
            )
        if mask.dtype.kind != "b" or mask.shape != values.shape[:1]:
            raise _malformed(
                f"the mask of input {shown(name)} of {where} is {mask.dtype.name} "
                f"{mask.shape}, not bool {values.shape[:1]}"
            )


def mismatch(examples: Sequence[Example]) -> DataError:
    """Returns the error for examples that cannot be stacked."""
    for example in examples:
        check_example(example, "an example of a batch")
    for part in ("inputs", "masks", "labels"):
        names = [set(example[part]) for example in examples]
        if any(one != names[0] for one in names):
            return _malformed(f"examples of a batch differ in the names of {part}")
        for name in names[0]:
            shapes = sorted({np.shape(example[part][name]) for example in examples})
            if len(shapes) > 1:
                return _malformed(
                    f"{part} {shown(name)} of examples of a batch have the shapes "
                    f"{shapes[0]} and {shapes[1]}"
                )
    return _malformed("the examples of a batch cannot be stacked")


def _invalid(message: str) -> DataError:
    return DataError(
        "D25", f"{message}.", "see `Dataset` in mmfusion_jax/data/dataset.py"
    )


def _malformed(message: str) -> DataError:
    return DataError(
        "D25",
        f"{message}.",
        "see `Example` in mmfusion_jax/data/dataset.py; all examples have the same "
        "shapes, shorter clips are padded and masked",
    )
