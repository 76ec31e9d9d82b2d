"""Decodes many clips once, into a store; every later run only reads it."""

import dataclasses
import functools
import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.media.clip_spec import ClipSpec, Decoded, DecodeJob, decode_job
from mmfusion_jax.data.preprocessing import (
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
from mmfusion_jax.errors import DataError, missing_dependency

VERSION = 1
"""Part of the name of every store: raise it when the same files give other values."""

SPLIT = "clips"


@dataclasses.dataclass(frozen=True)
class DecodedClips:
    """Decoded clips, ready to be read.

    Attributes:
        store: where they are.
        spec: how they were made.
    """

    store: Store
    spec: ClipSpec

    @functools.cached_property
    def index(self) -> dict[str, int]:
        """Key of each clip that could be decoded -> its place in the store."""
        return {clip["key"]: i for i, clip in enumerate(self.store.manifest["clips"])}

    @property
    def skipped(self) -> dict[str, str]:
        """Key of each clip that could not be decoded -> why."""
        return self.store.manifest["skipped"]

    @property
    def audio_steps(self) -> int:
        """Sound frames of an example: those asked for, else of the longest clip."""
        if self.spec.audio_steps is not None:
            return self.spec.audio_steps
        return max(1, *(clip["audio_steps"] for clip in self.store.manifest["clips"]))

    def standardizer(self, keys: Sequence[str]) -> Standardizer | None:
        """Mean and deviation of the MFCC of some clips; None if none has sound."""
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

    def count_without(self, modality: str) -> int:
        """How many clips lack a modality."""
        steps = f"{modality}_steps"
        return sum(not clip[steps] for clip in self.store.manifest["clips"])


@dataclasses.dataclass(frozen=True)
class ClipSource:
    """Some of the prepared clips as examples.

    Attributes:
        records: the store's.
        indices: of the clips in the store, in the order of the examples.
        labels: label name -> (n) integers.
        spec: how the clips were made.
        audio_steps: length to which sound is padded.
        standardizer: brings the MFCC to mean 0 and deviation 1; None leaves them.
    """

    records: Records
    indices: Sequence[int]
    labels: Mapping[str, np.ndarray]
    spec: ClipSpec
    audio_steps: int
    standardizer: Standardizer | None

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        record = self.records[self.indices[index]]
        made = {"audio": self._audio, "video": self._video}
        parts = {name: made[name](record) for name in self.spec.modalities}
        return {
            "inputs": {name: values for name, (values, _) in parts.items()},
            "masks": {name: mask for name, (_, mask) in parts.items()},
            "labels": {name: value[index] for name, value in self.labels.items()},
            "weight": np.float32(1),
        }

    def _audio(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        rows = record["audio"]
        if self.standardizer is not None:
            rows = self.standardizer(rows)
        return pad_or_truncate(rows, self.audio_steps)

    def _video(self, record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        frames, mask = pad_or_truncate(record["video"], self.spec.frames)
        return np.broadcast_to(frames, (*frames.shape[:3], 3)), mask


def decode_all(
    name: str,
    jobs: Sequence[DecodeJob],
    recipe: ClipSpec,
    *,
    strict: bool = False,
    workers: int | None = None,
    timeout: float = 120.0,
) -> DecodedClips:
    """Decodes clips into a store in the cache, or opens the store that has them.

    The name of the store holds a hash of the recipe and of the name, size and time of
    change of every file, so whatever changes is decoded anew.

    Args:
        name: what the store is called before its hash.
        jobs: the clips, with different keys.
        recipe: what is taken from each.
        strict: stop at the first file that cannot be decoded, instead of leaving it
            out.
        workers: processes; None takes one for each core, 0 decodes in this one.
        timeout: seconds that one file may take.

    Raises:
        DataError: no clip can be decoded, or with `strict` one of them cannot.
        ExtraError: PyAV, Pillow or librosa is not installed.
    """
    folder = cache_folder(f"{name}-{_fingerprint(jobs, recipe)[:16]}")
    if not folder.exists():
        _check_extras()
        _check_space(folder, len(jobs), recipe)
        manifest: dict[str, Any] = {
            "clips": [],
            "skipped": {},
            "recipe": dataclasses.asdict(recipe),
        }
        work = functools.partial(decode_job, recipe)
        results = map_in_processes(work, jobs, workers=workers, timeout=timeout)
        results = track(results, len(jobs), f"decoding {len(jobs)} clips")
        records = _collected(jobs, results, manifest, strict)
        write_store(folder, recipe.features, {SPLIT: records}, manifest)
    prepared = DecodedClips(open_store(folder), recipe)
    if strict and prepared.skipped:
        raise _refused(*next(iter(prepared.skipped.items())))
    return prepared


def summarize_skipped(skipped: Mapping[str, str], total: int) -> str:
    """The clips that were left out and why, one a line."""
    lines = [f"{len(skipped)} of {total} clips are left out:"]
    width = max(map(len, skipped), default=0)
    lines += [f"  {key:{width}}  {reason}" for key, reason in skipped.items()]
    return "\n".join(lines)


def _collected(
    jobs: Sequence[DecodeJob],
    results: Iterator[Decoded | Failure],
    manifest: dict[str, Any],
    strict: bool,
) -> Iterator[dict[str, np.ndarray]]:
    """Passes records on and writes down what came of each job."""
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, Failure):
            reason = _reason(job, result)
            if strict:
                raise _refused(job.key, reason)
            manifest["skipped"][job.key] = reason
            continue
        audio = result.record["audio"]
        moments = RunningMoments.of(audio)
        manifest["clips"].append(
            {
                "key": job.key,
                "sha256": result.sha256,
                "video_steps": len(result.record["video"]),
                "audio_steps": len(audio),
                "total": moments.total.tolist(),
                "square": moments.square.tolist(),
            }
        )
        yield result.record
    if not manifest["clips"]:
        raise DataError(
            "D43",
            "no clip is left.\n" + summarize_skipped(manifest["skipped"], len(jobs)),
        )


def _reason(job: DecodeJob, failure: Failure) -> str:
    """Why a clip failed, without the folders of this machine."""
    reason = failure.reason
    for file in job.files:
        reason = reason.replace(str(file.absolute()), file.name)
    own = job.video or job.audio
    return reason.removeprefix(own.name).lstrip(": ") if own else reason


def _refused(key: str, reason: str) -> DataError:
    """The error for a clip that cannot be decoded where all must be."""
    return DataError(
        "D44",
        f"{key} cannot be used: {reason}",
        "mend or remove it, or pass strict=False to leave such clips out",
    )


def _fingerprint(jobs: Sequence[DecodeJob], recipe: ClipSpec) -> str:
    """A hash of everything that decides what is in the store."""
    told = []
    for job in jobs:
        states = [file.stat() for file in job.files]
        changes = [(state.st_size, state.st_mtime_ns) for state in states]
        files = [str(file.absolute()) for file in job.files]
        told.append([job.key, files, changes, repr(job.transform), job.start, job.end])
    known = [VERSION, dataclasses.asdict(recipe), told]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _check_extras() -> None:
    """Raises ExtraError here rather than in every worker."""
    for module, name in (("av", "av"), ("librosa", "librosa"), ("PIL", "Pillow")):
        if importlib.util.find_spec(module) is None:
            raise missing_dependency(name, "media", "decoding clips")


def _check_space(folder: Path, count: int, recipe: ClipSpec) -> None:
    """Raises DataError if the frames alone would fill the disk."""
    if "video" not in recipe.modalities:
        return
    channels = 3 if recipe.rgb else 1
    wanted = count * recipe.frames * recipe.size**2 * channels
    there = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(there).free
    if free < wanted:
        raise DataError(
            "D22",
            f"{count} clips may need {wanted / 1e9:.1f} GB, but {there} has "
            f"{free / 1e9:.1f} GB.",
            "make room there, or let MMFUSION_CACHE name a folder on another disk",
        )
