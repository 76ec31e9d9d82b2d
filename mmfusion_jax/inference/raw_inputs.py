"""From files and arrays to examples as the model of a run was trained on."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.datasets.sentiment_files import TEXTS
from mmfusion_jax.data.feature_files.reader import read_source
from mmfusion_jax.data.media.clip_files import MEDIA_SUFFIXES, ClipFolder
from mmfusion_jax.data.media.clip_spec import (
    ClipSpec,
    Decoded,
    DecodeJob,
    decode_job,
)
from mmfusion_jax.data.media.csv_text import read_csv
from mmfusion_jax.data.media.decode_clips import ClipSource
from mmfusion_jax.data.media.resize import FULL_FRAME, SquareResize
from mmfusion_jax.data.media.transcripts import TranscriptCleaner
from mmfusion_jax.data.media.wordpiece import WordPiece
from mmfusion_jax.data.preprocessing import (
    PixelStandardizer,
    pad_or_truncate,
    scaler_of,
)
from mmfusion_jax.data.storage.worker_pool import Failure, map_in_processes
from mmfusion_jax.errors import (
    DataError,
    join_names,
    shorten,
    shown,
    shown_name,
    shown_path,
    suggest,
)
from mmfusion_jax.results.predictor_file import PredictorInfo
from mmfusion_jax.safe_load.npz import read_npz

ID = "id"
MASK = "_mask"
FEATURE_SUFFIXES = (".npz", ".pkl", ".pickle", ".p")


@dataclasses.dataclass(frozen=True)
class ClipInput:
    """A clip, or a segment of one, with its transcript.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.inference.ClipInput("talk.mp4", text="so good", start=1.5, end=3).key
        'talk.mp4@1.5-3'

    Attributes:
        file: The video or audio file.
        text: Transcript; "" if there is none.
        start: Start of the segment, in seconds.
        end: End of the segment; None is the end of the file.
    """

    file: str | Path
    text: str = ""
    start: float = 0.0
    end: float | None = None

    @property
    def key(self) -> str:
        """File name with the segment."""
        name = str(self.file)
        if self.end is None and not self.start:
            return name
        end = "" if self.end is None else f"{self.end:.10g}"
        return f"{name}@{self.start:.10g}-{end}"


@dataclasses.dataclass(frozen=True)
class RawExample:
    """One example, scaled and padded as in the training.

    Attributes:
        id: Its name.
        inputs: Modality -> values (t ...).
        masks: Modality -> valid steps (t) bool; all False for a missing modality.
        remarks: What was found when it was read.
    """

    id: str
    inputs: Mapping[str, np.ndarray]
    masks: Mapping[str, np.ndarray]
    remarks: tuple[str, ...] = ()


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
        self.text = spec.data.dataset.options.get("text", "vectors")
        self._vocabulary_sizes = {
            modality: encoder.default("vocab_size", 0)
            for modality, encoder in spec.model.encoders.items()
        }

    def read_features(self, path: Path) -> list[RawExample]:
        """Returns the examples of a file of arrays, or of a feature file.

        Args:
            path: An .npz file with arrays named as the modalities, (n t ...), and
                optionally "id" (n) and masks such as "audio_mask" (n t); or a feature
                file with splits, all of which are read.

        Raises:
            DataError: The file cannot be read, or is not one that the model can use.
        """
        if path.suffix.lower() == ".npz":
            arrays = read_npz(path)
            if {*arrays} & {*self.info.inputs}:
                return self._read_arrays_of(arrays)
        return self._read_splits(path)

    def read_clips(self, clips: Sequence[ClipInput]) -> list[RawExample]:
        """Decodes clips as those of the training.

        Raises:
            DataError: The model was not trained on clips, or a clip cannot be decoded;
                the message lists all of these.
        """
        decoding = self.info.preprocessing.decoding
        if decoding is None:
            raise DataError(
                "D26",
                f"{shown_path(str(clips[0].file))} is a clip, but the model was "
                f"trained on {shorten(self.info.title)}, which are features: "
                f"{self._usage_line()}.",
                "give their features, as an .npz file or as arrays",
            )
        # Lists of JSON become tuples.
        spec = msgspec.convert(decoding.spec, ClipSpec)
        jobs = [self._job(clip, spec, decoding.crop) for clip in clips]
        work = functools.partial(decode_job, spec)
        results = list(
            map_in_processes(
                work, jobs, workers=self._count(jobs), timeout=self.timeout
            )
        )
        failed = {
            job.key: one.reason
            for job, one in zip(jobs, results, strict=True)
            if isinstance(one, Failure)
        }
        if failed:
            lines = [f"  {shorten(k)}: {shorten(v)}" for k, v in failed.items()]
            raise DataError(
                "D43",
                f"{len(failed)} of {len(clips)} clips cannot be decoded:\n"
                + "\n".join(lines[:20]),
                "leave them out, or replace them",
            )
        return [
            self._example(clip, spec, one, decoding.crop)
            for clip, one in zip(clips, results, strict=True)
            if isinstance(one, Decoded)
        ]

    def read_arrays(
        self,
        arrays: Mapping[str, Any],
        masks: Mapping[str, Any] | None = None,
        names: Sequence[str] = (),
    ) -> list[RawExample]:
        """Scales and pads features of one example, or of several.

        Args:
            arrays: Modality -> (t ...) of one example, (n t ...) of several, or a
                sequence of (t ...) of different lengths, without scaling. A modality
                that is not there is missing.
            masks: Modality -> valid steps, (t) or (n t) bool; () of a modality: all.
            names: Ids of the examples; () numbers them.

        Raises:
            DataError: An array has another shape than in the training, or the arrays
                have different numbers of examples.
        """
        for name in (*arrays, *(masks or {})):
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
        count = next(iter(counts.values()), 0)
        if not count:
            raise DataError(
                "D26",
                "the arrays have no example.",
                f"the model reads {self._usage_line()}",
            )
        valid = {
            name: np.asarray(mask, bool).reshape(count, -1)
            for name, mask in (masks or {}).items()
            if name in rows
        }
        examples = []
        for i in range(count):
            of_example = {name: one[i] for name, one in rows.items()}
            masks_of = {name: one[i] for name, one in valid.items()}
            name = str(names[i]) if len(names) else str(i)
            examples.append(self._padded(name, of_example, masks_of))
        return examples

    def _read_arrays_of(self, arrays: dict[str, np.ndarray]) -> list[RawExample]:
        """Reads the arrays of a file that are named as the modalities."""
        names = arrays.pop(ID, ())
        masks = {
            name.removesuffix(MASK): arrays.pop(name)
            for name in list(arrays)
            if name.endswith(MASK)
        }
        return self.read_arrays(arrays, masks, [str(one) for one in names])

    def _read_splits(self, path: Path) -> list[RawExample]:
        """Reads all splits of a feature file, such as those of MMSA."""
        stored = {"text": TEXTS.get(self.text, "text")}
        examples = []
        for split, part in read_source(path).splits.items():
            found = {m: part.inputs.get(stored.get(m, m)) for m in self.modalities}
            if all(rows is None for rows in found.values()):
                raise DataError(
                    "D26",
                    f"{shown_path(str(path))} has {join_names(part.inputs)}, but the "
                    f"model reads {self._usage_line()}.",
                    "use a file with the features of the training",
                )
            ids = part.ids or [f"{split}/{i}" for i in range(len(part))]
            for i, name in enumerate(ids):
                rows = {
                    m: x[i] for m, x in found.items() if x is not None and len(x[i])
                }
                examples.append(self._padded(str(name), rows, {}))
        return examples

    def _rows(self, modality: str, values: Any) -> Sequence[np.ndarray]:
        """Returns the values of every example, (t ...) each, without padding."""
        spec = self.info.inputs[modality]
        if isinstance(values, list | tuple):
            found = [np.asarray(one) for one in values]
            if all(one.ndim == len(spec.shape) for one in found):
                return found
        array = np.asarray(values)
        if array.ndim == len(spec.shape):
            return [array]
        if array.ndim == len(spec.shape) + 1:
            return list(array)
        raise self._wrong_shape(modality, array)

    def _padded(
        self,
        name: str,
        rows: Mapping[str, np.ndarray],
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
            if len(mask) != len(values):
                raise DataError(
                    "D26",
                    f"{shorten(name)}: the mask of {shown_name(modality)} has "
                    f"{len(mask)} steps, and its values have {len(values)}.",
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
        if not np.issubdtype(values.dtype, np.number):
            raise DataError(
                "D26",
                f"{shorten(name)}: {shown_name(modality)} has values of type "
                f"{shown_name(values.dtype.name)}.",
                f"{self._usage_line()}",
            )
        shape = (-1,) + (1,) * (values.ndim - 1)
        # A masked value may be anything.
        values = np.where(mask.reshape(shape), values, 0)
        if not np.isfinite(values).all():
            raise DataError(
                "D72",
                f"{shorten(name)}: {shown_name(modality)} has NaN or infinite values.",
                "repair them, mask these steps, or leave the modality out",
            )
        self._check_ids(name, modality, values)
        if (scaling := self.info.preprocessing.scaling.get(modality)) is not None:
            values = np.where(mask.reshape(shape), scaler_of(scaling)(values), 0)
        return values.astype(spec.dtype)

    def _check_ids(self, name: str, modality: str, values: np.ndarray) -> None:
        """Raises DataError for ids that the encoder has no embedding for."""
        if not np.issubdtype(self.info.inputs[modality].dtype, np.integer):
            return
        whole = (values == np.round(values)).all()
        size = self._vocabulary_sizes[modality]
        low, high = values.min(), values.max()
        if not whole or (size and values.ndim == 1 and not 0 <= low <= high < size):
            raise DataError(
                "D26",
                f"{shorten(name)}: {shown_name(modality)} has the ids {low:g} to "
                f"{high:g}, but the vocabulary has 0 to {max(size - 1, 0):d}.",
                "use the tokenizer of the training data",
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

    def _count(self, jobs: Sequence[DecodeJob]) -> int | None:
        """Returns the number of processes for some clips."""
        return self.workers if self.workers is not None else min(len(jobs), 2)

    def _job(
        self, clip: ClipInput, spec: ClipSpec, crop: Mapping[str, Any]
    ) -> DecodeJob:
        """Returns the job that decodes a clip."""
        file = Path(clip.file).expanduser()
        mode, box = crop.get("mode", "center_crop"), crop.get("box", FULL_FRAME)
        return DecodeJob(
            clip.key,
            file,
            file,
            SquareResize(spec.size, mode, tuple(box)),
            clip.start,
            clip.end,
            image_transform=SquareResize(spec.image_size, mode, tuple(box)),
        )

    def _example(
        self,
        clip: ClipInput,
        spec: ClipSpec,
        decoded: Decoded,
        crop: Mapping[str, Any],
    ) -> RawExample:
        """Returns a decoded clip as an example, like `ClipSource` in the training."""
        info = self.info.preprocessing
        scalers = {name: scaler_of(one) for name, one in info.scaling.items()}
        pixels = scalers.get("video") or scalers.get("image")
        audio = scalers.get("audio")
        steps = self.info.inputs["audio"].shape[0] if "audio" in self.info.inputs else 1
        records: Any = [decoded.record]
        source = ClipSource(
            records,
            [0],
            {},
            spec,
            steps,
            [""],
            [audio] if audio is not None else [],
            pixels if isinstance(pixels, PixelStandardizer) else None,
            self._token_ids(clip.text) if "text" in self.info.inputs else None,
        )
        example = source[0]
        remarks = [remark.text for remark in decoded.remarks]
        if (steps_read := len(decoded.record["audio"])) > steps:
            remarks.append(
                f"the audio has {steps_read:d} steps: the first {steps:d}, the longest "
                "in the training data, are used"
            )
        if clip.text and "text" not in self.modalities:
            remarks.append("the model does not read text")
        take = lambda part: {name: example[part][name] for name in self.modalities}
        return RawExample(clip.key, take("inputs"), take("masks"), tuple(remarks))

    def _token_ids(self, text: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns ids and mask of a transcript, (1 t) each."""
        stored = self.info.preprocessing.tokenizer
        if stored is None:
            return None
        cleaner = TranscriptCleaner(**stored.options)
        cleaned = cleaner(text.lower() if stored.lowercase else text)
        ids, mask = self._tokenizer(cleaned, stored.length)
        return ids[None], mask[None]

    @functools.cached_property
    def _tokenizer(self) -> WordPiece:
        """The tokenizer of the training transcripts."""
        stored = self.info.preprocessing.tokenizer
        assert stored is not None  # its caller has looked
        return WordPiece(stored.vocabulary, stored.lowercase)


