"""Decodes clips once into a store, which later runs read."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.media.clip_remark import ClipRemark
from mmfusion_jax.data.media.clip_spec import (
    MODALITIES,
    ClipSpec,
    Decoded,
    DecodeJob,
    decode_job,
)
from mmfusion_jax.data.media.face_detection import import_cv2
from mmfusion_jax.data.preprocessing import (
    MinMaxScaler,
    PixelStandardizer,
    RunningMoments,
    Standardizer,
    pad_or_truncate,
)
from mmfusion_jax.data.storage.array_record_store import (
    Records,
    Store,
    cache_folder,
    open_store,
    write_store,
)
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.data.storage.worker_pool import Failure, map_in_processes
from mmfusion_jax.errors import DataError, missing_dependency, shorten, shown_path

VERSION = 2
"""Part of the name of every store: raise it when the same files give other values."""

SPLIT = "clips"


@dataclasses.dataclass(frozen=True)
class DecodedClips:
    """Decoded clips.

    Attributes:
        store: Store of the clips.
        spec: Specification of what was decoded.
    """

    store: Store
    spec: ClipSpec

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Key of each decoded clip -> its index in the store."""
        return {clip["key"]: i for i, clip in enumerate(self.store.manifest["clips"])}

    @property
    def skipped(self) -> dict[str, str]:
        """Key of each clip that could not be decoded -> the reason."""
        return self.store.manifest["skipped"]

    @property
    def remarks(self) -> dict[str, list[ClipRemark]]:
        """Key of each clip with findings -> the findings, such as silent audio."""
        return {
            clip["key"]: [ClipRemark(**remark) for remark in remarks]
            for clip in self.store.manifest["clips"]
            if (remarks := clip.get("remarks"))
        }

    @property
    def count_without_face(self) -> int:
        """Number of clips with frames in which no face was detected."""
        clips = self.store.manifest["clips"]
        return sum(bool(clip["pixels"]) and not clip["face"] for clip in clips)

    @property
    def audio_steps(self) -> int:
        """Steps of audio of an example: those of `spec`, else of the longest clip."""
        if self.spec.audio_steps is not None:
            return self.spec.audio_steps
        return max(1, *(clip["audio_steps"] for clip in self.store.manifest["clips"]))

    def standardizer(self, keys: Sequence[str]) -> Standardizer | None:
        """Fits the MFCC of some clips; None if none of them has audio, or samples."""
        if not self.spec.audio_shape:
            return None
        clips = self.store.manifest["clips"]
        chosen = [clips[self.index[key]] for key in keys]
        parts = [
            RunningMoments(
                c["audio_steps"], np.array(c["total"]), np.array(c["square"])
            )
            for c in chosen
            if c["audio_steps"]
        ]
        return Standardizer.fit(parts) if parts else None

    def min_max_scaler(self, keys: Sequence[str]) -> MinMaxScaler | None:
        """Fits the audio features of some clips; None if none of them has audio."""
        clips = [self.store.manifest["clips"][self.index[key]] for key in keys]
        heard = [clip for clip in clips if clip["audio_steps"]]
        if not heard or not self.spec.audio_shape:
            return None
        low = np.min([clip["low"] for clip in heard], axis=0)
        return MinMaxScaler(low, np.max([clip["high"] for clip in heard], axis=0))

    def pixel_standardizer(self, keys: Sequence[str]) -> PixelStandardizer | None:
        """Fits the frames of some clips; None if none of them has frames."""
        name = "video" if "video" in self.spec.modalities else "image"
        clips = [self.store.manifest["clips"][self.index[key]] for key in keys]
        parts = [
            RunningMoments(p["count"], np.array(p["total"]), np.array(p["square"]))
            for clip in clips
            if (p := clip["pixels"].get(name))
        ]
        return PixelStandardizer(Standardizer.fit(parts)) if parts else None

    def count_without(self, modality: str) -> int:
        """Returns the number of clips without a modality."""
        steps = f"{modality}_steps"
        return sum(not clip[steps] for clip in self.store.manifest["clips"])


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """Selected decoded clips as examples.

    Attributes:
        records: Records of the store.
        indices: Indices of the clips in the store, in the order of the examples.
        labels: Label name -> (n) integers.
        spec: Specification of the clips.
        token_ids: Ids (n t) and mask (n t) of the modality "text"; None without it.
        audio_steps: Length to which audio is padded.
        scalers: Applied to the audio features one after the other.
        pixels: Standardizes frames; None leaves pixels 0..255.
    """

    records: Records
    indices: Sequence[int]
    labels: Mapping[str, np.ndarray]
    spec: ClipSpec
    audio_steps: int
    scalers: Sequence[Callable[[np.ndarray], np.ndarray]] = ()
    pixels: PixelStandardizer | None = None
    token_ids: tuple[np.ndarray, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        record = self.records[self.indices[index]]
        read = {"audio": self._audio, "image": self._image, "video": self._video}
        parts = {name: read[name](record) for name in self.spec.modalities}
        if self.token_ids is not None:
            ids, mask = self.token_ids
            # Copies, which a caller may change in place.
            parts["text"] = ids[index].copy(), mask[index].copy()
        return {
            "inputs": {name: values for name, (values, _) in parts.items()},
            "masks": {name: mask for name, (_, mask) in parts.items()},
            "labels": {name: value[index] for name, value in self.labels.items()},
            "weight": np.float32(1),
        }

    def _audio(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        rows = record["audio"]
        for scaler in self.scalers:
            rows = scaler(rows)
        return pad_or_truncate(rows, self.audio_steps)

    def _video(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        frames, mask = self._pixels(record["video"], self.spec.frames)
        # Frames outside of the video stream are masked, also between others.
        shown, _ = pad_or_truncate(record["video_mask"], self.spec.frames)
        return frames, mask & (shown != 0)

    def _image(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        return self._pixels(record["image"], 1)

    def _pixels(self, frames: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns frames with three channels, padded, and their mask."""
        if self.pixels is not None:
            frames = self.pixels(frames)
        frames, mask = pad_or_truncate(frames, count)
        # Grayscale is stored with one channel and read with three, without a copy.
        return np.broadcast_to(frames, (*frames.shape[:3], 3)), mask


def decode_all(
    name: str,
    jobs: Sequence[DecodeJob],
    spec: ClipSpec,
    *,
    strict: bool = False,
    workers: int | None = None,
    timeout: float = 120.0,
) -> DecodedClips:
    """Decodes clips into a store in the cache, or opens the store if it exists.

    The name of the store contains a hash of `spec` and of the name, size and
    modification time of every file, so changed files are decoded again.

    Args:
        name: Prefix of the name of the store.
        jobs: The clips, with unique keys.
        spec: Specification of what to decode.
        strict: Raise an error for the first file that cannot be decoded, instead of
            skipping it.
        workers: Number of processes; None uses one per core, 0 decodes in this one.
        timeout: Time limit of one file in seconds.

    Raises:
        DataError: All clips failed, or with `strict` one of them did.
        MissingDependencyError: PyAV, Pillow or librosa is not installed.
    """
    folder = cache_folder(f"{name}-{_fingerprint(jobs, spec)[:16]}")
    if not folder.exists():
        _check_extras()
        if spec.face_crop:
            import_cv2()
        _check_space(folder, len(jobs), spec)
        manifest: dict[str, Any] = {
            "clips": [],
            "skipped": {},
            "spec": dataclasses.asdict(spec),
        }
        work = functools.partial(decode_job, spec)
        results = map_in_processes(work, jobs, workers=workers, timeout=timeout)
        results = track(results, len(jobs), f"decoding {len(jobs)} clips")
        records = _collected(jobs, results, manifest, strict)
        write_store(folder, spec.features, {SPLIT: records}, manifest)
    decoded = DecodedClips(open_store(folder), spec)
    if strict and decoded.skipped:
        raise _failed(*next(iter(decoded.skipped.items())))
    return decoded


def summarize_skipped(skipped: Mapping[str, str], total: int) -> str:
    """Returns the clips that were skipped and why, one per line."""
    lines = [f"{len(skipped)} of {total} clips are skipped:"]
    width = max((len(shorten(key)) for key in skipped), default=0)
    lines += [f"  {shorten(k):{width}}  {shorten(v)}" for k, v in skipped.items()]
    return "\n".join(lines)


def _collected(
    jobs: Sequence[DecodeJob],
    results: Iterator[Decoded | Failure],
    manifest: dict[str, Any],
    strict: bool,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields records and adds the result of each job to the manifest."""
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, Failure):
            reason = _reason(job, result)
            if strict:
                raise _failed(job.key, reason)
            manifest["skipped"][job.key] = reason
            continue
        audio = result.record["audio"]
        # Samples are not standardized over clips.
        moments = RunningMoments.of(audio if audio.ndim > 1 else audio[:0, None])
        # The moments of every clip are stored, so the statistics of any training split
        # are sums, without reading a clip.
        manifest["clips"].append(
            {
                "key": job.key,
                "sha256": result.sha256,
                **{
                    f"{n}_steps": len(result.record[n])
                    for n in MODALITIES
                    if n in result.record
                },
                "channels": result.channels,
                "total": moments.total.tolist(),
                "square": moments.square.tolist(),
                **_extremes(audio),
                "pixels": _pixel_moments(result.record),
                "face": result.face,
                "remarks": [dataclasses.asdict(one) for one in result.remarks],
            }
        )
        yield result.record
    if not manifest["clips"]:
        raise DataError(
            "D43",
            "all clips failed.\n" + summarize_skipped(manifest["skipped"], len(jobs)),
        )


def _extremes(audio: np.ndarray) -> dict[str, list[float]]:
    """Returns minimum and maximum of each audio feature; [] without any."""
    if audio.ndim == 1 or not len(audio):
        return {"low": [], "high": []}
    return {"low": audio.min(axis=0).tolist(), "high": audio.max(axis=0).tolist()}


def _pixel_moments(record: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the moments of the channels of frames and key frame, in 0..1."""
    found = {}
    for name in ("video", "image"):
        if len(record.get(name, ())):
            frames = record[name]
            if name == "video":
                frames = frames[record["video_mask"] != 0]
            pixels = frames.reshape(-1, frames.shape[-1]) / 255
            moments = RunningMoments.of(pixels)
            found[name] = {
                "count": moments.count,
                "total": moments.total.tolist(),
                "square": moments.square.tolist(),
            }
    return found


def _reason(job: DecodeJob, failure: Failure) -> str:
    """Returns the reason why a clip failed, without the folders of this machine."""
    reason = failure.reason
    for file in job.files:
        reason = reason.replace(str(file.absolute()), file.name)
    file = job.video or job.audio
    return reason.removeprefix(file.name).lstrip(": ") if file else reason


def _failed(key: str, reason: str) -> DataError:
    """Returns the error for a clip that cannot be decoded, with `strict`."""
    return DataError(
        "D44",
        f"{shorten(key)} failed: {shorten(reason)}",
        "fix or remove it, or pass strict=False to skip such clips",
    )


def _fingerprint(jobs: Sequence[DecodeJob], spec: ClipSpec) -> str:
    """Returns a hash of everything that the content of the store depends on."""
    inputs = []
    for job in jobs:
        # Sizes and times instead of checksums: reading all videos at every start would
        # take minutes.
        states = [file.stat() for file in job.files]
        changes = [(state.st_size, state.st_mtime_ns) for state in states]
        files = [str(file.absolute()) for file in job.files]
        clip = [job.key, files, changes, repr(job.transform), job.start, job.end]
        inputs.append(clip)
    everything = [VERSION, dataclasses.asdict(spec), inputs]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def _check_extras() -> None:
    """Raises MissingDependencyError here rather than in every worker."""
    for module, name in (("av", "av"), ("librosa", "librosa"), ("PIL", "Pillow")):
        if importlib.util.find_spec(module) is None:
            raise missing_dependency(name, "media", "decoding clips")


def _check_space(folder: Path, count: int, spec: ClipSpec) -> None:
    """Raises DataError if the disk has no space for the frames."""
    pixels = spec.frames * spec.size**2 * ("video" in spec.modalities)
    pixels += spec.image_size**2 * ("image" in spec.modalities)
    if not pixels:
        return
    needed = count * pixels * (3 if spec.rgb else 1)
    existing = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise DataError(
            "D22",
            f"{count} clips may need {needed / 1e6:.1f} MB, but "
            f"{shown_path(existing)} has {free / 1e6:.1f} MB free.",
            "free disk space, or set MMFUSION_CACHE to a folder on another disk",
        )
