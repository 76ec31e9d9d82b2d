"""What a label means: the size of the head, the scores, the answer to beat."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from mmfusion_jax.data.dataset import RegressionTarget
from mmfusion_jax.errors import DataError
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.metrics.integration_score import (
    IntegrationMetrics,
    IntegrationScoreSpec,
)
from mmfusion_jax.metrics.multilabel import MultilabelMetrics
from mmfusion_jax.metrics.regression import RegressionMetrics
from mmfusion_jax.metrics.sentiment import SentimentMetrics
from mmfusion_jax.metrics.sims import SimsMetrics
from mmfusion_jax.types import Array, Batch, Outputs


class Scores(Protocol):
    """A metric family: collects on the device, scores on the host.

    Attributes:
        DEFINITIONS: name of a score -> what it is, in words.
    """

    @property
    def DEFINITIONS(self) -> Mapping[str, str]: ...

    def collect(self, outputs: Outputs, batch: Batch) -> dict[str, Array]: ...

    def scores(self, collected: Mapping[str, np.ndarray]) -> dict[str, float]: ...


class Task(Protocol):
    """Names its label, head size and scores."""

    @property
    def label(self) -> str: ...

    @property
    def head_size(self) -> int: ...

    def scores(self) -> Scores: ...

    def check(self, labels: np.ndarray, split: str) -> None:
        """Raises DataError for labels that would train silently and wrongly."""
        ...

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        """The best answer that looks at no input: in words, and as a prediction (k)."""
        ...

    def prior(self, train: np.ndarray) -> np.ndarray:
        """The prediction for an example of which nothing is there, (k) or ()."""
        ...

    def to_json(self) -> dict[str, Any]:
        """What a report says of it, as JSON values."""
        ...

    def plot_data(self, collected: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """What a report draws of the answers, as JSON values."""
        ...


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class out of k.

    Attributes:
        label: name of the label, (b) int.
        classes: names of the classes, in the order of their numbers.
        integration: what MIS is made of; None where modalities say nothing alone.
    """

    label: str
    classes: tuple[str, ...]
    integration: IntegrationScoreSpec | None = None

    @property
    def head_size(self) -> int:
        return len(self.classes)

    def scores(self) -> ClassificationMetrics | IntegrationMetrics:
        plain = ClassificationMetrics(self.label, len(self.classes))
        if self.integration is None:
            return plain
        return IntegrationMetrics(plain, self.integration)

    def check(self, labels: np.ndarray, split: str) -> None:
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

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        common = int(np.bincount(train, minlength=len(self.classes)).argmax())
        return f"always “{self.classes[common]}”", np.eye(len(self.classes))[common]

    def prior(self, train: np.ndarray) -> np.ndarray:
        """The logarithm of how often each class occurs."""
        return _log(np.bincount(train, minlength=len(self.classes)) / len(train))

    def to_json(self) -> dict[str, Any]:
        return {"kind": "classification", "classes": list(self.classes)}

    def plot_data(self, collected: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {"confusion": self.scores().confusion(collected).tolist()}


METRIC_FAMILIES = {"sentiment": SentimentMetrics, "sims": SimsMetrics}
"""What the scores of a field are; every other number has plain ones."""


@dataclasses.dataclass(frozen=True)
class Regression:
    """One number.

    Attributes:
        label: name of the label, (b) float.
        target: its range, its neutral value, the scores that are usual.
    """

    label: str
    target: RegressionTarget

    @property
    def head_size(self) -> int:
        return 1

    def scores(self) -> Scores:
        family = METRIC_FAMILIES.get(self.target.family)
        if family is None:
            return RegressionMetrics(self.label, self.target.neutral)
        return family(self.label)

    def check(self, labels: np.ndarray, split: str) -> None:
        low, high = self.target.low, self.target.high
        bad = np.flatnonzero(~((labels >= low) & (labels <= high)))
        if bad.size:
            raise DataError(
                "D11",
                f"label {self.label!r} of split {split!r}, example {bad[0]}: "
                f"{labels[bad[0]]} is not in {low:g}..{high:g}.",
                "repair the labels, or leave these examples out",
            )

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        median = np.asarray(np.median(train), np.float32)
        return f"always the training median, {median:.2f}", median

    def prior(self, train: np.ndarray) -> np.ndarray:
        """The median."""
        return self.constant_baseline(train)[1]

    def to_json(self) -> dict[str, Any]:
        return {"kind": "regression", "range": [self.target.low, self.target.high]}

    def plot_data(self, collected: Mapping[str, np.ndarray]) -> dict[str, Any]:
        rounded = lambda x: np.asarray(x, np.float64).round(4).tolist()
        pairs = {k: rounded(collected[k]) for k in ("truth", "prediction")}
        return {"pairs": pairs}


@dataclasses.dataclass(frozen=True)
class Multilabel:
    """Several yes or no at once, with two logits each.

    Attributes:
        label: name of the label, (b j) int 0 or 1.
        flags: names of the flags.
    """

    label: str
    flags: tuple[str, ...]

    @property
    def head_size(self) -> int:
        return 2 * len(self.flags)

    def scores(self) -> MultilabelMetrics:
        return MultilabelMetrics(self.label, self.flags)

    def check(self, labels: np.ndarray, split: str) -> None:
        bad = np.flatnonzero(~np.isin(labels, (0, 1)).all(axis=1))
        if bad.size:
            raise DataError(
                "D11",
                f"label {self.label!r} of split {split!r}, example {bad[0]}: "
                f"{labels[bad[0]].tolist()} is not made of 0 and 1.",
                f"there are {len(self.flags)} flags: {', '.join(self.flags)}",
            )

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        common = (train.mean(axis=0) > 0.5).astype(int)
        return "always the commoner answer", np.eye(2)[common].ravel()

    def prior(self, train: np.ndarray) -> np.ndarray:
        """The logarithms of how often each flag is no and yes."""
        yes = train.mean(axis=0)
        return _log(np.stack([1 - yes, yes], axis=-1)).ravel()

    def to_json(self) -> dict[str, Any]:
        return {"kind": "multilabel", "flags": list(self.flags)}

    def plot_data(self, collected: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return {}


def _log(share: np.ndarray) -> np.ndarray:
    """Logarithms in float32; of 0 that of a billionth."""
    return np.log(np.maximum(share, 1e-9)).astype(np.float32)


UNDEFINED = "not_finite"
"""Entry of an evaluation that counts and names predictions that are not finite."""


def rows_are_finite(collected: Mapping[str, np.ndarray]) -> np.ndarray:
    """Whether every prediction of an example is finite, (n) bool.

    Args:
        collected: what an evaluation step collects: "prediction" (n ...), and of models
            whose modalities predict alone "alone" (n m k) and "present" (n m).
    """
    finite = lambda x: np.isfinite(x).reshape(len(x), -1).all(axis=1)
    good = finite(collected["prediction"])
    if "alone" in collected:
        alone, present = collected["alone"], collected["present"]
        good &= finite(np.where(present[..., None], alone, 0))
    return good


def compute_scores(
    task: Task, collected: Mapping[str, np.ndarray], shown: int = 5
) -> dict[str, Any]:
    """The scores of a split, all of them NaN if a prediction is not finite.

    A score of the finite ones alone would be that of other data, and thresholds and
    argmax turn NaN into a class.

    Args:
        task: whose scores.
        collected: what its scores collect of every real example, (n ...).
        shown: how many examples to name at most.

    Returns:
        The scores by name, and, if there is a prediction that is not finite, under
        `UNDEFINED` how many there are ("count"), of how many ("of"), and the numbers
        of the first ones in the split ("examples").
    """
    good = rows_are_finite(collected)
    if good.all():
        return {**task.scores().scores(collected)}
    zeros = {
        k: np.zeros_like(x) if np.issubdtype(x.dtype, np.floating) else x
        for k, x in collected.items()
    }
    bad = np.flatnonzero(~good)
    return {
        **dict.fromkeys(task.scores().scores(zeros), float("nan")),
        UNDEFINED: {
            "count": len(bad),
            "of": len(good),
            "examples": bad[:shown].tolist(),
        },
    }


def describe_undefined(split: str, scores: Mapping[str, Any]) -> str:
    """Why the scores of a split are not defined, in a sentence; "" if they are."""
    found = scores.get(UNDEFINED)
    if not found:
        return ""
    names = ", ".join(map(str, found["examples"]))
    more = ", ..." if found["count"] > len(found["examples"]) else ""
    return (
        f"{split}: the predictions of {found['count']} of {found['of']} examples are "
        f"not finite (number {names}{more}): its scores are not defined"
    )


def undefined_scores(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Which scores of runs, and of their unimodal stages, are not defined, and why.

    Args:
        entries: of runs, as `result.json` has them.
    """
    found = []
    for entry in entries:
        for name, stage in {"": entry, **entry.get("stages", {})}.items():
            place = f"fold {entry['fold']}, seed {entry['seed']}"
            place = f"{name} only, {place}" if name else place
            for split in ("train", "valid", "test", "last"):
                if line := describe_undefined(split, stage.get(split) or {}):
                    found.append(f"{place}, {line}")
    return found


def constant_baseline_scores(
    task: Task, train: np.ndarray, test: np.ndarray
) -> tuple[str, dict[str, float]]:
    """What the answer that looks at no input scores on the labels of `test`."""
    words, answer = task.constant_baseline(train)
    said = np.broadcast_to(answer, (len(test), *np.shape(answer)))
    return words, task.scores().scores({"prediction": said, "truth": test})
