"""From clips to examples as in the training of a model."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from mmfusion_jax.data.media.clip_spec import (
    ClipSpec,
    Decoded,
    DecodeJob,
    decode_job,
)
from mmfusion_jax.data.media.decode_clips import ClipSource
from mmfusion_jax.data.media.resize import (
    FULL_FRAME,
    RESIZE_MODES,
    SquareResize,
)
from mmfusion_jax.data.media.transcripts import TranscriptCleaner
from mmfusion_jax.data.media.wordpiece import WordPiece
from mmfusion_jax.data.preprocessing import (
    PixelStandardizer,
    scaler_of,
)
from mmfusion_jax.data.storage.worker_pool import Failure, map_in_processes
from mmfusion_jax.errors import (
    DataError,
    shorten,
)
from mmfusion_jax.inference.clip_inputs import ClipInput, is_file, not_found
from mmfusion_jax.inference.raw_example import RawExample, ReadInput, UnusableInput
from mmfusion_jax.results.predictor_file import PredictorInfo


class ClipReader:
    """Decodes clips for one model, as in its training.

    Args:
        info: Shapes and preprocessing of its data.
        modalities: The modalities that it reads.
        usage_line: What it reads, for messages.
        workers: Number of processes; None uses one per core, 0 this process.
        timeout: Time limit of one clip in seconds.
    """

    def __init__(
        self,
        info: PredictorInfo,
        modalities: Sequence[str],
        usage_line: str,
        workers: int | None,
        timeout: float,
    ):
        self._info, self._modalities, self._usage = info, modalities, usage_line
        self._workers, self._timeout = workers, timeout

    def read(self, clips: Sequence[ClipInput]) -> Iterator[ReadInput]:
        """Decodes clips as those of the training, in order.

        Args:
            clips: Several are decoded at once in other processes.

        Yields:
            An example, or why the clip cannot be used.

        Raises:
            DataError: The model was not trained on clips.
        """
        decoding = self._info.preprocessing.decoding
        if decoding is None:
            raise DataError(
                "D26",
                f"{shorten(clips[0].named)} is a clip, but the model was trained on "
                f"{shorten(self._info.title)}, which are features: "
                f"{shorten(self._usage, 500)}.",
                "give their features, as an .npz file or as arrays",
            )
        if (mode := decoding.crop.get("mode", "center_crop")) not in RESIZE_MODES:
            raise DataError(
                "D26",
                f"{shorten(clips[0].named)}: the frames of the training were cropped "
                f"to the {shorten(mode)}, which a new clip does not have.",
                "train with --config.data.landmarks_dir= to predict clips",
            )
        # Lists of JSON become tuples.
        spec = msgspec.convert(decoding.spec, ClipSpec)
        present = [is_file(clip.path) for clip in clips]
        jobs = [
            self._job(clip, spec, decoding.crop)
            for clip, there in zip(clips, present, strict=True)
            if there
        ]
        work = functools.partial(decode_job, spec)
        results = map_in_processes(
            work, jobs, workers=self._count(jobs), timeout=self._timeout
        )
        for clip, there in zip(clips, present, strict=True):
            if not there:
                yield UnusableInput(clip.key, not_found(clip))
                continue
            result = next(results)
            if isinstance(result, Failure):
                error = DataError(
                    "D31", f"{shorten(clip.named)}: {shorten(result.reason)}"
                )
                yield UnusableInput(clip.key, error)
            else:
                yield self._example(clip, spec, result)

    def _count(self, jobs: Sequence[DecodeJob]) -> int | None:
        """Returns the number of processes for some clips."""
        if self._workers is not None:
            return self._workers
        return min(len(jobs), os.cpu_count() or 1)

    def _job(
        self, clip: ClipInput, spec: ClipSpec, crop: Mapping[str, Any]
    ) -> DecodeJob:
        """Returns the job that decodes a clip."""
        mode, box = crop.get("mode", "center_crop"), crop.get("box", FULL_FRAME)
        # Noise depends on the key, which in the training was relative to the folder.
        return DecodeJob(
            (clip.name or clip.path.name) + clip.segment,
            clip.path,
            clip.path,
            SquareResize(spec.size, mode, tuple(box)),
            clip.start,
            clip.end,
            image_transform=SquareResize(spec.image_size, mode, tuple(box)),
        )

    def _example(self, clip: ClipInput, spec: ClipSpec, decoded: Decoded) -> RawExample:
        """Returns a decoded clip as an example, like `ClipSource` in the training."""
        info = self._info.preprocessing
        scalers = {name: scaler_of(one) for name, one in info.scaling.items()}
        pixels = scalers.get("video") or scalers.get("image")
        audio = scalers.get("audio")
        steps = (
            self._info.inputs["audio"].shape[0] if "audio" in self._info.inputs else 1
        )
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
            self._token_ids(clip.text) if "text" in self._info.inputs else None,
        )
        example = source[0]
        remarks = [remark.text for remark in decoded.remarks]
        if (
            "audio" in self._modalities
            and (steps_read := len(decoded.record["audio"])) > steps
        ):
            remarks.append(
                f"the audio has {steps_read:d} steps: the first {steps:d}, the longest "
                "in the training data, are used"
            )
        if clip.text and "text" not in self._modalities:
            remarks.append("the model does not read text")
        take = lambda part: {name: example[part][name] for name in self._modalities}
        return RawExample(clip.key, take("inputs"), take("masks"), tuple(remarks))

    def _token_ids(self, text: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns ids and mask of a transcript, (1 t) each."""
        stored = self._info.preprocessing.tokenizer
        if stored is None:
            return None
        cleaner = TranscriptCleaner(**stored.options)
        cleaned = cleaner(text.lower() if stored.lowercase else text)
        ids, mask = self._tokenizer(cleaned, stored.length)
        return ids[None], mask[None]

    @functools.cached_property
    def _tokenizer(self) -> WordPiece:
        """The tokenizer of the training transcripts."""
        stored = self._info.preprocessing.tokenizer
        assert stored is not None  # its caller has looked
        return WordPiece(stored.vocabulary, stored.lowercase)
