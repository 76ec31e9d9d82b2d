"""Loads a trained run and predicts new examples."""

import functools
import itertools
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np

from mmfusion_jax.analysis.diagnosis import leave_out
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    UserError,
    join_names,
    shorten,
    shown,
    shown_name,
    type_name,
)
from mmfusion_jax.inference.clip_inputs import (
    ClipInput,
    expand_clips,
    has_features,
)
from mmfusion_jax.inference.prediction import Prediction, PredictionBuilder
from mmfusion_jax.inference.program import PLATFORMS, predict_batch
from mmfusion_jax.inference.raw_example import RawExample, ReadInput, UnusableInput
from mmfusion_jax.inference.raw_inputs import MAX_LISTED, InputReader
from mmfusion_jax.inference.trained_run import TrainedRun, read_trained_run
from mmfusion_jax.paths import local_path
from mmfusion_jax.types import Batch, Outputs, PyTree

if TYPE_CHECKING:
    from mmfusion_jax.inference.evaluation import DataEvaluation
    from mmfusion_jax.inference.export_run import Exported

BATCH_SIZE = 8


def load(
    path: str | PathLike[str],
    *,
    batch_size: int = BATCH_SIZE,
    packages: Collection[str] = (),
    workers: int | None = None,
) -> "Predictor":
    """Loads a trained model; its training data are not needed.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     predictor = mmf.load("runs/nothing")
        ...     print(predictor.predict("new.mp4")[0].label)
        ... except mmf.CheckpointError as error:
        ...     print(error.code)
        K09

    Args:
        path: The workdir of a training, or the folder of one of its runs. Of several
            seeds, the one with the best validation score is loaded.
        batch_size: Number of examples that are computed at once. The model is compiled
            once for this number; fewer examples are padded.
        packages: Other packages whose parts the config of the run may name. Loading
            runs their code.
        workers: Number of processes that decode clips; None chooses one, 0 decodes in
            this process, where a decoder that crashes ends it.

    Raises:
        CheckpointError: The folder has no trained run, or a file of it is corrupted.
        ConfigError: The config names a part of another package.
    """
    if not isinstance(path, str | PathLike):
        raise ConfigError("C10", f"path is {type_name(path)}.", "a path")
    _check_count("batch_size", batch_size, 1)
    if workers is not None:
        _check_count("workers", workers, 0)
    packages = (packages,) if isinstance(packages, str) else packages
    return Predictor(
        read_trained_run(local_path("path", path), packages), batch_size, workers
    )


def _check_count(name: str, value: Any, minimum: int) -> None:
    """Raises ConfigError unless an argument is an integer of at least `minimum`."""
    if not isinstance(value, int) or value < minimum:
        raise ConfigError(
            "C10", f"{shown_name(name)}={shown(value)} must be at least {minimum}."
        )