def has_features(path: Path) -> bool:
    """Returns whether a path is a file of features by its name."""
    return path.suffix.lower() in FEATURE_SUFFIXES


def expand_clips(path: Path) -> list[ClipInput]:
    """Returns the clips that a path stands for.

    Args:
        path: A video or audio file, a folder of such files, or a labels.csv, or a
            folder with one: its columns file, text, start and end are read.

    Raises:
        DataError: The file does not exist, or the folder has no clip.
    """
    path = path.expanduser()
    if path.suffix.lower() == ".csv":
        return _rows_of(path)
    if not path.is_dir():
        if not path.is_file():
            raise DataError("D30", f"{shown_path(str(path))} does not exist.")
        return [ClipInput(path)]
    if (path / "labels.csv").is_file():
        return _rows_of(path / "labels.csv")
    files = ClipFolder(path).media
    if not files:
        raise DataError(
            "D30",
            f"folder {shown_path(str(path))} has no video or audio file.",
            f"files such as {join_names(sorted(MEDIA_SUFFIXES)[:8])}",
        )
    return [ClipInput(path / file) for file in files]


def _rows_of(table: Path) -> list[ClipInput]:
    """Returns the clips of a labels.csv; labels are not needed."""
    content = read_csv(table)
    names = [name.lower() for name in content.names]
    if "file" not in names:
        raise DataError(
            "D41",
            f"{table} has no column 'file'; it has {join_names(content.names)}.",
            "its columns are file and optionally text, start, end",
        )
    folder, clips, absent = ClipFolder(table.parent), [], []
    for line, cells in content.rows:
        row = dict(zip(names, cells, strict=False))
        file = folder.find(row["file"])
        if not file:
            absent.append(f"line {line}: {shown(row['file'])}")
            continue
        start, end = (_seconds(table, line, name, row.get(name)) for name in SPAN)
        clips.append(
            ClipInput(table.parent / file, row.get("text", ""), start or 0.0, end)
        )
    if absent:
        raise DataError(
            "D42",
            f"{table}: {len(absent)} files do not exist: {join_names(absent[:10])}.",
            "fix or remove these lines",
        )
    if not clips:
        raise DataError("D41", f"{table} has no rows after its header.")
    return clips


SPAN = ("start", "end")


def _seconds(table: Path, line: int, name: str, text: str | None) -> float | None:
    """Returns a time of a table in seconds; None for an empty cell."""
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise DataError(
            "D41",
            f"{table}, line {line}: {shown_name(name)}={shown(text)} is not a time in "
            "seconds.",
            "such as 12.5",
        )
    return value
