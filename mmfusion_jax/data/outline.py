"""Dataset outlines: classes, sizes and example shapes without the files.

Every loader declares an `outline`, which takes the same options and reads no file.
`--mode=inspect` and the tests of configs use it.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.data.dataset import Dataset, Example, RegressionTarget

Shape = tuple[tuple[int, ...], str]
"""The shape of one example, (t ...), and the name of its dtype."""


@dataclasses.dataclass(frozen=True)
class Zeros:
    """Examples of known shapes in which every step is valid and every value is 0.

    Attributes:
        count: Number of examples.
        inputs: Modality -> shape and dtype.
        labels: Name -> shape and dtype.
    """

    count: int
    inputs: Mapping[str, Shape]
    labels: Mapping[str, Shape]

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self.count:
            raise IndexError(f"{index} is not in 0..{self.count - 1}.")
        return {
            "inputs": {name: np.zeros(*shape) for name, shape in self.inputs.items()},
            "masks": {
                name: np.ones(shape[0], bool)
                for name, (shape, _) in self.inputs.items()
            },
            "labels": {name: np.zeros(*shape) for name, shape in self.labels.items()},
            "weight": np.float32(1),
        }


def outline_dataset(
    name: str,
    title: str,
    counts: Mapping[str, int],
    inputs: Mapping[str, Shape],
    *,
    classes: Mapping[str, tuple[str, ...]] | None = None,
    values: Mapping[str, RegressionTarget] | None = None,
    flags: Mapping[str, tuple[str, ...]] | None = None,
) -> Dataset:
    """Returns a Dataset of which only shapes, classes and sizes are known.

    Example:
        >>> import mmfusion_jax as mmf
        >>> data = mmf.data.outline_dataset(
        ...     "tones",
        ...     "Tones",
        ...     {"train": 8},
        ...     {"audio": ((20, 4), "float32")},
        ...     classes={"pitch": ("low", "high")},
        ... )
        >>> len(data.source("train")), data.source("train")[0]["masks"]["audio"].shape
        (8, (20,))

    Args:
        name: The word after the colon of a config.
        title: Its name in results.
        counts: Split -> number of examples, as published.
        inputs: Modality -> shape and dtype of an example.
        classes: Label name -> class names.
        values: Label name -> meaning of a numeric label.
        flags: Label name -> names of the flags of a multilabel target.
    """
    classes, values, flags = classes or {}, values or {}, flags or {}
    labels: dict[str, Shape] = {label: ((), "int32") for label in classes}
    labels |= {label: ((), "float32") for label in values}
    labels |= {label: ((len(names),), "int32") for label, names in flags.items()}
    return Dataset(
        name,
        title,
        {split: Zeros(count, inputs, labels) for split, count in counts.items()},
        classes,
        values=values,
        flags=flags,
    )