class Predictor:
    """A trained model with the preprocessing of its data; see `load`.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     predictor = mmf.load("runs/nothing")
        ...     (prediction,) = predictor.predict("new.mp4", leave_out=["audio"])
        ... except mmf.UserError as error:
        ...     print(error.code)
        K09

    Attributes:
        run: The run that it was loaded from.
        model: Maps a Batch to Outputs.
        variables: Its variables: "params" and "batch_stats".
        batch_size: Number of examples that are computed at once.
        reader: Reads files and arrays as in the training.
    """

    def __init__(self, run: TrainedRun, batch_size: int, workers: int | None = None):
        self.run = run
        self.model = run.model
        self.variables = run.variables
        self.batch_size = batch_size
        self.reader = InputReader(run.spec, run.info, workers)
        self._step = jax.jit(self._outputs)

    @property
    def labels(self) -> list[str]:
        """Names of the classes or flags, by index; [] for a score."""
        task = self.run.info.task
        return [*task.classes, *task.flags]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model reads."""
        return self.run.spec.model.modalities

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the run, as JSON values."""
        return self.run.spec.source

    @property
    def params(self) -> PyTree:
        """The parameters of the model."""
        return self.variables["params"]

    def apply(self, variables: PyTree, batch: Batch) -> Outputs:
        """Maps variables and a batch to outputs, without training; a pure function.

        Args:
            variables: Such as `self.variables`.
            batch: Scaled and padded examples.
        """
        return self.model.apply(variables, batch, train=False)

    def export(
        self,
        out: str | PathLike[str],
        *,
        batch_sizes: Sequence[int] = (),
        platforms: Sequence[str] = PLATFORMS,
    ) -> "Exported":
        """Exports the model to a new folder, see `mmfusion_jax.export`.

        Args:
            out: The folder to write; it does not exist, or is empty.
            batch_sizes: Write a program for each of these numbers of examples too.
            platforms: Platforms of JAX that the programs are for.
        """
        from mmfusion_jax.inference.export_run import export

        return export(self, out, batch_sizes=batch_sizes, platforms=platforms)

    def predict(
        self,
        inputs: Any,
        *,
        masks: Mapping[str, Any] | None = None,
        leave_out: Sequence[str] = (),
        coverage: float = 0.9,
        explain: bool = True,
        errors: Literal["raise", "return"] = "raise",
    ) -> list[Prediction]:
        """Returns the prediction for every example, in the order of the inputs.

        Args:
            inputs: One of

                - a path, or a `ClipInput`: a video or audio file, a folder of these, a
                  labels.csv, or a feature file,
                - a sequence of these,
                - arrays by modality, without scaling: (t ...) of one example, (n t ...)
                  of several, or a sequence of (t ...) or None; a modality that is left
                  out, or None, is missing,
                - a `Batch` of scaled and padded examples.
            masks: Valid steps of arrays by modality, (t) or (n t) bool.
            leave_out: Modalities to ignore.
            coverage: Nominal coverage of the prediction sets and intervals, 0..1.
            explain: Compute the prediction without each modality too.
            errors: "raise" raises an error if any example cannot be used; "return"
                returns a prediction with the attribute `error` for each of these.

        Raises:
            DataError: An input cannot be read, or does not fit the model.
            ConfigError: An argument is out of range.
        """
        leave_out = (leave_out,) if isinstance(leave_out, str) else leave_out
        self._check_arguments(leave_out, coverage, errors)
        task, calibration = self.run.info.task, self.run.calibration
        builder = PredictionBuilder(task, calibration, coverage)
        found: list[Prediction] = []
        unusable: list[UserError] = []
        for part in self._parts(self.read(inputs, masks)):
            usable = [one for one in part if isinstance(one, RawExample)]
            made = iter(self._predict_batch(builder, usable, leave_out, explain))
            for one in part:
                if isinstance(one, UnusableInput):
                    unusable.append(one.error)
                    found.append(Prediction(id=one.id, error=str(one.error.args[0])))
                    continue
                found.append(next(made))
                if found[-1].error:
                    unusable.append(_not_finite(found[-1]))
        if not found:
            raise DataError("D26", "the inputs have no example.")
        if unusable and errors == "raise":
            raise unusable_error(unusable, len(found))
        return found

    def evaluate(
        self,
        data: Any,
        *,
        labels: Any = None,
        masks: Mapping[str, Any] | None = None,
        split: str = "",
    ) -> "DataEvaluation":
        """Scores labeled data, which may be new.

        Args:
            data: A folder with labels.csv, such a table, a feature file, or an .npz
                file with arrays by modality and the label; or arrays by modality, or a
                `Batch` with the label.
            labels: Labels of arrays by modality: names of classes or their indices,
                scores, or flags (n j).
            masks: Valid steps of arrays by modality, (n t) bool.
            split: Split of data that have several; "" is "test" if there is one.

        Raises:
            DataError: The data cannot be read, have other classes, or no example that
                can be used.
        """
        from mmfusion_jax.inference.evaluation import evaluate_data  # imports this

        return evaluate_data(self, data, labels=labels, masks=masks, split=split)

    def _check_arguments(
        self, leave_out: Sequence[str], coverage: Any, errors: str
    ) -> None:
        """Raises ConfigError for an argument of `predict` that is out of range."""
        if not isinstance(coverage, int | float) or not 0 < coverage < 1:
            raise ConfigError(
                "C10", f"coverage={shown(coverage)} must be above 0 and below 1."
            )
        if errors not in ("raise", "return"):
            raise ConfigError("C10", f"errors={shown(errors)} must be raise or return.")
        for name in leave_out:
            if name not in self.modalities:
                raise ConfigError(
                    "C03",
                    f"leave_out: {shown(name)} is not a modality of the model.",
                    f"it reads {join_names(self.modalities)}",
                )

    def score_without(self, missing: Sequence[str]) -> str:
        """Returns the test score without some modalities, for a sentence.

        Args:
            missing: Modalities that an example does not have.

        Returns:
            Such as ": test accuracy without audio is 0.71, and 0.90 with all"; "" if
            it was not measured.
        """
        scores = self.run.scores
        if scores is None or len(missing) != 1:
            return ""
        left, score = scores.without.get(missing[0]), scores.score
        if left is None or score is None:
            return ""
        return (
            f": test {shown_name(scores.metric)} without "
            f"{shown_name(missing[0])} is {left:.3g}, and {score:.3g} with all"
        )

    def _parts(self, examples: Iterable[ReadInput]) -> Iterator[list[ReadInput]]:
        """Yields the examples in parts with at most `batch_size` usable ones."""
        part: list[ReadInput] = []
        for one in examples:
            part.append(one)
            usable = sum(isinstance(one, RawExample) for one in part)
            if usable == self.batch_size:
                yield part
                part = []
        if part:
            yield part

    def read(
        self, inputs: Any, masks: Mapping[str, Any] | None = None
    ) -> Iterator[ReadInput]:
        """Yields the examples of all kinds of inputs, see `predict`.

        Args:
            inputs: The inputs.
            masks: Valid steps of arrays by modality.

        Raises:
            DataError: The inputs are not of a kind that can be read.
        """
        if masks is not None and not isinstance(inputs, Mapping):
            raise DataError(
                "D26", "masks are those of arrays by modality.", "without masks"
            )
        if isinstance(inputs, Batch):
            yield from self._rows(inputs)
            return
        if isinstance(inputs, Mapping):
            yield from self.reader.read_arrays(inputs, masks)
            return
        if isinstance(inputs, str | PathLike | ClipInput):
            inputs = [inputs]
        if not isinstance(inputs, Sequence) or isinstance(inputs, bytes):
            raise DataError(
                "D26",
                f"inputs is {type_name(inputs)}.",
                "a path, a ClipInput, arrays by modality, a Batch, or a sequence of "
                "paths",
            )
        yield from self._of_paths(inputs)

    def expand(self, inputs: Sequence[Any]) -> "Iterator[Path | ClipInput]":
        """Yields the feature files and clips that paths and clips stand for."""
        for one in inputs:
            if isinstance(one, ClipInput):
                yield one
            elif isinstance(one, str | PathLike):
                path = local_path("inputs", one)
                if has_features(path):
                    yield path
                else:
                    yield from expand_clips(path, self.reader.text_column)
            else:
                raise DataError(
                    "D26", f"inputs has {type_name(one)}.", "a path or a ClipInput"
                )

    def _of_paths(self, inputs: Sequence[Any]) -> Iterator[ReadInput]:
        """Yields the examples of paths and clips; clips are decoded together."""
        expanded = [*self.expand(inputs)]
        for _, group in itertools.groupby(expanded, type):
            part = [*group]
            if clips := [one for one in part if isinstance(one, ClipInput)]:
                yield from self.reader.read_clips(clips)
                continue
            for path in part:
                assert not isinstance(path, ClipInput)  # all have one type
                try:
                    yield from self.reader.read_features(path)
                except UserError as error:
                    if len(expanded) == 1:
                        raise
                    yield UnusableInput(str(path), error)

    def _rows(self, batch: Batch) -> list[RawExample]:
        """Returns the valid rows of a batch."""
        self.reader.check_batch(batch)
        batch = jax.device_get(batch)
        specs = self.run.info.inputs

        def row(i: int) -> RawExample:
            masks = {m: np.asarray(batch.masks[m][i], bool) for m in self.modalities}
            inputs = {
                m: np.asarray(batch.inputs[m][i], specs[m].dtype)
                for m in self.modalities
            }
            labels = {name: np.asarray(x[i]) for name, x in batch.labels.items()}
            return RawExample(str(i), inputs, masks, labels=labels)

        return [row(i) for i, weight in enumerate(batch.weight) if weight > 0]

    def _predict_batch(
        self,
        builder: PredictionBuilder,
        examples: Sequence[RawExample],
        leave_out: Sequence[str],
        explain: bool,
    ) -> list[Prediction]:
        """Returns the predictions for at most `batch_size` examples."""
        if not examples:
            return []
        batch = stack(examples, self.batch_size)
        for name in leave_out:
            batch = _leave_out(batch, name)
        present = {m: batch.masks[m].any(axis=1) for m in self.modalities}
        outputs = self._step(self._variables, batch)
        left = {}
        if explain and len(self.modalities) > 1:
            # Dispatched before anything is fetched, as all are independent.
            left = {
                m: self._step(self._variables, _leave_out(batch, m))
                for m in self.modalities
                if present[m].any()
            }
        outputs, left = jax.device_get((outputs, left))
        found = []
        for i, example in enumerate(examples):
            own = [m for m in self.modalities if present[m][i]]
            others = {m: x["prediction"][i] for m, x in left.items() if m in own}
            found.append(
                builder.build(
                    example.id,
                    outputs["prediction"][i],
                    weights={m: float(w[i]) for m, w in outputs["weights"].items()},
                    # Without its only modality nothing of the example would be left.
                    without=others if len(own) > 1 else {},
                    missing=[m for m in self.modalities if m not in own],
                    remarks=example.remarks,
                    known=bool(own),
                )
            )
        return found

    @functools.cached_property
    def _variables(self) -> PyTree:
        """The variables on the device, and the prediction without any modality."""
        prior = np.asarray(self.run.info.prior, np.float32)
        return jax.device_put((self.variables, prior))

    def _outputs(self, variables: PyTree, batch: Batch) -> PyTree:
        """Returns the prediction and the modality weights of every row."""
        variables, prior = variables
        return predict_batch(self.model, variables, prior, batch, self.modalities)


