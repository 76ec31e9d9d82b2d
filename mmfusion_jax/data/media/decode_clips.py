"""Decodes clips once into a store, which later runs read."""

import dataclasses
import functools
import hashlib
import importlib.util
import itertools
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.array_hashes import hash_arrays
from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.media.clip_remark import ClipRemark
from mmfusion_jax.data.media.clip_spec import (
    MODALITIES,
    ClipSpec,
    Decoded,
    DecodeJob,
    decode_job,
)
from mmfusion_jax.data.media.clip_store import ChosenClips, ClipStore, PartRecords
from mmfusion_jax.data.media.face_detection import import_cv2
from mmfusion_jax.data.preprocessing import (
    MinMaxScaler,
    PixelStandardizer,
    RunningMoments,
    Standardizer,
    pad_or_truncate,
)
from mmfusion_jax.data.storage.array_record_store import (
    cache_folder,
    lock_store,
    make_folder,
)
from mmfusion_jax.data.storage.file_checksums import file_checksums
from mmfusion_jax.data.storage.file_size import format_size
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.data.storage.worker_pool import Failure, map_in_processes
from mmfusion_jax.errors import DataError, missing_dependency, shorten, shown_path
from mmfusion_jax.results.run_identity import sha256_json

VERSION = 2
"""Part of the name of every store: raise it when the same files give other values."""

