"""Specification and decoding of a clip."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np

from mmfusion_jax.data.media import decode
from mmfusion_jax.data.media.resize import FrameTransform
from mmfusion_jax.data.option_checks import check_choice
from mmfusion_jax.data.preprocessing import add_white_noise
from mmfusion_jax.data.storage.array_record_store import FeatureSpec
from mmfusion_jax.errors import ConfigError, DataError, shorten, shown, shown_name

MODALITIES = ("audio", "video")
PAD_MODES = ("reflect", "constant")
FRAME_SAMPLINGS = ("uniform", "consecutive")


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Specification of what to decode from every clip.

    Attributes:
        modalities: "audio", "video" or both.
        frames: Number of video frames.
        size: Side length of a frame in pixels.
        rgb: RGB frames; False converts them to grayscale.
        sample_rate: Audio sample rate in Hz.
        offset: Seconds of audio to skip at the beginning.
        duration: Seconds of audio to use; None uses all.
        n_mfcc: Number of MFCC per audio frame.
        pad_mode: Padding of the ends of the audio.
        noise_snr_db: Signal-to-noise ratio of added white noise; None adds none.
        noise_seed: Seed of that noise, which differs between clips.
        frame_sampling: "uniform" over the clip, or "consecutive" frames from its
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
    frame_sampling: str = "uniform"

    def __post_init__(self):
        limits = {"frames": 1, "size": 1, "sample_rate": 1000, "n_mfcc": 1, "offset": 0}
        for name, minimum in limits.items():
            value = getattr(self, name)
            if value < minimum:
                raise ConfigError(
                    "C10",
                    f"config.data.{shown_name(name)}={shown(value)} must be "
                    f"at least {minimum}.",
                )
        if self.duration is not None and self.duration <= 0:
            raise ConfigError(
                "C10", f"config.data.duration={shown(self.duration)} must be above 0."
            )
        check_choice("pad_mode", self.pad_mode, PAD_MODES)
        check_choice("frame_sampling", self.frame_sampling, FRAME_SAMPLINGS)
        for modality in self.modalities:
            check_choice("modalities", modality, MODALITIES)
        if not self.modalities:
            raise ConfigError(
                "C10", "config.data.modalities=() must name at least one modality."
            )

    @property
    def audio_steps(self) -> int | None:
        """Audio frames in `duration` seconds; None if all of a clip is used."""
        if self.duration is None:
            return None
        return 1 + round(self.duration * self.sample_rate) // decode.HOP

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """Shapes of a record; a missing modality has no rows."""
        channels = 3 if self.rgb else 1
        # None: a clip without this modality has no rows.
        frame = (None, self.size, self.size, channels)
        return {
            "video": FeatureSpec(frame, "uint8"),
            "audio": FeatureSpec((None, self.n_mfcc), "float32"),
        }


@dataclasses.dataclass(frozen=True)
class DecodeJob:
    """One clip to decode.

    Attributes:
        key: Its name in the store, in messages and in the seed of the noise.
        video: File with the frames; None if there is none.
        audio: File with the audio, often the same; None if there is none.
        transform: Crops and resizes a frame.
        start: Start of the segment to use, in seconds.
        end: End of the segment; None is the end of the file.
        extra: Further input files, such as landmarks.
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
        """The files of the clip, each once."""
        named = (self.video, self.audio, *self.extra)
        return tuple(dict.fromkeys(file for file in named if file))


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The result of a worker."""

    record: dict[str, np.ndarray]
    sha256: dict[str, str]


def decode_job(spec: ClipSpec, job: DecodeJob) -> Decoded:
    """Decodes one clip to a record of the store."""
    frames, waveform = _read(spec, job)
    if frames is None and waveform is None:
        raise DataError(
            "D31",
            f"{shorten(job.key)} has no "
            f"{' and '.join(map(shown_name, spec.modalities))}.",
        )
    record = {
        name: np.zeros([axis or 0 for axis in feature.shape], feature.dtype)
        for name, feature in spec.features.items()
    }
    if frames is not None:
        record["video"] = frames if spec.rgb else _grayscale(frames)
    if waveform is not None:
        record["audio"] = _mfcc(waveform, spec, job.key)
    return Decoded(record, {file.name: _sha256(file) for file in job.files})


def _read(
    spec: ClipSpec, job: DecodeJob
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Frames and waveform; None for a modality that is not used or not there."""
    video = audio = frames = waveform = None
    if "video" in spec.modalities:
        video = decode.FrameSampling(spec.frames, job.transform, spec.frame_sampling)
    if "audio" in spec.modalities:
        audio = decode.AudioSampling(spec.sample_rate, spec.offset, spec.duration)
    if job.video == job.audio and job.video is not None:
        clip = decode.read(job.video, video, audio, start=job.start, end=job.end)
        return clip.frames, clip.waveform
    if job.video is not None and video:
        frames = decode.read(job.video, video, start=job.start, end=job.end).frames
    if job.audio is not None and audio:
        clip = decode.read(job.audio, None, audio, start=job.start, end=job.end)
        waveform = clip.waveform
    return frames, waveform


def _mfcc(waveform: np.ndarray, spec: ClipSpec, key: str) -> np.ndarray:
    """Returns the MFCC of a clip, after adding noise if `spec` asks for it."""
    if spec.noise_snr_db is not None:
        # From the key and not from the position: the noise of a clip stays the same
        # when others are added. `hash` differs between processes.
        clip_seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        rng = np.random.default_rng([spec.noise_seed, clip_seed])
        waveform = add_white_noise(waveform, spec.noise_snr_db, rng)
    return decode.mfcc(waveform, spec.sample_rate, spec.n_mfcc, pad_mode=spec.pad_mode)


def _grayscale(frames: np.ndarray) -> np.ndarray:
    """Returns the luma (ITU-R BT.601) of RGB frames, with a last axis of 1."""
    luma = frames @ np.array([0.299, 0.587, 0.114])
    return np.round(luma).astype(np.uint8)[..., None]


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
