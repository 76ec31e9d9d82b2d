"""Reads a segment of the audio of a file."""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.media.timeline import (
    Timeline,
    Track,
    check_length,
    open_container,
    packets,
    seek,
)
from mmfusion_jax.errors import DataError

_JITTER = 0.05  # s; time stamps are rounded, and those of old formats are not exact
_MAX_SAMPLES = 1 << 29  # 2 GiB; 3 hours at 48 kHz
_SEEK_FROM = 20.0  # s; below, decoding from the start is faster than seeking
_PREROLL = 1.0  # s; a codec needs up to 0.1 s to give the same samples
_WITH_INDEX = (
    *("avi", "flv", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2"),
    *("mpegts", "w64", "wav"),
)
_EMPTY = 1e-4
"""Maximum amplitude of a channel without audio: a codec adds noise to silence."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """A segment of audio.

    Attributes:
        values: (n) float32, the mean of the channels that are not empty.
        rate: Sample rate in Hz.
        channels: Number of channels.
        empty_channels: Number of channels without audio, if others have some.
        silent_gaps: Seconds of missing audio within it, which are silence.
    """

    values: np.ndarray
    rate: int
    channels: int
    empty_channels: int
    silent_gaps: float


class _CannotSeekError(Exception):
    """The position after seeking is not the expected one."""


def read_samples(
    av: Any, path: Path, timeline: Timeline, start: float, stop: float
) -> Samples:
    """Returns the audio between two times.

    Before the audio stream begins, and where packets are missing, there is silence.
    After its end there is nothing: the result is shorter.

    Args:
        av: PyAV.
        path: File.
        timeline: Its clock.
        start: Start in seconds.
        stop: End in seconds; infinite for all.
    """
    track = timeline.tracks["audio"]
    with open_container(av, path) as container:
        stream = container.streams[track.index]
        indexed = container.format.name in _WITH_INDEX and track.seekable
        rate = stream.codec_context.sample_rate
    far = indexed and start - track.begin > _SEEK_FROM
    try:
        return _Segment(path, rate, start, stop).read(av, timeline, track, far)
    except (_CannotSeekError, av.error.FFmpegError):
        if not far:
            raise
        # A position after seeking can be in the middle of a frame.
        return _Segment(path, rate, start, stop).read(av, timeline, track, False)


class _Segment:
    """Collects the decoded audio of a segment."""

    def __init__(self, path: Path, rate: int, start: float, stop: float):
        self.path, self.rate, self.start, self.stop = path, rate, start, stop
        self.first = round(start * rate)
        self.last = None if stop == np.inf else round(stop * rate)
        # Sums of the channels, and the number of channels, which can change.
        self.parts: list[tuple[np.ndarray, int]] = []
        self.peaks: dict[int, np.ndarray] = {}
        self.count = 0  # samples in `parts`
        self.silent_gaps = 0.0

    def read(self, av: Any, timeline: Timeline, track: Track, sought: bool) -> Samples:
        """Decodes from the start of the file, or after a seek."""
        position: int | None = None  # of the next sample, from the start of the file
        with open_container(av, self.path) as container:
            stream = container.streams[track.index]
            if sought:
                seek(container, stream, timeline.tick(track, self.start - _PREROLL))
            converter = _Converter(av, self.rate)
            clock = timeline.streams(container)
            for frame in _decoded(container, stream, clock):
                known = frame.pts is not None
                at = timeline.seconds(track, frame.pts) if known else track.begin
                at = round(at * self.rate)
                if position is None:
                    if sought and (not known or at > self.first - self.rate // 4):
                        raise _CannotSeekError
                    position = at
                gap = at - position if known else 0
                if abs(gap) > _JITTER * self.rate:
                    position = at
                for block in converter(frame):
                    self._add(position, block)
                    position += len(block)
                if self.last is not None and position >= self.last:
                    break
            else:
                end = 0 if position is None else position / self.rate
                check_length(
                    self.path, end - track.begin, track.end - track.begin, "audio"
                )
        return self._result()

    def _add(self, position: int, block: np.ndarray) -> None:
        """Adds samples (n channels) at a position in the file."""
        offset = position - self.first  # in the segment
        end = offset + len(block)
        if self.last is not None:
            end = min(end, self.last - self.first)
        # Earlier samples are skipped, also those that are there twice.
        begin = max(offset, self.count)
        if begin >= end:
            return
        self._require_memory(end)
        if begin > self.count:
            missing = np.zeros(begin - self.count, np.float32)
            if self.parts:
                self.silent_gaps += len(missing) / self.rate
            self.parts.append((missing, 0))
        block = block[begin - offset : end - offset]
        channels = block.shape[1]
        peak = np.abs(block).max(axis=0)
        known = self.peaks.get(channels)
        self.peaks[channels] = peak if known is None else np.maximum(known, peak)
        self.parts.append((block.sum(axis=1, dtype=np.float32), channels))
        self.count = end

    def _require_memory(self, count: int) -> None:
        if count > _MAX_SAMPLES:
            raise DataError(
                "D33",
                f"{self.path}: more than {_MAX_SAMPLES / self.rate / 3600:.1f} h of "
                f"audio from {self.start:g} s on.",
                "use segments: the columns start and end of the labels file",
            )

    def _result(self) -> Samples:
        used = {n: _used_channels(peak) for n, peak in self.peaks.items()}
        values = [part / used.get(n, 1) for part, n in self.parts]
        channels = max(self.peaks, default=0)
        return Samples(
            np.concatenate([np.zeros(0, np.float32), *values]),
            self.rate,
            channels,
            channels - used.get(channels, 0),
            self.silent_gaps,
        )


def _used_channels(peak: np.ndarray) -> int:
    """Returns the number of channels with audio; all of them if none has any."""
    # An empty channel must not lower the loudness, as a mean of all would.
    return int(np.sum(peak > _EMPTY)) or len(peak)


def _decoded(container: Any, stream: Any, clock: Iterable[Any]) -> Iterator[Any]:
    """Yields decoded audio."""
    for packet in packets(container, stream, clock):
        if not packet.size and (packet.dts is not None or packet.pts is not None):
            continue
        try:
            yield from packet.decode()
        except EOFError:
            return


class _Converter:
    """Converts decoded audio to floats at one sample rate."""

    def __init__(self, av: Any, rate: int):
        self.av, self.rate = av, rate
        self.kind: tuple[Any, ...] | None = None
        self.resampler: Any = None

    def __call__(self, frame: Any) -> Iterator[np.ndarray]:
        """Yields the samples of a frame, (n channels) float32."""
        # Interleaved: PyAV crashes on planar audio of eight channels.
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        if kind != self.kind:  # a stream can change in the middle
            self.kind = kind
            self.resampler = self.av.AudioResampler(format="flt", rate=self.rate)
        for chunk in self.resampler.resample(frame):
            yield chunk.to_ndarray().reshape(-1, chunk.layout.nb_channels)
