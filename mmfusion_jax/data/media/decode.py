"""Decodes video and audio files to frames, a waveform and MFCC.

PyAV decodes everything. This module checks what decoders accept silently: truncated
files, HTML pages saved as clips, audio without samples or with NaN.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.media.audio_samples import Samples, read_samples
from mmfusion_jax.data.media.clip_remark import ClipRemark
from mmfusion_jax.data.media.file_checks import check_header
from mmfusion_jax.data.media.resize import FrameTransform, SquareResize
from mmfusion_jax.data.media.timeline import (
    SLACK,
    Timeline,
    import_av,
    read_timeline,
)
from mmfusion_jax.data.media.truncation import truncated
from mmfusion_jax.data.media.video_frames import WantedFrame, take_frames
from mmfusion_jax.errors import DataError, missing_dependency, shorten

N_FFT, HOP = 2048, 512
_SILENT = 1e-4  # amplitude
_SAME = 1e-6  # s
_GAP = 0.2  # s; shorter gaps are not worth a remark
_BLACK = 24  # of 255; above, at most one pixel of a thousand is brighter


@dataclasses.dataclass(frozen=True)
class FrameSampling:
    """Sampling of video frames.

    Attributes:
        count: Number of frames, n.
        transform: Crops and resizes each of them.
        sampling: "uniform": frame k is the one displayed at k/n of the duration.
            "consecutive": n consecutive frames from the middle.
    """

    count: int = 30
    transform: FrameTransform = SquareResize(112)
    sampling: str = "uniform"

    def times(self, start: float, end: float, rate: float | None) -> np.ndarray:
        """Returns the time at which each of them is displayed, in seconds.

        Args:
            start: Start of the segment.
            end: End of the segment.
            rate: Frames per second of the video; None for uniform sampling.
        """
        steps = np.arange(self.count)
        if rate is None:
            return start + (end - start) * steps / self.count
        first = max(0, (round((end - start) * rate) - self.count) // 2)
        return start + (first + steps + 0.5) / rate


@dataclasses.dataclass(frozen=True)
class AudioSampling:
    """Selection and resampling of audio.

    Attributes:
        sample_rate: Sample rate in Hz after resampling (soxr, as in librosa).
        offset: Seconds to skip at the beginning.
        duration: Seconds to read; None reads the rest.
        min_samples: Minimum number of samples.
    """

    sample_rate: int = 22050
    offset: float = 0.0
    duration: float | None = None
    min_samples: int = N_FFT


@dataclasses.dataclass(frozen=True)
class Clip:
    """A decoded file.

    Attributes:
        frames: (t s s 3) uint8 RGB, 0 where `frame_mask` is False; None without a
            video stream in the segment.
        waveform: (n) float32 in [-1, 1], the mean of the channels that are not empty;
            None without audio in the segment, or with too few samples.
        duration: End of the longer stream in seconds.
        key_frame: (1 s s 3) uint8 RGB; None without a video stream at this time.
        frame_mask: (t) bool, False outside of the video stream; None without `frames`.
        channels: Number of audio channels; 0 without audio.
        remarks: Findings, such as silent audio.
    """

    frames: np.ndarray | None
    waveform: np.ndarray | None
    duration: float
    key_frame: np.ndarray | None = None
    frame_mask: np.ndarray | None = None
    channels: int = 0
    remarks: tuple[ClipRemark, ...] = ()


def read(
    path: Path,
    frames: FrameSampling | None = None,
    audio: AudioSampling | None = None,
    *,
    start: float = 0.0,
    end: float | None = None,
    key_frame: FrameTransform | None = None,
) -> Clip:
    """Decodes a file, or a segment of it.

    All times are those of the container: a frame and a sample of the same time are
    displayed and played together. Audio that begins late, or of which packets are
    missing, is padded with silence; frames outside of the video stream are masked.
    Audio with too few samples is masked if there are frames, and is an error without.

    Args:
        path: Any container that PyAV opens.
        frames: Frames to sample; None skips the video.
        audio: Audio to read; None skips it.
        start: Start of the segment to use, in seconds.
        end: End of the segment; None is the end of the file, for frames that of the
            video.
        key_frame: Crops and resizes the key frame, the one displayed in the middle of
            the segment; None does not take one.

    Raises:
        DataError: The file is missing, not a media file, damaged, truncated or too
            short, or the segment is outside of it.
        MissingDependencyError: PyAV, Pillow or librosa is not installed.
    """
    av = import_av()
    path = path.absolute()
    check_header(path)
    remarks: list[ClipRemark] = []
    taken: list[np.ndarray | None] = []
    waveform, channels = None, 0
    try:
        timeline = read_timeline(av, path)
        _check_segment(path, start, end, timeline.duration)
        if "video" in timeline.tracks:
            wanted = _wanted(timeline, frames, key_frame, start, end)
            if wanted:
                taken = take_frames(av, path, timeline, wanted, to_end=end is None)
        if audio:
            samples = _samples(av, path, timeline, audio, start, end)
            waveform = _waveform(path, samples, audio)
            remarks += _audio_remarks(timeline, audio, samples, waveform)
            channels = samples.channels if samples else 0
            if waveform is None and samples and all(one is None for one in taken):
                raise _too_few_samples(path, samples, audio, start)
    except av.error.EOFError as error:
        raise truncated(path, "it ends before its first frame") from error
    except av.error.FFmpegError as error:
        damaged = isinstance(error, av.error.InvalidDataError)
        raise DataError(
            "D32",
            f"{path} could not be decoded: {error.strerror}."
            f"{' It is damaged or cut short.' if damaged else ''}",
            "copy or download it again, or convert it: ffmpeg -i FILE NEW.mp4",
        ) from error
    count = frames.count if frames else 0
    pixels, mask = _stacked(taken[:count])
    image, _ = _stacked(taken[count:])
    if frames or key_frame:
        remarks += _video_remarks(timeline, taken)
    return Clip(
        pixels, waveform, timeline.duration, image, mask, channels, tuple(remarks)
    )


def mfcc(
    waveform: np.ndarray,
    sample_rate: int,
    n_mfcc: int = 13,
    *,
    pad_mode: str = "reflect",
    n_fft: int = N_FFT,
    hop: int = HOP,
    bands: int = 128,
) -> np.ndarray:
    """Mel frequency cepstral coefficients as defined by librosa.

    Args:
        waveform: (n) float, n >= n_fft.
        sample_rate: Sample rate in Hz.
        n_mfcc: Number of coefficients.
        pad_mode: Padding of the ends: "reflect" as librosa did before 0.9,
            "constant" as it does today.
        n_fft: Window length in samples (periodic Hann).
        hop: Hop length in samples.
        bands: Number of Slaney mel bands from 0 to sample_rate / 2.

    Returns:
        (1 + n // hop, n_mfcc) float32.

    Reference:
        CFN-SR, Sec. 3.2; `librosa.feature.mfcc`.
    """
    librosa = import_librosa()
    if len(waveform) < n_fft:
        raise ValueError(f"{len(waveform)} samples is less than n_fft={n_fft:d}.")
    coefficients = librosa.feature.mfcc(
        y=np.asarray(waveform, np.float32),
        sr=sample_rate,
        n_mfcc=n_mfcc,
        pad_mode=pad_mode,
        n_fft=n_fft,
        hop_length=hop,
        n_mels=bands,
    )
    return np.ascontiguousarray(coefficients.T, np.float32)


def import_librosa() -> Any:
    """Imports librosa, or raises the error that names the extra."""
    try:
        import librosa
    except ImportError as error:
        raise missing_dependency("librosa", "media", "MFCC and resampling") from error
    return librosa


def _unit_hint(start: float, end: float, duration: float) -> str:
    """Returns that a segment far beyond the end fits in milliseconds; "" otherwise."""
    if end < 10 * duration or end / 1000 > duration + SLACK:
        return ""
    return f"; milliseconds would fit: {start / 1000:g}-{end / 1000:g} s"


def _check_segment(
    path: Path, start: float, end: float | None, duration: float
) -> None:
    """Raises DataError for a segment that is not within the file."""
    if end is not None and end > duration + SLACK:
        raise DataError(
            "D34",
            f"{path}: the segment {start:g}-{end:g} s exceeds the clip, which ends "
            f"at {duration:.2f} s{shorten(_unit_hint(start, end, duration))}.",
            "correct start and end",
        )
    if start and start >= duration:
        raise DataError(
            "D34",
            f"{path}: the segment starts at {start:g} s, but the clip ends at "
            f"{duration:.2f} s.",
            "correct start and end",
        )


def _wanted(
    timeline: Timeline,
    frames: FrameSampling | None,
    key_frame: FrameTransform | None,
    start: float,
    end: float | None,
) -> list[WantedFrame]:
    """Returns the frames of a segment to take: the sampled ones, then the key frame."""
    track = timeline.tracks["video"]
    last = max(start, track.end) if end is None else end
    wanted = []
    if frames:
        if frames.sampling == "uniform":
            times = frames.times(start, last, None)
        else:
            times = _consecutive(timeline, frames.count, start, last)
        wanted = [WantedFrame(t, i, frames.transform) for i, t in enumerate(times)]
    if key_frame:
        wanted.append(WantedFrame((start + last) / 2, 0, key_frame))
    return wanted


def _consecutive(
    timeline: Timeline, count: int, start: float, end: float
) -> np.ndarray:
    """Returns the times of frames from the middle of a segment, whatever the rate."""
    track = timeline.tracks["video"]
    times = timeline.seconds(track, np.unique(track.ticks))
    inside = times[(times >= start - _SAME) & (times < end - _SAME)]
    first = max(0, (len(inside) - count) // 2)
    chosen = inside[first : first + count]
    # Fewer frames than asked for: the rest is after the end of the video, and masked.
    return np.concatenate([chosen + _SAME, np.full(count - len(chosen), np.inf)])


def _stacked(
    taken: Sequence[np.ndarray | None],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Returns frames (t s s 3) and their mask (t); None if there is not any."""
    mask = np.array([one is not None for one in taken], bool)
    if not mask.any():
        return None, None
    blank = np.zeros_like(next(one for one in taken if one is not None))
    return np.stack([blank if one is None else one for one in taken]), mask


def _samples(
    av: Any,
    path: Path,
    timeline: Timeline,
    audio: AudioSampling,
    start: float,
    end: float | None,
) -> Samples | None:
    """Returns the audio of a segment; None without an audio stream in it."""
    track = timeline.tracks.get("audio")
    if track is None:
        return None
    stop = np.inf if end is None else end
    if start >= track.end or stop <= track.begin:
        return None
    start += audio.offset
    if audio.duration is not None:
        stop = min(stop, start + audio.duration)
    return read_samples(av, path, timeline, start, stop)


def _waveform(
    path: Path, samples: Samples | None, audio: AudioSampling
) -> np.ndarray | None:
    """Returns resampled audio, (n) float32; None with too few samples."""
    if samples is None:
        return None
    waveform = samples.values
    if not np.isfinite(waveform).all():
        raise DataError("D33", f"{path}: the audio contains NaN or infinite values.")
    if samples.rate != audio.sample_rate and len(waveform):
        waveform = import_librosa().resample(
            waveform, orig_sr=samples.rate, target_sr=audio.sample_rate
        )
    return waveform if len(waveform) >= audio.min_samples else None


def _count(samples: Samples, audio: AudioSampling) -> int:
    """Returns the number of samples after resampling."""
    return -(-len(samples.values) * audio.sample_rate // samples.rate)


def _too_few_samples(
    path: Path, samples: Samples, audio: AudioSampling, start: float
) -> DataError:
    """Returns the error for audio that is too short, without any frames."""
    return DataError(
        "D33",
        f"{path}: too few audio samples from {start + audio.offset:g} s on: "
        f"{_count(samples, audio):d}, minimum {audio.min_samples:d}.",
        "use a longer clip or a smaller offset",
    )


def _audio_remarks(
    timeline: Timeline,
    audio: AudioSampling,
    samples: Samples | None,
    waveform: np.ndarray | None,
) -> list[ClipRemark]:
    """Returns findings about the audio of a segment."""
    if samples is None:
        reason = timeline.unusable.get("audio", "")
        if not reason and "audio" in timeline.tracks:
            reason = "the segment is outside of its audio"
        return [ClipRemark("audio_masked", reason)] if reason else []
    if waveform is None:
        count = _count(samples, audio)
        reason = f"{count:d} audio samples, minimum {audio.min_samples:d}"
        return [ClipRemark("audio_masked", reason)]
    return _sound_remarks(samples, waveform)


def _sound_remarks(samples: Samples, waveform: np.ndarray) -> list[ClipRemark]:
    """Returns findings about audio that is used."""
    remarks = []
    if np.abs(waveform).max(initial=0) < _SILENT:
        remarks.append(ClipRemark("silent", "its audio is silent"))
    if samples.silent_gaps > _GAP:
        text = f"{samples.silent_gaps:.2f} s of its audio are missing and silent"
        remarks.append(ClipRemark("audio_gap", text))
    if samples.channels > 2 or samples.empty_channels:
        text = f"{samples.channels:d} audio channels"
        if samples.empty_channels:
            text += f", of which {samples.empty_channels:d} are empty and not averaged"
        remarks.append(ClipRemark("channels", text))
    return remarks


def _video_remarks(
    timeline: Timeline, taken: Sequence[np.ndarray | None]
) -> list[ClipRemark]:
    """Returns findings about the frames of a segment."""
    if reason := timeline.unusable.get("video"):
        return [ClipRemark("frames_masked", reason)]
    shown = [one for one in taken if one is not None]
    remarks = []
    if len(shown) < len(taken):
        outside = len(taken) - len(shown)
        text = f"{outside:d} of {len(taken)} frames are outside of its video"
        remarks.append(ClipRemark("frames_masked", text))
    if shown and all(np.percentile(one, 99.9) < _BLACK for one in shown):
        remarks.append(ClipRemark("black", "its frames are black"))
    return remarks
