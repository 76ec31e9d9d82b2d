"""Specification and decoding of a clip."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mmfusion_jax.data.media import decode
from mmfusion_jax.data.media.clip_remark import ClipRemark
from mmfusion_jax.data.media.face_detection import face_box
from mmfusion_jax.data.media.resize import FrameTransform, resize_to
from mmfusion_jax.data.media.speech_features import (
    log_mel,
    remove_silence,
    with_deltas,
)
from mmfusion_jax.data.option_checks import check_choice
from mmfusion_jax.data.preprocessing import (
    add_white_noise,
    normalize_peak,
    pre_emphasize,
)
from mmfusion_jax.data.storage.array_record_store import FeatureSpec
from mmfusion_jax.data.storage.file_checksums import FileState, file_state
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    join_names,
    shorten,
    shown,
    shown_name,
)

MODALITIES = ("audio", "image", "video")
AUDIO_FEATURES = ("mfcc", "log_mel", "waveform")
PAD_MODES = ("reflect", "constant")
FRAME_SAMPLINGS = ("uniform", "consecutive")
_MAX_KEPT_SIDE = 1280  # pixels; all frames of a clip are in memory to detect faces


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """Specification of what to decode from every clip.

    Attributes:
        modalities: Any of "audio", "image", the key frame, and "video".
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
        audio_features: "mfcc", "log_mel", or "waveform" for samples.
        image_size: Side length of the key frame in pixels.
        n_mels: Number of mel bands of "log_mel".
        deltas: Append the first and second differences over time.
        pre_emphasis: Coefficient of the pre-emphasis; 0 for none.
        silence_db: Level below which audio is removed, in dB below the loudest part;
            None removes nothing.
        peak_normalize: Scale the waveform to a maximum of 1.
        face_crop: Crop the frames to the detected face.
    """

    modalities: tuple[str, ...] = ("audio", "video")
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
    audio_features: str = "mfcc"
    image_size: int = 224
    n_mels: int = 40
    deltas: bool = False
    pre_emphasis: float = 0.0
    silence_db: float | None = None
    peak_normalize: bool = False
    face_crop: bool = False

    def __post_init__(self):
        limits = {"frames": 1, "size": 1, "sample_rate": 1000, "n_mfcc": 1, "offset": 0}
        limits |= {"image_size": 1, "n_mels": 1, "pre_emphasis": 0}
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
        check_choice("audio_features", self.audio_features, AUDIO_FEATURES)
        if self.deltas and self.audio_features == "waveform":
            raise ConfigError(
                "C10",
                "config.data.deltas=True requires audio features per frame, not "
                "audio_features='waveform'.",
                "--config.data.deltas=False",
            )
        for modality in self.modalities:
            check_choice("modalities", modality, MODALITIES)
        if not self.modalities:
            raise ConfigError(
                "C10",
                "config.data.modalities must name at least one of "
                f"{join_names(MODALITIES)}.",
            )

    @property
    def audio_steps(self) -> int | None:
        """Steps of audio in `duration` seconds; None if all of a clip is used."""
        if self.duration is None:
            return None
        samples = round(self.duration * self.sample_rate)
        if self.audio_features == "waveform":
            return samples
        return 1 + samples // decode.HOP

    @property
    def audio_shape(self) -> tuple[int, ...]:
        """Shape of one step of audio."""
        if self.audio_features == "waveform":
            return ()
        size = self.n_mels if self.audio_features == "log_mel" else self.n_mfcc
        return (size * 3 if self.deltas else size,)

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """Shapes of a record; a missing modality has no rows.

        "video_mask" is 1 for frames that are there, and 0 for those outside of the
        video stream.
        """
        channels = 3 if self.rgb else 1
        # None: a clip without this modality has no rows.
        frame = (None, self.size, self.size, channels)
        specs = {
            "video": FeatureSpec(frame, "uint8"),
            "video_mask": FeatureSpec((None,), "uint8"),
            "audio": FeatureSpec((None, *self.audio_shape), "float32"),
        }
        if "image" in self.modalities:
            image = (None, self.image_size, self.image_size, channels)
            specs["image"] = FeatureSpec(image, "uint8")
        return specs


@dataclasses.dataclass(frozen=True)
class DecodeJob:
    """One clip to decode.

    Attributes:
        key: Its name in the store, in messages and in the seed of the noise.
        video: File with the frames; None if there is none.
        audio: File with the audio, often the same; None if there is none.
        transform: Crops and resizes a frame.
        image_transform: Crops and resizes the key frame; None if there is none.
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
    image_transform: FrameTransform | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of the clip, each once."""
        named = (self.video, self.audio, *self.extra)
        return tuple(dict.fromkeys(file for file in named if file))


@dataclasses.dataclass(frozen=True)
class Decoded:
    """The result of a worker.

    Attributes:
        record: The modalities of the clip.
        sha256: File name -> checksum.
        face: A face was detected, to which the frames are cropped.
        channels: Number of audio channels; 0 without audio.
        remarks: Findings about the clip, such as silent audio.
    """

    record: dict[str, np.ndarray]
    sha256: dict[str, str]
    face: bool = False
    channels: int = 0
    remarks: tuple[ClipRemark, ...] = ()


def decode_job(spec: ClipSpec, job: DecodeJob) -> Decoded:
    """Decodes one clip to a record of the store.

    What is good of a clip is kept: a modality that cannot be used is masked, with a
    remark, unless nothing else is left.
    """
    clip = _read(spec, job)
    read = {
        name: values
        for name, values in (
            ("video", clip.frames),
            ("image", clip.key_frame),
            ("audio", clip.waveform),
        )
        if values is not None
    }
    if not read:
        reasons = "; ".join(remark.text for remark in clip.remarks)
        raise DataError(
            "D31",
            f"{shorten(job.key)} has no "
            f"{' and '.join(map(shown_name, spec.modalities))}"
            f"{f' ({shorten(reasons)})' if reasons else ''}.",
        )
    face = spec.face_crop and _crop_faces(read, clip.frame_mask, job)
    record = {
        name: np.zeros([axis or 0 for axis in feature.shape], feature.dtype)
        for name, feature in spec.features.items()
    }
    for name, values in read.items():
        if name == "audio":
            record[name] = _audio(values, spec, job.key)
        else:
            record[name] = values if spec.rgb else _grayscale(values)
    if clip.frame_mask is not None:
        record["video_mask"] = clip.frame_mask.astype(np.uint8)
    sums = {file.name: _checksum(file) for file in job.files}
    return Decoded(record, sums, bool(face), clip.channels, clip.remarks)


def _read(spec: ClipSpec, job: DecodeJob) -> decode.Clip:
    """Returns the modalities that are used and there."""
    video = audio = key_frame = None
    # To detect faces, frames are kept in their size.
    if "video" in spec.modalities:
        transform = _Keep() if spec.face_crop else job.transform
        video = decode.FrameSampling(spec.frames, transform, spec.frame_sampling)
    if "image" in spec.modalities:
        key_frame = _Keep() if spec.face_crop else job.image_transform
    if "audio" in spec.modalities:
        audio = decode.AudioSampling(spec.sample_rate, spec.offset, spec.duration)
    read = functools.partial(decode.read, start=job.start, end=job.end)
    if job.video == job.audio and job.video is not None:
        return read(job.video, video, audio, key_frame=key_frame)
    seen = decode.Clip(None, None, 0.0)
    if job.video is not None and (video or key_frame):
        seen = read(job.video, video, key_frame=key_frame)
    if job.audio is None or not audio:
        return seen
    return _with_audio(read, job.audio, job.video, audio, seen)


def _with_audio(
    read: Callable[..., decode.Clip],
    file: Path,
    video: Path | None,
    audio: decode.AudioSampling,
    seen: decode.Clip,
) -> decode.Clip:
    """Returns a clip with the audio of another file, or of its video file."""
    try:
        heard = read(file, None, audio)
    except DataError as error:
        reason = str(error.args[0]).replace(str(file.absolute()), file.name)
        heard = _audio_of_video(read, video, audio, shorten(reason))
        if heard.waveform is None and seen.frames is None and seen.key_frame is None:
            raise
    return dataclasses.replace(
        seen,
        waveform=heard.waveform,
        channels=heard.channels,
        duration=max(seen.duration, heard.duration),
        remarks=(*seen.remarks, *heard.remarks),
    )


def _audio_of_video(
    read: Callable[..., decode.Clip],
    video: Path | None,
    audio: decode.AudioSampling,
    reason: str,
) -> decode.Clip:
    """Returns the audio of the video file, where the audio file cannot be used.

    Without audio in it, the result has none.
    """
    if video is not None:
        with contextlib.suppress(DataError):
            heard = read(video, None, audio)
            if heard.waveform is not None:
                text = f"{reason} The audio of {shown_name(video.name)} is used"
                remark = ClipRemark("audio_from_video", text)
                return dataclasses.replace(heard, remarks=(remark, *heard.remarks))
    remark = ClipRemark("audio_masked", reason.removesuffix("."))
    return decode.Clip(None, None, 0.0, remarks=(remark,))


class _Keep:
    """Keeps a frame in its size, up to 1280 pixels per side.

    All frames of a clip get the size of the first: a video can change it.
    """

    def __init__(self):
        self.shape: tuple[int, int] | None = None

    def __call__(self, index: int, frame: np.ndarray) -> np.ndarray:
        del index
        self.shape = self.shape or frame.shape[:2]
        if frame.shape[:2] == self.shape:
            return frame
        return resize_to(frame, self.shape)

    def reduction(self, height: int, width: int) -> int:
        """Returns by which integer a frame is reduced."""
        return -(-max(height, width) // _MAX_KEPT_SIDE)


def _crop_faces(
    read: dict[str, np.ndarray], frame_mask: np.ndarray | None, job: DecodeJob
) -> bool:
    """Replaces frames by their face, or by the transform of the job without one.

    Returns:
        Whether there is a face.
    """
    transforms = {"video": job.transform, "image": job.image_transform}
    frames = [read[name] for name in transforms if name in read]
    if "video" in read and frame_mask is not None:
        frames[0] = frames[0][frame_mask]
    box = face_box(np.concatenate(frames)) if frames else None
    for name, transform in transforms.items():
        if name not in read or transform is None:
            continue
        pixels = read[name]
        if box is not None:
            left, top, side = box
            pixels = pixels[:, top : top + side, left : left + side]
        read[name] = np.stack([transform(i, frame) for i, frame in enumerate(pixels)])
    return box is not None


def _audio(waveform: np.ndarray, spec: ClipSpec, key: str) -> np.ndarray:
    """Returns the audio features of a clip, after adding noise if `spec` asks for it.

    Args:
        waveform: (n) float32.
        spec: Specification of the features.
        key: Name of the clip.

    Returns:
        MFCC or log-mel (t f), or samples (t), float32.
    """
    if spec.noise_snr_db is not None:
        # From the key and not from the position: the noise of a clip stays the same
        # when others are added. `hash` differs between processes.
        clip_seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        rng = np.random.default_rng([spec.noise_seed, clip_seed])
        waveform = add_white_noise(waveform, spec.noise_snr_db, rng)
    if spec.silence_db is not None:
        waveform = remove_silence(waveform, spec.silence_db)
    if spec.pre_emphasis:
        waveform = pre_emphasize(waveform, spec.pre_emphasis)
    if spec.peak_normalize:
        waveform = normalize_peak(waveform)
    if spec.audio_features == "waveform":
        return waveform
    rate, pad_mode = spec.sample_rate, spec.pad_mode
    if spec.audio_features == "log_mel":
        features = log_mel(waveform, rate, spec.n_mels, pad_mode=pad_mode)
    else:
        features = decode.mfcc(waveform, rate, spec.n_mfcc, pad_mode=pad_mode)
    return with_deltas(features) if spec.deltas else features


def _grayscale(frames: np.ndarray) -> np.ndarray:
    """Returns the luma (ITU-R BT.601) of RGB frames, with a last axis of 1."""
    luma = frames @ np.array([0.299, 0.587, 0.114])
    return np.round(luma).astype(np.uint8)[..., None]


def _checksum(file: Path) -> str:
    """Returns the SHA-256 of a file."""
    return _cached_checksum(file, file_state(file))


@functools.lru_cache(maxsize=4)
def _cached_checksum(file: Path, state: FileState) -> str:
    # A film of many segments is read once.
    del state
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
