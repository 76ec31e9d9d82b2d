"""Checks that the examples of a dataset have the form of `Example`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example
from mmfusion_jax.errors import DataError, type_name

PARTS = ("inputs", "masks", "labels", "weight")


def check_dataset(data: Dataset, label: str) -> None:
    """Raises DataError if a split is empty, or the first training example malformed.

    Args:
        data: The dataset.
        label: Name of the label to predict.
    """
    check_splits(data, "train")
    for split in data.sources:
        if not len(data.sources[split]):
            code = "D12" if split == "train" else "D23"
            raise DataError(code, f"split {split!r} of {data.title} is empty.")
    first = f"the first training example of {data.title}"
    example = data.source("train")[0]
    check_example(example, first)
    if label in (*data.classes, *data.values, *data.flags):
        found = np.asarray(example["labels"].get(label))
        if found.dtype.kind not in "biuf":
            raise _malformed(f"label {label!r} of {first} is {found!r}, not a number")


def check_splits(data: Dataset, *splits: str) -> None:
    """Raises DataError if the dataset does not have a split."""
    for split in splits:
        if split not in data.sources:
            raise DataError(
                "D25",
                f"{data.title} does not have the split {split!r}.",
                f"its splits are {', '.join(data.sources) or 'none'}",
            )


def check_example(example: Any, where: str) -> None:
    """Raises DataError if an example does not have inputs with masks, and labels.

    Args:
        example: What should be an `Example`.
        where: What it is, for the message.
    """
    if not isinstance(example, Mapping):
        raise _malformed(f"{where} is {type_name(example)}, not a dictionary")
    if missing := [part for part in PARTS if part not in example]:
        raise _malformed(f"{where} does not have {missing[0]!r}")
    for name, x in example["inputs"].items():
        values, mask = np.asarray(x), np.asarray(example["masks"].get(name))
        if values.dtype.kind not in "biuf" or not values.ndim:
            raise _malformed(f"input {name!r} of {where} is not an array of numbers")
        if mask.dtype.kind != "b" or mask.shape != values.shape[:1]:
            raise _malformed(
                f"the mask of input {name!r} of {where} is {mask.dtype} {mask.shape}, "
                f"not bool {values.shape[:1]}"
            )


def mismatch(examples: Sequence[Example]) -> DataError:
    """Returns the error for examples that cannot be stacked."""
    for part in ("inputs", "masks", "labels"):
        names = [set(example[part]) for example in examples]
        if any(one != names[0] for one in names):
            return _malformed(f"examples of a batch differ in the names of {part}")
        for name in names[0]:
            shapes = sorted({np.shape(example[part][name]) for example in examples})
            if len(shapes) > 1:
                return _malformed(
                    f"{part} {name!r} of examples of a batch have the shapes "
                    f"{shapes[0]} and {shapes[1]}"
                )
    return _malformed("the examples of a batch cannot be stacked")


def _malformed(message: str) -> DataError:
    return DataError(
        "D25",
        f"{message}.",
        "see `Example` in mmfusion_jax/data/dataset.py; all examples have the same "
        "shapes, shorter clips are padded and masked",
    )
