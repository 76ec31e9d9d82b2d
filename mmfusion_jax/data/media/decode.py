"""Decodes video and audio files to frames, a waveform and MFCC.

PyAV decodes everything. This module checks what decoders accept silently: truncated
files, HTML pages saved as clips, audio without samples or with NaN.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.media.file_checks import TOLERANCE, check_header, truncated
from mmfusion_jax.data.media.resize import FrameTransform, SquareResize
from mmfusion_jax.errors import DataError, missing_dependency, shown_name

N_FFT, HOP = 2048, 512
_SLACK = 0.1  # s; codecs add a few frames at both ends that headers do not count
_SAME = 1e-6  # s


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
        frames: (t s s 3) uint8 RGB; None without a video stream.
        key_frame: (1 s s 3) uint8 RGB; None without a video stream.
        waveform: (n) float32 in [-1, 1], the mean of the channels; None without an
            audio stream.
        duration: Duration of the longer stream in seconds.
    """

    frames: np.ndarray | None
    waveform: np.ndarray | None
    duration: float
    key_frame: np.ndarray | None = None


def read(
    path: Path,
    frames: FrameSampling | None = None,
    audio: AudioSampling | None = None,
    *,
    start: float = 0.0,
    end: float | None = None,
    key_frame: FrameTransform | None = None,
) -> Clip:
    """Decodes a file.

    Args:
        path: Any container that PyAV opens.
        frames: Frames to sample; None skips the video.
        audio: Audio to read; None skips it.
        start: Start of the segment to use, in seconds.
        end: End of the segment; None is the end of the file.
        key_frame: Crops and resizes the key frame, the one displayed in the middle of
            the segment; None does not take one.

    Raises:
        DataError: The file is missing, not a media file, damaged, truncated or too
            short.
        MissingDependencyError: PyAV, Pillow or librosa is not installed.
    """
    av = _av()
    path = path.absolute()
    check_header(path)
    pixels = image = waveform = None
    try:
        lengths = _lengths(av, path)
        if end is not None and end > max(lengths.values()) + _SLACK:
            raise DataError(
                "D34",
                f"{path}: the segment {start:g}-{end:g} s exceeds the clip, which ends "
                f"at {max(lengths.values()):.2f} s.",
                "correct start and end",
            )
        if "video" in lengths:
            last = lengths["video"] if end is None else end
            wanted = _wanted(av, path, frames, key_frame, start, last)
            if wanted:
                taken = _frames(av, path, wanted, lengths["video"])
                count = frames.count if frames else 0
                pixels = np.stack(taken[:count]) if frames else None
                image = np.stack(taken[count:]) if key_frame else None
        if audio and "audio" in lengths:
            waveform = _waveform(av, path, audio, (start, end), lengths["audio"])
    except av.error.FFmpegError as error:
        raise DataError(
            "D32",
            f"{path} could not be decoded: {error.strerror}.",
            "copy or download it again",
        ) from error
    return Clip(pixels, waveform, max(lengths.values()), image)


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


def _av() -> Any:
    """Imports PyAV, or raises the error that names the extra."""
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", "media", "decoding video and audio") from error
    return av


def import_librosa() -> Any:
    """Imports librosa, or raises the error that names the extra."""
    try:
        import librosa
    except ImportError as error:
        raise missing_dependency("librosa", "media", "MFCC and resampling") from error
    return librosa


def _open(av: Any, path: Path) -> Any:
    """Opens a container that may not open other files or URLs."""
    # A container can refer to other files and to URLs, which FFmpeg would open.
    limits = {"protocol_whitelist": "file"}
    return av.open(str(path), options=limits, **_metadata_options(av))


def _metadata_options(av: Any) -> dict[str, str]:
    """Returns the arguments with which PyAV opens a file whose metadata is not UTF-8.

    PyAV before 19 raises UnicodeDecodeError without this argument, PyAV 19 reads every
    byte and rejects the argument. `av.open` is compiled and has no signature to
    inspect, so the version decides.
    """
    if int(av.__version__.split(".")[0]) >= 19:
        return {}
    return {"metadata_errors": "replace"}


def _stream(av: Any, container: Any, kind: str) -> Any:
    """Returns the first stream of a kind; the cover image of a song is not a video."""
    cover = av.stream.Disposition.attached_pic
    streams = getattr(container.streams, kind)
    return next((s for s in streams if not s.disposition & cover), None)


def _rate(av: Any, path: Path) -> float:
    """Returns the average frames per second of the video."""
    with _open(av, path) as container:
        rate = _stream(av, container, "video").average_rate
    if not rate:
        raise DataError("D31", f"{path} has no frame rate in its header.")
    return float(rate)


