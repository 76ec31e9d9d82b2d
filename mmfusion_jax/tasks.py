"""What a label means: the size of the head, the loss, the metrics."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from mmfusion_jax.errors import DataError
from mmfusion_jax.losses.supervised import CrossEntropy
from mmfusion_jax.metrics.classification import ClassificationScores, majority
from mmfusion_jax.types import Array, Batch, LossTerm, Outputs


class Scores(Protocol):
    """A metric family: sums on the device, scores on the host.

    Attributes:
        DEFINITIONS: name of a score -> what it is, in words.
    """

    DEFINITIONS: ClassVar[Mapping[str, str]]

    def sums(self, outputs: Outputs, batch: Batch) -> dict[str, Array]: ...

    def scores(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]: ...


class Task(Protocol):
    """Names its label, head size, loss and metrics."""

    @property
    def label(self) -> str: ...

    @property
    def head_size(self) -> int: ...

    @property
    def select(self) -> str: ...

    def loss(self) -> LossTerm: ...

    def scores(self) -> Scores: ...

    def check(self, labels: np.ndarray, split: str) -> None: ...

    def baseline(self, train: np.ndarray, test: np.ndarray) -> dict[str, float]: ...


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class out of k.

    Attributes:
        label: name of the label.
        classes: names of the classes, in the order of their numbers.
        select: the validation score that chooses the step.
    """

    label: str
    classes: tuple[str, ...]
    select: str = "accuracy"

    kind: ClassVar[str] = "classification"

    @property
    def head_size(self) -> int:
        return len(self.classes)

    def loss(self) -> LossTerm:
        return CrossEntropy(self.label)

    def scores(self) -> ClassificationScores:
        return ClassificationScores(self.label, len(self.classes))

    def check(self, labels: np.ndarray, split: str) -> None:
        """Raises DataError for labels that would train silently and wrongly."""
        k = len(self.classes)
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                "D11",
                f"label {self.label!r} of split {split!r} is {labels.dtype}, but a "
                f"class is an integer 0..{k - 1}.",
                "choose another label, or give class names in the labels file",
            )
        bad = np.flatnonzero((labels < 0) | (labels >= k))
        if bad.size:
            raise DataError(
                "D11",
                f"label {self.label!r} of split {split!r}, example {bad[0]}: class "
                f"{labels[bad[0]]} is not in 0..{k - 1}.",
                f"there are {k} classes: {', '.join(self.classes)}",
            )

    def baseline(self, train: np.ndarray, test: np.ndarray) -> dict[str, Any]:
        """What always saying the commonest class of the training split scores."""
        common = int(np.bincount(train, minlength=len(self.classes)).argmax())
        return {"class": self.classes[common], "accuracy": majority(train, test)}
