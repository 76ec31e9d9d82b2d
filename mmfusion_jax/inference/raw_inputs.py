"""From files and arrays to examples as the model of a run was trained on."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.datasets.sentiment_files import TEXTS
from mmfusion_jax.data.feature_files.entry_names import SPLIT_NAMES, spelling
from mmfusion_jax.data.feature_files.feature_arrays import (
    FeatureArrays,
    FeatureSplit,
    read_feature_arrays,
)
from mmfusion_jax.data.preprocessing import (
    pad_or_truncate,
    scaler_of,
)
from mmfusion_jax.errors import (
    DataError,
    join_names,
    shorten,
    shown,
    shown_name,
    shown_path,
    suggest,
    type_name,
)
from mmfusion_jax.inference.clip_inputs import ClipInput
from mmfusion_jax.inference.clip_reader import ClipReader
from mmfusion_jax.inference.raw_example import RawExample, ReadInput, UnusableInput
from mmfusion_jax.results.predictor_file import PredictorInfo
from mmfusion_jax.safe_load.npz import read_npz
from mmfusion_jax.types import Batch

ID, SPEAKER = "id", "speaker"
MASK = "_mask"
LABELS = ("label", "score")
"""Names of the labels of an .npz file, beside that of the label itself."""

MAX_LISTED = 20


class InputReader:
    """Reads files and arrays for one model.

    Args:
        spec: The experiment that the model was trained in.
        info: Shapes and preprocessing of its data.
        workers: Number of processes that decode clips; None uses one per core, 0
            decodes in this process.
        timeout: Time limit of one clip in seconds.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        info: PredictorInfo,
        workers: int | None = None,
        timeout: float = 120.0,
    ):
        self.info, self.workers, self.timeout = info, workers, timeout
        self.modalities = spec.model.modalities
        options = spec.data.dataset.options
        self.text = options.get("text", "vectors")
        self.text_column = options.get("text_column") or "text"
        self._vocabulary_sizes = {
            modality: encoder.default("vocab_size", 0)
            for modality, encoder in spec.model.encoders.items()
        }

    def read_features(self, path: Path) -> Iterator[ReadInput]:
        """Yields the examples of a file of arrays, or of a feature file.

        Args:
            path: An .npz file with arrays named as the modalities, (n t ...), and
                optionally "id" (n) and masks such as "audio_mask" (n t); or a feature
                file with splits, which is read in a sandboxed process.

        Raises:
            DataError: The file cannot be read, or is not one that the model can use.
        """
        if path.suffix.lower() == ".npz" and not os.path.isdir(path):
            arrays = read_npz(path)
            known = {spelling(one) for part in SPLIT_NAMES.values() for one in part}
            of_splits = any(spelling(one.partition("_")[0]) in known for one in arrays)
            if {*arrays} & {*self.info.inputs} or not of_splits:
                yield from self._read_arrays_of(path, arrays)
                return
        yield from self._read_splits(path)

    def read_clips(self, clips: Sequence[ClipInput]) -> Iterator[ReadInput]:
        """Decodes clips as those of the training, in order.

        Args:
            clips: Several are decoded at once in other processes.

        Yields:
            An example, or why the clip cannot be used.

        Raises:
            DataError: The model was not trained on clips.
        """
        return self._clips.read(clips)

    @functools.cached_property
    def _clips(self) -> ClipReader:
        """Decodes clips."""
        line = self._usage_line()
        return ClipReader(self.info, self.modalities, line, self.workers, self.timeout)

    def read_arrays(
        self,
        arrays: Mapping[str, Any],
        masks: Mapping[str, Any] | None = None,
        names: Sequence[str] = (),
    ) -> list[RawExample]:
        """Scales and pads features of one example, or of several.

        Args:
            arrays: Modality -> (t ...) of one example, (n t ...) of several, or a
                sequence of (t ...) of different lengths, in which None is a missing
                one; without scaling. A modality that is not there is missing.
            masks: Modality -> valid steps, (t) or (n t) bool, or a sequence of (t);
                without a mask all steps are valid.
            names: Ids of the examples; () numbers them.

        Raises:
            DataError: An array has another shape than in the training, or the arrays
                have different numbers of examples.
        """
        rows, valid = self._rows_and_masks(arrays, masks)
        count = len(next(iter(rows.values()), ()))
        if len(names) not in (0, count):
            raise DataError(
                "D26", f"there are {count} examples and {len(names)} ids.", "as many"
            )
        examples = []
        for i in range(count):
            of_example = {name: one[i] for name, one in rows.items()}
            masks_of = {name: one[i] for name, one in valid.items()}
            name = str(names[i]) if len(names) else str(i)
            examples.append(self._padded(name, of_example, masks_of))
        return examples

    def check_batch(self, batch: Batch) -> None:
        """Raises DataError for a batch that is not one of the model."""
        for name in self.modalities:
            if name not in batch.inputs or name not in batch.masks:
                raise DataError(
                    "D26",
                    f"the batch does not have the modality {shown(name)}.",
                    "a mask of zeros marks a missing modality",
                )
            spec = self.info.inputs[name]
            values, mask = np.shape(batch.inputs[name]), np.shape(batch.masks[name])
            count = np.shape(batch.weight)
            if values != (*count, *spec.shape) or mask != values[:2]:
                raise DataError(
                    "D26",
                    f"the batch has {shown_name(name)} of shape {shown(values)}, a "
                    f"mask of shape {shown(mask)} and a weight of shape "
                    f"{shown(count)}, but "
                    f"the model reads {shown(('n', *spec.shape))}, "
                    f"{shown(('n', spec.shape[0]))} and (n).",
                    "arrays by modality are padded to these shapes",
                )

    def _rows_and_masks(
        self, arrays: Mapping[str, Any], masks: Mapping[str, Any] | None
    ) -> tuple[dict[str, Sequence[Any]], dict[str, Sequence[np.ndarray]]]:
        """Returns values and masks of every example, by modality."""
        masks = {} if masks is None else masks
        if not isinstance(masks, Mapping):
            raise DataError(
                "D26", f"masks is {type_name(masks)}.", "arrays by modality"
            )
        for name in (*arrays, *masks):
            if name not in self.info.inputs:
                raise DataError(
                    "D26",
                    f"{shown(name)} is not a modality of the model.",
                    suggest(str(name), self.modalities),
                )
        rows = {
            name: self._rows(name, values)
            for name, values in arrays.items()
            if values is not None and name in self.modalities
        }
        counts = {name: len(one) for name, one in rows.items()}
        if len({*counts.values()}) > 1:
            raise DataError(
                "D26",
                f"the modalities have different numbers of examples: {shown(counts)}.",
                "all arrays have the same first axis",
            )
        if not any(counts.values()):
            raise DataError(
                "D26",
                "the arrays have no example.",
                f"the model reads {self._usage_line()}",
            )
        valid = {
            name: _mask_rows(name, mask, counts[name])
            for name, mask in masks.items()
            if name in rows and mask is not None
        }
        return rows, valid

    def _read_arrays_of(
        self, path: Path, arrays: dict[str, np.ndarray]
    ) -> Iterator[ReadInput]:
        """Reads the arrays of a file that are named as the modalities."""
        names = [str(one) for one in np.ravel(arrays.pop(ID, ()))]
        speakers = [str(one) for one in np.ravel(arrays.pop(SPEAKER, ()))]
        known = {self.info.task.label, *LABELS} - {*self.info.inputs}
        labels = {name: arrays.pop(name) for name in [*arrays] if name in known}
        masks = {
            name.removesuffix(MASK): arrays.pop(name)
            for name in list(arrays)
            if name.endswith(MASK)
        }
        try:
            rows, valid = self._rows_and_masks(arrays, masks)
        except DataError as error:
            message = f"{shown_path(path)}: {error.args[0]}"
            raise DataError(error.code, message, error.fix) from error
        count = len(next(iter(rows.values())))
        others = {ID: names, SPEAKER: speakers, **labels}
        for name, values in others.items():
            if len(np.atleast_1d(values)) not in (
                (0, count) if name == ID else (count,)
            ):
                if name == SPEAKER and not speakers:
                    continue
                raise DataError(
                    "D26",
                    f"{shown_path(path)}: {shown_name(name)} has "
                    f"{len(np.atleast_1d(values))} values for {count} examples.",
                    "one for each example",
                )
        for i in range(count):
            yield self._try_padded(
                names[i] if names else str(i),
                {name: one[i] for name, one in rows.items()},
                {name: one[i] for name, one in valid.items()},
                {name: values[i] for name, values in labels.items()},
                speakers[i] if speakers else "",
            )

    def _read_splits(self, path: Path) -> Iterator[ReadInput]:
        """Reads all splits of a feature file, such as those of MMSA."""
        found = read_feature_arrays(path)
        for split, part in found.splits.items():
            yield from self._read_split(path, split, part, self._remarks(found))

    def _read_split(
        self, path: Path, split: str, part: FeatureSplit, remarks: tuple[str, ...]
    ) -> Iterator[ReadInput]:
        """Reads one split of a feature file."""
        stored = {"text": TEXTS.get(self.text, "text")}
        found = {m: part.inputs.get(stored.get(m, m)) for m in self.modalities}
        if all(rows is None for rows in found.values()):
            raise DataError(
                "D26",
                f"{shown_path(path)} has {join_names(part.inputs)}, but the "
                f"model reads {self._usage_line()}.",
                "use a file with the features of the training",
            )
        ids = part.ids or [f"{split}/{i}" for i in range(len(part))]
        for i, name in enumerate(ids):
            rows = {m: x[i] for m, x in found.items() if x is not None and len(x[i])}
            labels = {label: values[i] for label, values in part.labels.items()}
            one = self._try_padded(str(name), rows, {}, labels)
            if isinstance(one, RawExample):
                one = dataclasses.replace(one, remarks=(*one.remarks, *remarks))
            yield dataclasses.replace(one, split=split)

    def _remarks(self, found: FeatureArrays) -> tuple[str, ...]:
        """Returns what must be known of all examples of a feature file."""
        own_words = "text" in self.modalities and self.text == "words"
        if not (own_words and found.has_words):
            return ()
        return (
            "the word ids are those of the words of this file, which are the ids of "
            "the training only if it is the same file",
        )

    def _try_padded(
        self,
        name: str,
        rows: Mapping[str, np.ndarray],
        valid: Mapping[str, np.ndarray],
        labels: Mapping[str, Any],
        speaker: str = "",
    ) -> ReadInput:
        """Returns an example of features, or why it cannot be used."""
        try:
            found = self._padded(name, rows, valid)
        except DataError as error:
            return UnusableInput(name, error)
        return dataclasses.replace(found, labels=labels, speaker=speaker)

    def _rows(self, modality: str, values: Any) -> Sequence[Any]:
        """Returns the values of every example, (t ...) each, without padding."""
        spec = self.info.inputs[modality]
        axes = len(spec.shape)
        if isinstance(values, list | tuple):
            found = [None if one is None else _as_array(one) for one in values]
            if found and all(one is None or one.ndim == axes for one in found):
                return found
        array = _as_array(values)
        if array.ndim == axes:
            return [array]
        if array.ndim == axes + 1:
            return list(array)
        raise self._wrong_shape(modality, array)

    def _padded(
        self,
        name: str,
        rows: Mapping[str, np.ndarray | None],
        valid: Mapping[str, np.ndarray],
    ) -> RawExample:
        """Returns an example of features, checked, scaled and padded."""
        inputs, masks, remarks = {}, {}, []
        for modality in self.modalities:
            spec = self.info.inputs[modality]
            length = spec.shape[0]
            values = rows.get(modality)
            if values is None or not len(values):
                inputs[modality] = np.zeros(spec.shape, spec.dtype)
                masks[modality] = np.zeros(length, bool)
                continue
            mask = valid.get(modality, np.ones(len(values), bool))
            if mask.shape != (len(values),):
                raise DataError(
                    "D26",
                    f"{shorten(name)}: the mask of {shown_name(modality)} has shape "
                    f"{shown(mask.shape)}, and its values have {len(values)} steps.",
                    "a mask has one value per step",
                )
            values = self._checked(name, modality, values, mask)
            if len(values) > length:
                remarks.append(
                    f"{shown_name(modality)} has {len(values)} steps: the first "
                    f"{length:d}, the longest in the training data, are used"
                )
            inputs[modality], _ = pad_or_truncate(values, length)
            masks[modality], _ = pad_or_truncate(mask, length)
        return RawExample(name, inputs, masks, tuple(remarks))

    def _checked(
        self, name: str, modality: str, values: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:
        """Returns the values of one modality, scaled as in the training."""
        spec = self.info.inputs[modality]
        if values.shape[1:] != spec.shape[1:] or values.ndim != len(spec.shape):
            raise self._wrong_shape(modality, values)
        if values.dtype.kind not in "iuf":
            raise DataError(
                "D26",
                f"{shorten(name)}: {shown_name(modality)} has values of type "
                f"{shown_name(values.dtype.name)}.",
                f"{self._usage_line()}",
            )
        # A masked value may be anything.
        valid = mask.reshape((-1,) + (1,) * (values.ndim - 1))
        values = np.where(valid, values, np.zeros((), values.dtype))
        self._check_integers(name, modality, values)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = self._scaled(modality, values)
            values = np.where(valid, scaled, 0).astype(spec.dtype)
        # Also of values that overflow float32.
        if not np.isfinite(values).all():
            raise DataError(
                "D72",
                f"{shorten(name)}: {shown_name(modality)} has NaN or infinite values.",
                "repair them, mask these steps, or leave the modality out",
            )
        return values

    def _scaled(self, modality: str, values: np.ndarray) -> np.ndarray:
        """Returns values (t ...) clipped and scaled as in the training."""
        info = self.info.preprocessing
        if (limits := info.clipping.get(modality)) is not None:
            low, high = (np.array(x, np.float32) for x in (limits.low, limits.high))
            values = np.clip(values.astype(np.float32), low, high)
        scaling = info.scaling.get(modality)
        if scaling is None:
            return values
        # Features after those that were scaled are flags.
        count = len(scaling.a)
        scaled = scaler_of(scaling)(values[..., :count])
        return np.concatenate([scaled, values[..., count:]], axis=-1)

    def _check_integers(self, name: str, modality: str, values: np.ndarray) -> None:
        """Raises DataError for ids without an embedding, and what are not pixels.

        Pixels are integers in a file also where they are scaled to float.
        """
        spec = self.info.inputs[modality]
        scaling = self.info.preprocessing.scaling.get(modality)
        pixels = scaling is not None and scaling.kind == "standardize_pixels"
        dtype = np.dtype("uint8" if pixels else spec.dtype)
        if dtype.kind not in "iu":
            return
        what, fix = "pixels", "pixels are integers, without scaling"
        limits = np.iinfo(dtype)
        low, high = int(limits.min), int(limits.max)
        if values.ndim == 1:
            what, fix = "ids", "use the tokenizer of the training data"
            if size := self._vocabulary_sizes[modality]:
                low, high = 0, size - 1
        # A NaN is not equal to itself.
        whole = (values == np.round(values)).all()
        least, most = values.min(), values.max()
        if not whole or least < low or most > high:
            raise DataError(
                "D26",
                f"{shorten(name)}: {shown_name(modality)} has values from {least:g} to "
                f"{most:g}, but its {shorten(what)} are integers from {low:d} to "
                f"{high:d}.",
                fix,
            )

    def _wrong_shape(self, modality: str, values: np.ndarray) -> DataError:
        """Returns the error for an array of another shape."""
        shape = self.info.inputs[modality].shape
        size = "".join(f" {number:d}" for number in shape[1:])
        return DataError(
            "D26",
            f"{shown_name(modality)} has shape {shown(values.shape)}, but the model "
            f"reads (t{size}), or (n t{size}) for several examples.",
            f"use the features of {shorten(self.info.title)}",
        )

    def _usage_line(self) -> str:
        """Returns what the model reads."""
        parts = []
        for modality in self.modalities:
            spec = self.info.inputs[modality]
            shape = " ".join(["t", *map(str, spec.shape[1:])])
            parts.append(f"{shown_name(modality)} ({shape}) {shown_name(spec.dtype)}")
        return ", ".join(parts)


def _as_array(values: Any) -> np.ndarray:
    """Returns values as an array; DataError for what is not one."""
    try:
        return np.asarray(values)
    except Exception as error:  # of any library whose arrays these are
        raise DataError(
            "D26",
            f"{type_name(values)} is not an array: {shorten(error)}.",
            "arrays of numbers; of different lengths a list of arrays",
        ) from error


def _mask_rows(modality: str, mask: Any, count: int) -> Sequence[np.ndarray]:
    """Returns the mask of every example, (t) bool each."""
    rows: Sequence[np.ndarray] | None = None
    if isinstance(mask, list | tuple) and len(mask) == count:
        rows = [_as_array(one) for one in mask]
        rows = rows if all(one.ndim == 1 for one in rows) else None
    if rows is None:
        array = _as_array(mask)
        rows = [array] if array.ndim == 1 and count == 1 else list(np.atleast_1d(array))
    if len(rows) != count:
        raise DataError(
            "D26",
            f"the mask of {shown_name(modality)} has {len(rows)} rows for {count} "
            "examples.",
            "one row for each example",
        )
    for row in rows:
        if row.ndim != 1 or not (row.dtype == bool or np.isin(row, (0, 1)).all()):
            raise DataError(
                "D26",
                f"the mask of {shown_name(modality)} has rows of type "
                f"{shown_name(row.dtype.name)} and shape {shown(row.shape)}.",
                "True or False for each step",
            )
    return [row.astype(bool) for row in rows]