def _lengths(av: Any, path: Path) -> dict[str, float]:
    """Stream type -> seconds, from its packets; checks them against the headers."""
    kinds = ("video", "audio")
    with _open(av, path) as container:
        total = (container.duration or 0) / av.time_base
        streams = [s for kind in kinds if (s := _stream(av, container, kind))]
        if not streams:
            raise DataError("D31", f"{path} has no video or audio stream.")
        if unknown := [s.type for s in streams if s.codec_context is None]:
            raise DataError(
                "D31", f"{path}: no decoder for its {shown_name(unknown[0])} stream."
            )
        spans = {stream.type: [np.inf, -np.inf] for stream in streams}
        # Packets are read without decoding them: headers of truncated files state the
        # full length, and decoders end early without an error.
        for packet in container.demux(*streams):
            at = packet.dts if packet.pts is None else packet.pts
            if packet.size and at is not None and not packet.is_discard:
                unit, span = packet.time_base, spans[packet.stream.type]
                span[0] = min(span[0], float(at * unit))
                span[1] = max(span[1], float((at + (packet.duration or 0)) * unit))
        lengths = {
            kind: max(0.0, stop - begin) for kind, (begin, stop) in spans.items()
        }
        for stream in streams:
            declared = float((stream.duration or 0) * stream.time_base)
            _check_length(path, lengths[stream.type], declared, stream.type)
    _check_length(path, max(lengths.values()), total, "clip")
    return lengths


def _check_length(path: Path, have: float, want: float, what: str) -> None:
    """Raises DataError for a stream that is shorter than its header states."""
    if have < want * (1 - TOLERANCE) - _SLACK:
        raise truncated(path, f"{have:.2f} of {want:.2f} s of {what}")


@dataclasses.dataclass(frozen=True)
class _WantedFrame:
    """A frame to take.

    Attributes:
        time: When it is displayed, in seconds from the first frame.
        index: Argument of the transform.
        transform: Crops and resizes it.
    """

    time: float
    index: int
    transform: FrameTransform

    def take(self, frame: Any) -> np.ndarray:
        """Returns the pixels of the frame."""
        return self.transform(self.index, _upright(frame))


def _wanted(
    av: Any,
    path: Path,
    frames: FrameSampling | None,
    key_frame: FrameTransform | None,
    start: float,
    end: float,
) -> list[_WantedFrame]:
    """Returns the frames of a segment to take: the sampled ones, then the key frame."""
    wanted = []
    if frames:
        rate = None if frames.sampling == "uniform" else _rate(av, path)
        times = frames.times(start, end, rate)
        wanted = [_WantedFrame(t, i, frames.transform) for i, t in enumerate(times)]
    if key_frame:
        wanted.append(_WantedFrame((start + end) / 2, 0, key_frame))
    return wanted


def _frames(
    av: Any, path: Path, wanted: list[_WantedFrame], length: float
) -> list[np.ndarray]:
    """Returns the wanted frames, in their order."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i].time)
    taken: dict[int, np.ndarray] = {}
    shown, first, stop = None, None, 0.0
    with _open(av, path) as container:
        for frame in container.decode(_stream(av, container, "video")):
            if frame.is_corrupt or frame.time is None:
                raise av.error.InvalidDataError(0, "a frame is corrupted")
            # Times in a file need not start at 0.
            first = frame.time if first is None else first
            # The frame displayed at a time is the last one that starts before it, so a
            # frame is taken when the next one is known.
            while shown and len(taken) < len(wanted):
                i = order[len(taken)]
                if wanted[i].time >= frame.time - first - _SAME:
                    break
                taken[i] = wanted[i].take(shown)
            shown, stop = frame, frame.time - first
            stop += float((frame.duration or 0) * frame.time_base)
    if shown is None:
        raise truncated(path, "no frame could be decoded")
    _check_length(path, stop, length, "video")
    for i in order[len(taken) :]:
        taken[i] = wanted[i].take(shown)
    return [taken[i] for i in range(len(wanted))]


def _upright(frame: Any) -> np.ndarray:
    """Returns the pixels of a frame, rotated according to its metadata, (h w 3)."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def _waveform(
    av: Any,
    path: Path,
    audio: AudioSampling,
    segment: tuple[float, float | None],
    length: float,
) -> np.ndarray:
    """Returns the mean of the channels between two times, resampled, (n) float32."""
    with _open(av, path) as container:
        stream = _stream(av, container, "audio")
        rate = stream.codec_context.sample_rate
        chunks = [np.zeros(0, np.float32), *_mono(av, container.decode(stream))]
    waveform = np.concatenate(chunks)
    _check_length(path, len(waveform) / rate, length, "audio")
    if not np.isfinite(waveform).all():
        raise DataError("D33", f"{path}: the audio contains NaN or infinite values.")
    start = segment[0] + audio.offset
    stop = np.inf if segment[1] is None else segment[1]
    if audio.duration is not None:
        stop = min(stop, start + audio.duration)
    end = len(waveform) if stop == np.inf else round(stop * rate)
    waveform = waveform[round(start * rate) : end]
    if rate != audio.sample_rate and len(waveform):
        waveform = import_librosa().resample(
            waveform, orig_sr=rate, target_sr=audio.sample_rate
        )
    if len(waveform) < audio.min_samples:
        raise DataError(
            "D33",
            f"{path}: too few audio samples from {start:g} s on: {len(waveform)}, "
            f"minimum {audio.min_samples:d}.",
            "use a longer clip or a smaller offset",
        )
    return waveform


def _mono(av: Any, frames: Iterator[Any]) -> Iterator[np.ndarray]:
    """Yields the mean of the channels of decoded audio, chunk by chunk."""
    # Interleaved: PyAV crashes on planar audio of eight channels.
    floats = av.AudioResampler(format="flt")
    for frame in frames:
        for chunk in floats.resample(frame):
            channels = chunk.to_ndarray().reshape(-1, chunk.layout.nb_channels)
            yield channels.mean(axis=1, dtype=np.float32)
