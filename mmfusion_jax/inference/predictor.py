"""Loads a trained run and predicts new examples."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from mmfusion_jax.analysis.diagnosis import leave_out
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    join_names,
    shown,
    shown_name,
    type_name,
)
from mmfusion_jax.inference.prediction import Prediction, PredictionBuilder
from mmfusion_jax.inference.program import PLATFORMS, predict_batch
from mmfusion_jax.inference.raw_inputs import (
    ClipInput,
    InputReader,
    RawExample,
    expand_clips,
    has_features,
)
from mmfusion_jax.inference.trained_run import TrainedRun, read_trained_run
from mmfusion_jax.types import Batch, Outputs, PyTree

if TYPE_CHECKING:
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
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigError("C10", f"batch_size={shown(batch_size)} must be at least 1.")
    run = read_trained_run(Path(path).expanduser(), packages)
    return Predictor(run, batch_size, workers)


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
    """

    def __init__(self, run: TrainedRun, batch_size: int, workers: int | None = None):
        self.run = run
        self.model = run.model
        self.variables = run.variables
        self._batch_size = batch_size
        self._reader = InputReader(run.spec, run.info, workers)
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
    ) -> list[Prediction]:
        """Returns the prediction for every example.

        Args:
            inputs: One of

                - a path, or a `ClipInput`: a video or audio file, a folder of these, a
                  labels.csv, or a feature file,
                - a sequence of these,
                - arrays by modality, without scaling: (t ...) of one example, (n t ...)
                  of several, or a sequence of (t ...); a modality that is left out, or
                  None, is missing,
                - a `Batch` of scaled and padded examples.
            masks: Valid steps of arrays by modality, (t) or (n t) bool.
            leave_out: Modalities to ignore.
            coverage: Nominal coverage of the prediction sets and intervals, 0..1.
            explain: Compute the prediction without each modality too.

        Raises:
            DataError: An input cannot be read, or does not fit the model.
            ConfigError: An argument is out of range.
        """
        if not 0 < coverage < 1:
            raise ConfigError(
                "C10", f"coverage={shown(coverage)} must be above 0 and below 1."
            )
        for name in leave_out:
            if name not in self.modalities:
                raise ConfigError(
                    "C03",
                    f"leave_out: {shown(name)} is not a modality of the model.",
                    f"it reads {join_names(self.modalities)}",
                )
        task, calibration = self.run.info.task, self.run.calibration
        builder = PredictionBuilder(task, calibration, coverage)
        found = []
        for examples, batch in self._batches(inputs, masks):
            for name in leave_out:
                batch = _leave_out(batch, name)
            found += self._predict_batch(builder, examples, batch, explain)
        return found

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

    def _batches(
        self, inputs: Any, masks: Mapping[str, Any] | None
    ) -> Iterator[tuple[Sequence[RawExample], Batch]]:
        """Yields batches of `batch_size` rows, the last ones of weight 0."""
        examples = self._examples(inputs, masks)
        if not examples:
            raise DataError("D26", "the inputs have no example.")
        for start in range(0, len(examples), self._batch_size):
            part = examples[start : start + self._batch_size]
            yield part, _stack(part, self._batch_size)

    def _examples(
        self, inputs: Any, masks: Mapping[str, Any] | None
    ) -> Sequence[RawExample]:
        """Returns the examples of all kinds of inputs."""
        if isinstance(inputs, Batch):
            return self._rows(inputs)
        if isinstance(inputs, Mapping):
            return self._reader.read_arrays(inputs, masks)
        if isinstance(inputs, str | PathLike | ClipInput):
            inputs = [inputs]
        if not isinstance(inputs, Sequence):
            raise DataError(
                "D26",
                f"inputs is {type_name(inputs)}.",
                "a path, a ClipInput, arrays by modality, a Batch, or a sequence of "
                "paths",
            )
        return self._of_paths(inputs)

    def _of_paths(self, inputs: Sequence[Any]) -> list[RawExample]:
        """Returns the examples of paths and clips; clips are decoded together."""
        clips: list[ClipInput] = []
        others: list[RawExample] = []
        for one in inputs:
            if isinstance(one, ClipInput):
                clips.append(one)
            elif isinstance(one, str | PathLike):
                path = Path(one).expanduser()
                if has_features(path):
                    others += self._reader.read_features(path)
                else:
                    clips += expand_clips(path)
            else:
                raise DataError(
                    "D26", f"inputs has {type_name(one)}.", "a path or a ClipInput"
                )
        return [*(self._reader.read_clips(clips) if clips else ()), *others]

    def _rows(self, batch: Batch) -> list[RawExample]:
        """Returns the valid rows of a batch."""
        for name in self.modalities:
            if name not in batch.inputs or name not in batch.masks:
                raise DataError(
                    "D26",
                    f"the batch does not have the modality {shown(name)}.",
                    "a mask of zeros marks a missing modality",
                )
        batch = jax.device_get(batch)
        take = lambda part, i: {m: np.asarray(part[m][i]) for m in self.modalities}
        return [
            RawExample(str(i), take(batch.inputs, i), take(batch.masks, i))
            for i in np.flatnonzero(batch.weight > 0)
        ]

    def _predict_batch(
        self,
        builder: PredictionBuilder,
        examples: Sequence[RawExample],
        batch: Batch,
        explain: bool,
    ) -> list[Prediction]:
        """Returns the predictions for the rows of a batch."""
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


def _stack(examples: Sequence[RawExample], size: int) -> Batch:
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