_leave_out = leave_out
"""The name of an argument of `predict`, too."""


def stack(examples: Sequence[RawExample], size: int) -> Batch:
    """Returns a batch of `size` rows, of which the last ones may be padding."""
    rows = [*examples, *[examples[0]] * (size - len(examples))]
    stack: Callable[[str], dict[str, Any]] = lambda part: {
        name: np.stack([getattr(row, part)[name] for row in rows])
        for name in examples[0].inputs
    }
    weight: Any = (np.arange(size) < len(examples)).astype(np.float32)
    masks = {
        name: mask & (weight > 0)[:, None] for name, mask in stack("masks").items()
    }
    return Batch(stack("inputs"), masks, weight=weight)


def unusable_error(unusable: Sequence[UserError], total: int) -> UserError:
    """Returns the error for examples that cannot be used.

    Args:
        unusable: The reason for each of them.
        total: Number of all examples.
    """
    if total == 1:
        return unusable[0]
    lines = [f"  {shorten(error.args[0])}" for error in unusable]
    return DataError(
        "D43",
        f"{len(unusable)} of {total} examples cannot be used:\n"
        + "\n".join(lines[:MAX_LISTED]),
        'leave them out, or replace them; errors="return" predicts the others',
    )


def _not_finite(prediction: Prediction) -> DataError:
    """Returns the error for an example whose prediction is not finite."""
    return DataError(
        "D72",
        f"{shorten(prediction.id)}: {shorten(prediction.error)}.",
        "look for very large values in it",
    )
