"""From a video or sound file to pixels, a waveform and MFCC.

PyAV decodes everything. What decoders let pass in silence is checked here: a file cut
short, a web page saved under the name of a clip, sound without samples or with NaN.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.media.file_checks import TOLERANCE, check_header, truncated
from mmfusion_jax.data.media.resize import FrameTransform, SquareResize
from mmfusion_jax.errors import DataError, missing_dependency

N_FFT, HOP = 2048, 512
_SLACK = 0.1  # s; codecs prime and flush with a few frames that headers do not count
_SAME = 1e-6  # s


@dataclasses.dataclass(frozen=True)
class FrameSampling:
    """Which frames to take.

    Attributes:
        count: n frames.
        transform: crops and resizes each of them.
        sampling: "even": frame k is what the screen shows at k/n of the time.
            "consecutive": n neighbours from the middle.
    """

    count: int = 30
    transform: FrameTransform = SquareResize(112)
    sampling: str = "even"

    def times(self, start: float, end: float, rate: float | None) -> np.ndarray:
        """When each of them is on the screen between two times, in seconds.

        Args:
            start: of the span.
            end: of the span.
            rate: frames of the film in a second; None where they are evenly spaced.
        """
        steps = np.arange(self.count)
        if rate is None:
            return start + (end - start) * steps / self.count
        first = max(0, (round((end - start) * rate) - self.count) // 2)
        return start + (first + steps + 0.5) / rate


@dataclasses.dataclass(frozen=True)
class AudioSampling:
    """Which sound to take.

    Attributes:
        sample_rate: in Hz, after resampling (soxr, as librosa does it).
        offset: seconds to leave out at the beginning.
        duration: seconds to take; None takes the rest.
        min_samples: samples below which there is nothing to analyse.
    """

    sample_rate: int = 22050
    offset: float = 0.0
    duration: float | None = None
    min_samples: int = N_FFT


@dataclasses.dataclass(frozen=True)
class Clip:
    """What a file holds.

    Attributes:
        frames: (t s s 3) uint8 RGB; None without a video stream.
        waveform: (n) float32 in [-1, 1], the mean of the channels; None without a
            sound stream.
        duration: of the longer stream, in seconds.
    """

    frames: np.ndarray | None
    waveform: np.ndarray | None
    duration: float


def read(
    path: Path,
    frames: FrameSampling | None = None,
    audio: AudioSampling | None = None,
    *,
    start: float = 0.0,
    end: float | None = None,
) -> Clip:
    """Decodes a file, or says what is wrong with it.

    Args:
        path: any container PyAV opens.
        frames: which frames; None leaves the video alone.
        audio: which sound; None leaves it alone.
        start: where the span to use begins, in seconds.
        end: where it ends; None is the end of the file.

    Raises:
        DataError: the file is absent, no clip, damaged, cut short or too short.
        ExtraError: PyAV, Pillow or librosa is not installed.
    """
    av = _av()
    path = path.absolute()
    check_header(path)
    pixels = waveform = None
    try:
        lengths = _lengths(av, path)
        if end is not None and end > max(lengths.values()) + _SLACK:
            raise DataError(
                "D34",
                f"{path}: the span {start:g}-{end:g} s goes past its end at "
                f"{max(lengths.values()):.2f} s.",
                "correct start and end",
            )
        if frames and "video" in lengths:
            last = lengths["video"] if end is None else end
            rate = None if frames.sampling == "even" else _rate(av, path)
            times = frames.times(start, last, rate)
            pixels = _frames(av, path, times, lengths["video"], frames.transform)
        if audio and "audio" in lengths:
            waveform = _waveform(av, path, audio, (start, end), lengths["audio"])
    except av.error.FFmpegError as error:
        raise DataError(
            "D32",
            f"{path} cannot be decoded: {error.strerror}.",
            "copy or download it again",
        ) from error
    return Clip(pixels, waveform, max(lengths.values()))


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
    """Mel frequency cepstral coefficients by the definition of librosa.

    Args:
        waveform: (n) float, n >= n_fft.
        sample_rate: in Hz.
        n_mfcc: how many coefficients.
        pad_mode: how the edges are padded: "reflect" as librosa did before 0.9,
            "constant" as it does today.
        n_fft: samples in a window (periodic Hann).
        hop: samples between windows.
        bands: Slaney mel bands from 0 to sample_rate / 2.

    Returns:
        (1 + n // hop, n_mfcc) float32.

    Source:
        CFN-SR, Sec. 3.2; `librosa.feature.mfcc`.
    """
    librosa = _librosa()
    if len(waveform) < n_fft:
        raise ValueError(f"{len(waveform)} samples are fewer than n_fft={n_fft}.")
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
    """PyAV, or the error that names the extra."""
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", "media", "decoding video and sound") from error
    return av


def _librosa() -> Any:
    """Librosa, or the error that names the extra."""
    try:
        import librosa
    except ImportError as error:
        raise missing_dependency("librosa", "media", "MFCC and resampling") from error
    return librosa


def _open(av: Any, path: Path) -> Any:
    """Opens a container that may not refer to anything beyond itself."""
    limits = {"protocol_whitelist": "file"}
    return av.open(str(path), options=limits, **_any_text(av))


def _any_text(av: Any) -> dict[str, str]:
    """The arguments with which PyAV opens a file whose metadata is not UTF-8.

    Before PyAV 19 it raises UnicodeDecodeError unless told to replace what it cannot
    read. PyAV 19 reads every byte, and refuses the argument. `av.open` is compiled and
    has no signature to ask, so the version decides.
    """
    if int(av.__version__.split(".")[0]) >= 19:
        return {}
    return {"metadata_errors": "replace"}


def _stream(av: Any, container: Any, kind: str) -> Any:
    """The first stream of a kind; the cover picture of a song is not a video."""
    cover = av.stream.Disposition.attached_pic
    streams = getattr(container.streams, kind)
    return next((s for s in streams if not s.disposition & cover), None)


def _rate(av: Any, path: Path) -> float:
    """Frames of the film in a second, on average."""
    with _open(av, path) as container:
        rate = _stream(av, container, "video").average_rate
    if not rate:
        raise DataError("D31", f"{path} does not tell its frames per second.")
    return float(rate)


def _lengths(av: Any, path: Path) -> dict[str, float]:
    """Stream type -> seconds, by the packets there are; checks them against headers."""
    kinds = ("video", "audio")
    with _open(av, path) as container:
        whole = (container.duration or 0) / av.time_base
        streams = [s for kind in kinds if (s := _stream(av, container, kind))]
        if not streams:
            raise DataError("D31", f"{path} has neither pictures nor sound.")
        if unknown := [s.type for s in streams if s.codec_context is None]:
            raise DataError("D31", f"{path}: nothing here decodes its {unknown[0]}.")
        spans = {stream.type: [np.inf, -np.inf] for stream in streams}
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
    _check_length(path, max(lengths.values()), whole, "clip")
    return lengths


def _check_length(path: Path, have: float, want: float, what: str) -> None:
    """Refuses a stream that is shorter than what is said about it."""
    if have < want * (1 - TOLERANCE) - _SLACK:
        raise truncated(path, f"{have:.2f} of {want:.2f} s of {what}")


def _frames(
    av: Any, path: Path, times: np.ndarray, length: float, look: FrameTransform
) -> np.ndarray:
    """What the screen shows at `times`, in seconds from the first frame."""
    taken: list[np.ndarray] = []
    shown, first, stop = None, None, 0.0
    with _open(av, path) as container:
        for frame in container.decode(_stream(av, container, "video")):
            if frame.is_corrupt or frame.time is None:
                raise av.error.InvalidDataError(0, "a frame is damaged")
            first = frame.time if first is None else first
            while shown and len(taken) < len(times):
                if times[len(taken)] >= frame.time - first - _SAME:
                    break
                taken.append(look(len(taken), _upright(shown)))
            shown, stop = frame, frame.time - first
            stop += float((frame.duration or 0) * frame.time_base)
    if shown is None:
        raise truncated(path, "no frame can be decoded")
    _check_length(path, stop, length, "video")
    while len(taken) < len(times):
        taken.append(look(len(taken), _upright(shown)))
    return np.stack(taken)


def _upright(frame: Any) -> np.ndarray:
    """The pixels as the recorder wants them shown, (h w 3)."""
    return np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))


def _waveform(
    av: Any,
    path: Path,
    sound: AudioSampling,
    span: tuple[float, float | None],
    length: float,
) -> np.ndarray:
    """The mean of the channels between two times, resampled, (n) float32."""
    with _open(av, path) as container:
        stream = _stream(av, container, "audio")
        rate = stream.codec_context.sample_rate
        parts = [np.zeros(0, np.float32), *_mono(av, container.decode(stream))]
    waveform = np.concatenate(parts)
    _check_length(path, len(waveform) / rate, length, "audio")
    if not np.isfinite(waveform).all():
        raise DataError("D33", f"{path}: the sound holds values that are not finite.")
    start = span[0] + sound.offset
    stop = np.inf if span[1] is None else span[1]
    if sound.duration is not None:
        stop = min(stop, start + sound.duration)
    end = len(waveform) if stop == np.inf else round(stop * rate)
    waveform = waveform[round(start * rate) : end]
    if rate != sound.sample_rate and len(waveform):
        waveform = _librosa().resample(
            waveform, orig_sr=rate, target_sr=sound.sample_rate
        )
    if len(waveform) < sound.min_samples:
        raise DataError(
            "D33",
            f"{path}: {len(waveform)} samples of sound from {start:g} s on are fewer "
            f"than {sound.min_samples}.",
            "use a longer clip or a smaller offset",
        )
    return waveform


def _mono(av: Any, frames: Iterator[Any]) -> Iterator[np.ndarray]:
    """The mean of the channels of decoded sound, piece by piece."""
    # Interleaved: PyAV crashes on planar sound of eight channels.
    floats = av.AudioResampler(format="flt")
    for frame in frames:
        for piece in floats.resample(frame):
            channels = piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
            yield channels.mean(axis=1, dtype=np.float32)