SPLIT = "clips"
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class DecodedClips:
    """Decoded clips.

    Attributes:
        store: The clips in their store.
        spec: Specification of what was decoded.
    """

    store: ChosenClips
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

    def digest(self, key: str) -> str:
        """Returns a hash of the files of a clip, and of what is decoded from them."""
        # Of the files and not of the decoded values, which another version of a
        # decoder may round differently. The key contains the segment.
        clip = self.store.manifest["clips"][self.index[key]]
        spec = self.store.manifest["spec"]
        return sha256_json([VERSION, spec, key, sorted(clip["sha256"].items())])

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
        digests: Hash of every example, see `DecodedClips.digest`.
        token_ids: Ids (n t) and mask (n t) of the modality "text"; None without it.
        audio_steps: Length to which audio is padded.
        scalers: Applied to the audio features one after the other.
        pixels: Standardizes frames; None leaves pixels 0..255.
    """

    records: PartRecords
    indices: Sequence[int]
    labels: Mapping[str, np.ndarray]
    spec: ClipSpec
    audio_steps: int
    digests: Sequence[str]
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

    def content_digest(self) -> str:
        """Returns a hash of the files and the token ids; reads no clip."""
        texts = self.token_ids or ()
        return sha256_json([list(self.digests), hash_arrays(texts)])

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
    source: Path,
    workers: int | None = None,
    timeout: float = 120.0,
) -> DecodedClips:
    """Decodes clips into a store in the cache, except those that it has.

    The name of the store contains a hash of `spec` and `source`. A clip is identified
    by its files with size and modification time, its segment and its transform, so
    changed files are decoded again.

    Args:
        name: Prefix of the name of the store.
        jobs: The clips, with unique keys.
        spec: Specification of what to decode.
        source: Folder of the clips.
        workers: Number of processes; None uses one per core, 0 decodes in this one.
        timeout: Time limit of one file in seconds.

    Raises:
        DataError: All clips failed, or the disk is full.
        MissingDependencyError: PyAV, Pillow or librosa is not installed.
    """
    specification = dataclasses.asdict(spec)
    origin = str(source.absolute())
    folder = cache_folder(f"{name}-{_sha256([VERSION, specification, origin])[:16]}")
    store = ClipStore(folder, spec.features)
    checksums = file_checksums(file for job in jobs for file in job.files)
    ids = [_clip_id(job, checksums) for job in jobs]
    if store.missing(ids):
        _check_extras()
        if spec.face_crop:
            import_cv2()
        make_folder(folder.parent)
        with lock_store(folder):
            # Another process may have decoded them in the meantime.
            store.refresh()
            missing = store.missing(ids)
            chosen = [jobs[index] for index in missing]
            _check_space(folder, len(chosen), spec)
            work = functools.partial(decode_job, spec)
            results = map_in_processes(work, chosen, workers=workers, timeout=timeout)
            results = track(results, len(chosen), _progress_text(len(chosen), ids))
            entries = _entries(chosen, [ids[index] for index in missing], results)
            about = {"title": f"clips in {shorten(source.name)}", "source": origin}
            store.add(entries, {**about, "spec": specification})
    keys = {job.key: one for job, one in zip(jobs, ids, strict=True)}
    decoded = DecodedClips(store.chosen(keys, specification), spec)
    if not decoded.index:
        raise DataError(
            "D43",
            "all clips failed.\n" + summarize_skipped(decoded.skipped, len(jobs)),
            "replace these files, or correct their start and end",
        )
    return decoded


def check_left_out(skipped: Mapping[str, str], total: int, limit: float) -> None:
    """Raises DataError if too many clips cannot be used.

    Args:
        skipped: Key of each clip that is absent or cannot be decoded -> the reason.
        total: Number of all clips.
        limit: Fraction of all clips that may be left out.
    """
    if len(skipped) <= limit * total:
        return
    # Rounded up, so that the option has the effect that the message promises.
    needed = -(-len(skipped) * 100 // total) / 100
    raise DataError(
        "D44",
        summarize_skipped(skipped, total, "cannot be used"),
        f"fix or remove them; --config.data.max_left_out={needed:g} leaves them out",
    )


def summarize_skipped(
    skipped: Mapping[str, str], total: int, what: str = "are skipped"
) -> str:
    """Returns the clips that were skipped and why, one per line."""
    lines = [f"{len(skipped)} of {total} clips {what}:"]
    listed = dict(itertools.islice(skipped.items(), _MAX_LISTED))
    width = max((len(shorten(key)) for key in listed), default=0)
    lines += [f"  {shorten(k):{width}}  {shorten(v)}" for k, v in listed.items()]
    if len(skipped) > len(listed):
        lines.append(f"  and {len(skipped) - len(listed)} more")
    return "\n".join(lines)


def _progress_text(count: int, ids: Sequence[str]) -> str:
    """Returns what is decoded, and how many clips are in the cache."""
    suffix = "" if count == len(ids) else f", {len(ids) - count} are in the cache"
    return f"decoding {count} clips{suffix}"


def _entries(
    jobs: Sequence[DecodeJob],
    ids: Sequence[str],
    results: Iterator[Decoded | Failure],
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray] | None]]:
    """Yields the entry of each clip for the manifest, and its record."""
    for job, clip_id, result in zip(jobs, ids, results, strict=True):
        if isinstance(result, Failure):
            reason = _reason(job, result)
            yield {"id": clip_id, "reason": reason, "retry": result.retry}, None
            continue
        audio = result.record["audio"]
        # Samples are not standardized over clips.
        moments = RunningMoments.of(audio if audio.ndim > 1 else audio[:0, None])
        # The moments of every clip are stored, so the statistics of any training split
        # are sums, without reading a clip.
        entry = {
            "id": clip_id,
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
        yield entry, result.record


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


def _clip_id(job: DecodeJob, checksums: Mapping[Path, str]) -> str:
    """Returns a hash of everything that the record of a clip depends on but `spec`.

    Args:
        job: The clip.
        checksums: Checksum of every file.
    """
    changes = [checksums[file] for file in job.files]
    files = [str(file.absolute()) for file in job.files]
    transforms = [repr(job.transform), repr(job.image_transform)]
    return _sha256([job.key, files, changes, transforms, job.start, job.end])


def _sha256(values: Any) -> str:
    """Returns the checksum of JSON values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


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
            f"{count} clips may need {format_size(needed)}, but "
            f"{shown_path(existing)} has {format_size(free)} free.",
            "free disk space, or set MMFUSION_CACHE to a folder on another disk",
        )
