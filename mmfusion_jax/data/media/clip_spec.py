"""One clip: what is taken from it, and how."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmfusion_jax.data.media import decode
from mmfusion_jax.data.media.resize import FrameTransform
from mmfusion_jax.data.preprocessing import add_white_noise
from mmfusion_jax.data.storage.array_record_store import FeatureSpec
from mmfusion_jax.errors import ConfigError, DataError, suggest

MODALITIES = ("audio", "video")
PAD_MODES = ("reflect", "constant")
FRAME_SAMPLINGS = ("even", "consecutive")


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """What is taken from every clip.

    Attributes:
        modalities: "audio", "video" or both.
        frames: of the video.
        size: side of a frame in pixels.
        rgb: RGB; False keeps the brightness alone.
        sample_rate: of the sound, in Hz.
        offset: seconds of sound to leave out at the beginning.
        duration: seconds of sound to take; None takes all.
        n_mfcc: coefficients of each sound frame.
        pad_mode: how the edges of the sound are padded.
        noise_snr_db: white noise added to the sound; None adds none.
        noise_seed: of that noise; every clip draws its own.
        frame_sampling: of the frames: "even" in time, or "consecutive", from the
            middle.
    """

    modalities: tuple[str, ...] = MODALITIES
    frames: int = 30
    size: int = 112
    rgb: bool = True
    sample_rate: int = 22050
    offset: float = 0.0
    duration: float | None = None
    n_mfcc: int = 13
    pad_mode: str = "reflect"
    noise_snr_db: float | None = None
    noise_seed: int = 0
    frame_sampling: str = "even"

    def __post_init__(self):
        least = {"frames": 1, "size": 1, "sample_rate": 1000, "n_mfcc": 1, "offset": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(
                    "C10", f"{name}={getattr(self, name)} is below {low}."
                )
        if self.duration is not None and self.duration <= 0:
            raise ConfigError("C10", f"duration={self.duration} is not above 0.")
        _check_choice("pad_mode", self.pad_mode, PAD_MODES)
        _check_choice("spacing", self.frame_sampling, FRAME_SAMPLINGS)
        for modality in self.modalities:
            _check_choice("modalities", modality, MODALITIES)
        if not self.modalities:
            raise ConfigError("C10", "modalities=() leaves nothing to learn from.")

    @property
    def audio_steps(self) -> int | None:
        """Sound frames in `duration` seconds; None if clips are taken whole."""
        if self.duration is None:
            return None
        return 1 + round(self.duration * self.sample_rate) // decode.HOP

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """What a record looks like; a missing modality has no rows."""
        channels = 3 if self.rgb else 1
        frame = (None, self.size, self.size, channels)
        return {
            "video": FeatureSpec(frame, "uint8"),
            "audio": FeatureSpec((None, self.n_mfcc), "float32"),
        }


@dataclasses.dataclass(frozen=True)
class DecodeJob:
    """One clip to decode.

    Attributes:
        key: its name in the store, in messages and in the draw of noise.
        video: the file with the pictures; None if there is none.
        audio: the file with the sound, often the same; None if there is none.
        transform: crops and resizes a frame.
        start: where the span to use begins, in seconds.
        end: where it ends; None is the end of the file.
        extra: further files that decide what comes out, such as landmarks.
    """

    key: str
    video: Path | None
    audio: Path | None
    transform: FrameTransform
    start: float = 0.0
    end: float | None = None
    extra: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files behind the clip, each once."""
        named = (self.video, self.audio, *self.extra)
        return tuple(dict.fromkeys(file for file in named if file))


@dataclasses.dataclass(frozen=True)
class Decoded:
    """What a worker returns."""

    record: dict[str, np.ndarray]
    sha256: dict[str, str]


def decode_job(recipe: ClipSpec, job: DecodeJob) -> Decoded:
    """One clip as it goes into the store."""
    frames, waveform = _streams(recipe, job)
    if frames is None and waveform is None:
        wanted = " and ".join(recipe.modalities)
        raise DataError("D31", f"{job.key} has no {wanted}.")
    record = {
        name: np.zeros([0 if axis is None else axis for axis in spec.shape], spec.dtype)
        for name, spec in recipe.features.items()
    }
    if frames is not None:
        record["video"] = frames if recipe.rgb else _grey(frames)
    if waveform is not None:
        record["audio"] = _coefficients(waveform, recipe, job.key)
    return Decoded(record, {file.name: _sha256(file) for file in job.files})


def _streams(
    recipe: ClipSpec, job: DecodeJob
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Frames and waveform; None for what is not wanted or not there."""
    pictures = decode.FrameSampling(recipe.frames, job.transform, recipe.frame_sampling)
    sound = decode.AudioSampling(recipe.sample_rate, recipe.offset, recipe.duration)
    see = pictures if "video" in recipe.modalities else None
    hear = sound if "audio" in recipe.modalities else None
    frames = waveform = None
    if job.video == job.audio and job.video is not None:
        clip = decode.read(job.video, see, hear, start=job.start, end=job.end)
        return clip.frames, clip.waveform
    if job.video is not None and see:
        frames = decode.read(job.video, see, start=job.start, end=job.end).frames
    if job.audio is not None and hear:
        clip = decode.read(job.audio, None, hear, start=job.start, end=job.end)
        waveform = clip.waveform
    return frames, waveform


def _coefficients(waveform: np.ndarray, recipe: ClipSpec, key: str) -> np.ndarray:
    """The MFCC of a clip, with noise if the recipe wants some."""
    if recipe.noise_snr_db is not None:
        draw = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        rng = np.random.default_rng([recipe.noise_seed, draw])
        waveform = add_white_noise(waveform, recipe.noise_snr_db, rng)
    return decode.mfcc(
        waveform, recipe.sample_rate, recipe.n_mfcc, pad_mode=recipe.pad_mode
    )


def _grey(frames: np.ndarray) -> np.ndarray:
    """The brightness (ITU-R BT.601) of RGB frames, with a last axis of 1."""
    grey = frames @ np.array([0.299, 0.587, 0.114])
    return np.round(grey).astype(np.uint8)[..., None]


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    """Raises ConfigError if `value` is not among the known ones."""
    if value not in known:
        raise ConfigError(
            "C03", f"{name}={value!r} is unknown; {suggest(value, known)}"
        )


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
