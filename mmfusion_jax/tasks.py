"""Label types: head size, metrics and constant baseline.

Example:
    >>> import mmfusion_jax as mmf
    >>> task = mmf.tasks.Classification("emotion", ("happy", "sad"))
    >>> task.head_size, task.metrics().label
    (2, 'emotion')
    >>> target = mmf.data.RegressionTarget(-3, 3)
    >>> mmf.tasks.Regression("arousal", target).head_size
    1
"""

import dataclasses
import inspect
import pkgutil
from typing import Protocol

import numpy as np

from mmfusion_jax.data.dataset import RegressionTarget
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    join_names,
    shorten,
    shown,
    shown_name,
    suggest,
)
from mmfusion_jax.metrics import METRIC_FAMILIES
from mmfusion_jax.metrics.classification import ClassificationMetrics
from mmfusion_jax.metrics.extended import check_extra_metrics, extended
from mmfusion_jax.metrics.integration_score import (
    IntegrationMetrics,
    IntegrationScoreSpec,
)
from mmfusion_jax.metrics.multilabel import MultilabelMetrics
from mmfusion_jax.metrics.score_info import Collected, Metrics, ScoreInfo
from mmfusion_jax.results.model_result import Baseline, Pairs, PlotData, TaskInfo


class Task(Protocol):
    """Names its label, head size and metrics."""

    @property
    def label(self) -> str: ...

    @property
    def head_size(self) -> int: ...

    def metrics(self) -> Metrics:
        """Returns the metrics of the label and `extra_metrics`."""
        ...

    def check(self, labels: np.ndarray, split: str) -> None:
        """Raises DataError for invalid labels, which could be trained on silently."""
        ...

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        """Returns the best constant prediction: its description and its value, (k)."""
        ...

    def prior(self, train: np.ndarray) -> np.ndarray:
        """Returns the prediction for an example without any modality, (k) or ()."""
        ...

    def info(self) -> TaskInfo:
        """Returns what a report needs to know of the label."""
        ...

    def plot_data(self, collected: Collected) -> PlotData:
        """Returns the predictions as a report plots them."""
        ...


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class out of k.

    Attributes:
        label: Name of the label, (b) int.
        classes: Names of the classes, by index.
        integration: The parts of MIS; None without MIS.
        extra_metrics: Metrics in addition to those of a classifier.
    """

    label: str
    classes: tuple[str, ...]
    integration: IntegrationScoreSpec | None = None
    extra_metrics: tuple[ScoreInfo, ...] = ()

    def __post_init__(self):
        k = len(self.classes)
        example = {"prediction": np.zeros((2, k)), "truth": np.zeros(2, int)}
        if self.integration is not None:
            m = len(self.integration.modalities)
            example["alone"] = np.zeros((2, m, k))
            example["present"] = np.ones((2, m), bool)
        check_extra_metrics(self.label, self._family, self.extra_metrics, example)

    @property
    def head_size(self) -> int:
        return len(self.classes)

    def metrics(self) -> Metrics:
        return extended(self._family, self.extra_metrics)

    def check(self, labels: np.ndarray, split: str) -> None:
        k = len(self.classes)
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                "D11",
                f"label {shown(self.label)} of split {shown(split)} has type "
                f"{labels.dtype.name}, but classes must be integers 0..{k - 1}.",
                "choose another label, or give class names in the labels file",
            )
        bad = np.flatnonzero((labels < 0) | (labels >= k))
        if bad.size:
            raise DataError(
                "D11",
                f"label {shown(self.label)} of split {shown(split)}, example "
                f"{bad[0]:d}: class {shown(labels[bad[0]])} is not in 0..{k - 1}.",
                f"there are {k} classes: {join_names(self.classes)}",
            )

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        # The majority class has the highest accuracy of all constant predictions.
        majority = int(np.bincount(train, minlength=len(self.classes)).argmax())
        description = f"majority class: “{shown_name(self.classes[majority])}”"
        return description, np.eye(len(self.classes))[majority]

    def prior(self, train: np.ndarray) -> np.ndarray:
        """Returns the logarithms of the class frequencies."""
        # As logits: their softmax is the frequency of the classes.
        return _log(np.bincount(train, minlength=len(self.classes)) / len(train))

    def info(self) -> TaskInfo:
        return TaskInfo(self.label, "classification", classes=list(self.classes))

    def plot_data(self, collected: Collected) -> PlotData:
        return PlotData(confusion=self._plain.confusion(collected).tolist())

    @property
    def _plain(self) -> ClassificationMetrics:
        return ClassificationMetrics(self.label, len(self.classes))

    @property
    def _family(self) -> Metrics:
        if self.integration is None:
            return self._plain
        return IntegrationMetrics(self._plain, self.integration)


@dataclasses.dataclass(frozen=True)
class Regression:
    """One number.

    Attributes:
        label: Name of the label, (b) float.
        target: Its range, its neutral value and its family of metrics.
        extra_metrics: Metrics in addition to those of the family.
    """

    label: str
    target: RegressionTarget
    extra_metrics: tuple[ScoreInfo, ...] = ()

    def __post_init__(self):
        example = {"prediction": np.zeros(2), "truth": np.zeros(2)}
        check_extra_metrics(self.label, self._family, self.extra_metrics, example)

    @property
    def head_size(self) -> int:
        return 1

    def metrics(self) -> Metrics:
        return extended(self._family, self.extra_metrics)

    def check(self, labels: np.ndarray, split: str) -> None:
        low, high = self.target.low, self.target.high
        bad = np.flatnonzero(~((labels >= low) & (labels <= high)))
        if bad.size:
            raise DataError(
                "D11",
                f"label {shown(self.label)} of split {shown(split)}, example "
                f"{bad[0]:d}: {shown(labels[bad[0]])} is not in {low:g}..{high:g}.",
                "fix the labels, or leave these examples out",
            )

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        # The median has the smallest mean absolute error of all constant predictions.
        median = np.asarray(np.median(train), np.float32)
        return f"training median: {median:.2f}", median

    def prior(self, train: np.ndarray) -> np.ndarray:
        """Returns the median."""
        return self.constant_baseline(train)[1]

    def info(self) -> TaskInfo:
        limits = (self.target.low, self.target.high)
        target = {"family": self.target.family, "neutral": self.target.neutral}
        return TaskInfo(self.label, "regression", range=limits, **target)

    def plot_data(self, collected: Collected) -> PlotData:
        rounded = lambda x: np.asarray(x, np.float64).round(4).tolist()
        pairs = Pairs(rounded(collected["truth"]), rounded(collected["prediction"]))
        return PlotData(pairs=pairs)

    @property
    def _family(self) -> Metrics:
        name = self.target.family
        if name not in METRIC_FAMILIES and ":" not in name:
            raise ConfigError(
                "C03",
                f"label {shown(self.label)} has the metric family {shown(name)}, "
                f"which is unknown; {suggest(name, METRIC_FAMILIES)}",
            )
        try:
            family = pkgutil.resolve_name(METRIC_FAMILIES.get(name, name))
        except (ImportError, AttributeError, ValueError) as error:
            message = (
                f"the metric family {shown(name)} cannot be imported: {shorten(error)}."
            )
            raise ConfigError("C32", message) from error
        offered = {"label": self.label, "neutral": self.target.neutral}
        accepted = inspect.signature(family).parameters
        return family(**{k: v for k, v in offered.items() if k in accepted})


@dataclasses.dataclass(frozen=True)
class Multilabel:
    """Several binary labels at once, with two logits each.

    Attributes:
        label: Name of the label, (b j) int 0 or 1.
        flags: Names of the flags.
        extra_metrics: Metrics in addition to those of flags.
    """

    label: str
    flags: tuple[str, ...]
    extra_metrics: tuple[ScoreInfo, ...] = ()

    def __post_init__(self):
        j = len(self.flags)
        example = {"prediction": np.zeros((2, 2 * j)), "truth": np.zeros((2, j), int)}
        family = MultilabelMetrics(self.label, self.flags)
        check_extra_metrics(self.label, family, self.extra_metrics, example)

    @property
    def head_size(self) -> int:
        return 2 * len(self.flags)

    def metrics(self) -> Metrics:
        family = MultilabelMetrics(self.label, self.flags)
        return extended(family, self.extra_metrics)

    def check(self, labels: np.ndarray, split: str) -> None:
        bad = np.flatnonzero(~np.isin(labels, (0, 1)).all(axis=1))
        if bad.size:
            raise DataError(
                "D11",
                f"label {shown(self.label)} of split {shown(split)}, example "
                f"{bad[0]:d}: the flags are {shown(labels[bad[0]].tolist())}, but "
                "each must be 0 or 1.",
                f"there are {len(self.flags)} flags: {join_names(self.flags)}",
            )

    def constant_baseline(self, train: np.ndarray) -> tuple[str, np.ndarray]:
        majority = (train.mean(axis=0) > 0.5).astype(int)
        return "majority answer of each flag", np.eye(2)[majority].ravel()

    def prior(self, train: np.ndarray) -> np.ndarray:
        """Returns the logarithms of the frequencies of 0 and 1 of each flag."""
        positive = train.mean(axis=0)
        return _log(np.stack([1 - positive, positive], axis=-1)).ravel()

    def info(self) -> TaskInfo:
        return TaskInfo(self.label, "multilabel", flags=list(self.flags))

    def plot_data(self, collected: Collected) -> PlotData:
        return PlotData()


def _log(frequency: np.ndarray) -> np.ndarray:
    """Returns logarithms in float32; that of 0 is the one of 1e-9."""
    return np.log(np.maximum(frequency, 1e-9)).astype(np.float32)


def constant_baseline_scores(
    task: Task, train: np.ndarray, test: np.ndarray
) -> Baseline:
    """Returns the constant baseline of the labels `train`, and its scores on `test`."""
    description, constant = task.constant_baseline(train)
    y_pred = np.broadcast_to(constant, (len(test), *np.shape(constant)))
    scores = task.metrics().scores({"prediction": y_pred, "truth": test})
    return Baseline(description, {**scores})
