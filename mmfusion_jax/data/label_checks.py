"""Finds labels that a model cannot learn from, or that make metrics undefined."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mmfusion_jax.errors import join_names, shown, shown_name

TRAIN = "train"
EVALUATED = ("valid", "test")


def label_warnings(
    labels: Mapping[str, np.ndarray], label: str, names: Sequence[str] = ()
) -> list[str]:
    """Returns what is constant or absent in the labels of splits, one sentence each.

    A training on such labels runs to its end: the model learns a constant, and metrics
    such as the correlation are not defined.

    Example:
        >>> import numpy as np
        >>> from mmfusion_jax.data.label_checks import label_warnings
        >>> labels = {"train": np.array([0, 0, 0]), "test": np.array([0, 1])}
        >>> for line in label_warnings(labels, "emotion", ("happy", "sad")):
        ...     print(line)
        train: all 3 examples have the class 'happy' of label 'emotion'
        class 'sad' of label 'emotion' is in test, but not in train

    Args:
        labels: Split -> its labels: classes (n) int, scores (n) float, or flags (n j) 0
            or 1. Splits without examples, and NaN, are not considered.
        label: Name of the label.
        names: Classes or flags by index; () for scores.
    """
    arrays = {split: np.asarray(x) for split, x in labels.items() if len(x)}
    if any(x.ndim == 2 for x in arrays.values()):
        return [*_flag_warnings(arrays, label, names)]
    constant = [*_constant_warnings(arrays, label, names)]
    return constant + ([*_class_warnings(arrays, label, names)] if names else [])


def _constant_warnings(
    arrays: Mapping[str, np.ndarray], label: str, names: Sequence[str]
) -> Iterator[str]:
    """Yields the splits of several examples in which all labels are equal."""
    for split, values in arrays.items():
        if len(values) < 2 or not (values == values[0]).all():
            continue
        if names:
            what = f"the class {shown(_name(names, int(values[0])))} of label"
            yield f"{split}: all {len(values)} examples have {what} {shown(label)}"
        else:
            what = f"all {len(values)} examples"
            yield f"{split}: label {shown(label)} is {shown(values[0])} in {what}"


def _class_warnings(
    arrays: Mapping[str, np.ndarray], label: str, names: Sequence[str]
) -> Iterator[str]:
    """Yields the classes that occur in an evaluated split, but not in training."""
    if TRAIN not in arrays:
        return
    known = set(arrays[TRAIN].tolist())
    for index, name in enumerate(names):
        splits = [s for s in EVALUATED if s in arrays and (arrays[s] == index).any()]
        if splits and index not in known:
            where = join_names(splits)
            yield (
                f"class {shown(name)} of label {shown(label)} is in {where}, "
                f"but not in {TRAIN}"
            )


def _flag_warnings(
    arrays: Mapping[str, np.ndarray], label: str, names: Sequence[str]
) -> Iterator[str]:
    """Yields the flags that have one value in all examples of a split."""
    for split, rows in arrays.items():
        if len(rows) < 2:
            continue
        for value, what in ((0, "never set"), (1, "always set")):
            columns = np.flatnonzero((rows == value).all(axis=0))
            if columns.size:
                listed = join_names(_name(names, int(i)) for i in columns)
                yield (
                    f"{split}: flags of label {shown(label)} that are {what} in "
                    f"{len(rows)} examples: {listed}"
                )


def _name(names: Sequence[str], index: int) -> str:
    """Returns the name of a class or flag, or its number if it does not have one."""
    return shown_name(names[index]) if 0 <= index < len(names) else str(index)
