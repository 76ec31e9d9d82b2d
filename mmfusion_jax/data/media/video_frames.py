"""Takes the frames of a video that are displayed at given times."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.media.resize import FrameTransform
from mmfusion_jax.data.media.timeline import (
    SLACK,
    Timeline,
    Track,
    check_length,
    open_container,
    packets,
    seek,
)
from mmfusion_jax.data.media.truncation import truncated
from mmfusion_jax.errors import DataError

_SAME = 1e-6  # s
_MAX_SLACK = 0.25  # s
_MAX_PIXELS = 1 << 27  # more than 8K; a frame of a forged header must fit in memory
_MAX_ASPECT = 8.0
_SEEK_FROM = 2.0  # s; below, decoding from the start is faster than seeking


@dataclasses.dataclass(frozen=True)
class WantedFrame:
    """A frame to take.

    Attributes:
        time: When it is displayed, in seconds from the start of the file.
        index: Argument of the transform.
        transform: Crops and resizes it.
    """

    time: float
    index: int
    transform: FrameTransform


class _CannotSeekError(Exception):
    """The position after seeking is not the expected one."""


def take_frames(
    av: Any,
    path: Path,
    timeline: Timeline,
    wanted: Sequence[WantedFrame],
    *,
    to_end: bool,
) -> list[np.ndarray | None]:
    """Returns the wanted frames, in their order; None outside of the video.

    The frame displayed at a time is the last one that starts before it. A time shortly
    before the first frame or after the last one has that frame.

    Args:
        av: PyAV.
        path: File.
        timeline: Its clock.
        wanted: Frames to take.
        to_end: Decode up to the end, and so check all of the file.
    """
    track = timeline.tracks["video"]
    # The time stamps of streams differ by up to two frames.
    slack = min(max(SLACK, 2.5 * track.step), _MAX_SLACK)
    inside = [
        i
        for i, one in enumerate(wanted)
        if track.begin - slack <= one.time < track.end + slack
    ]
    order = sorted(inside, key=lambda i: wanted[i].time)
    if not order:
        return [None] * len(wanted)
    chosen = [wanted[i] for i in order]
    key = None if to_end else _key_before(timeline, track, chosen[0].time)
    try:
        taken = _take(av, path, timeline, chosen, key, to_end)
    except (_CannotSeekError, av.error.FFmpegError):
        if key is None:
            raise
        # A position after seeking can be in the middle of a frame.
        taken = _take(av, path, timeline, chosen, None, to_end)
    found = dict(zip(order, taken, strict=True))
    return [found.get(i) for i in range(len(wanted))]


def _key_before(timeline: Timeline, track: Track, time: float) -> int | None:
    """Returns the time stamp at which to start decoding; None is the start."""
    if not track.seekable or time - track.begin < _SEEK_FROM:
        return None
    keys = track.keys[timeline.seconds(track, track.keys) <= time + _SAME]
    if not len(keys) or keys[-1] <= track.ticks[0]:
        return None
    return int(keys[-1])


def _take(
    av: Any,
    path: Path,
    timeline: Timeline,
    wanted: Sequence[WantedFrame],
    key: int | None,
    to_end: bool,
) -> list[np.ndarray]:
    """Returns frames in the order of their times."""
    track = timeline.tracks["video"]
    taken: list[np.ndarray] = []
    shown, stop = None, 0.0
    with open_container(av, path) as container:
        stream = container.streams[track.index]
        aspect = _pixel_aspect(stream)
        for time, frame in _Frames(av, container, timeline, key):
            while shown is not None and len(taken) < len(wanted):
                one = wanted[len(taken)]
                if one.time >= time - _SAME:
                    break
                taken.append(_pixels(path, shown, aspect, one))
            if len(taken) == len(wanted) and not to_end:
                return taken
            shown = frame
            stop = time + float((frame.duration or 0) * track.unit)
    if shown is None:
        raise truncated(path, "no frame could be decoded")
    check_length(path, stop - track.begin, track.end - track.begin, "video")
    last = (_pixels(path, shown, aspect, one) for one in wanted[len(taken) :])
    return [*taken, *last]


class _Frames:
    """Iterates over the decoded frames of a video, and their times.

    Attributes:
        av: PyAV.
        container: Open container.
        timeline: Its clock.
        key: Time stamp of the key frame at which decoding starts; None is the start.
    """

    def __init__(self, av: Any, container: Any, timeline: Timeline, key: int | None):
        self.av, self.container, self.timeline, self.key = av, container, timeline, key
        self.track = timeline.tracks["video"]
        self.stream = container.streams[self.track.index]
        self.last: float | None = None  # time of the last frame

    def __iter__(self) -> Iterator[tuple[float, Any]]:
        """Yields the time of each frame in seconds, and the frame.

        Raises:
            _CannotSeekError: Decoding does not start at the key frame.
        """
        for packet in self._packets():
            try:
                frames = packet.decode()
            except EOFError:
                return
            for frame in frames:
                self._check(frame)
                if (
                    self.key is not None
                    and self.last is None
                    and self._too_early(frame)
                ):
                    continue
                self.last = self._time(frame)
                yield self.last, frame

    def _packets(self) -> Iterator[Any]:
        """Yields the packets to decode, from a key frame on."""
        key = self.key
        started = key is None
        if key is not None:
            seek(self.container, self.stream, key)
        clock = self.timeline.streams(self.container)
        for packet in packets(self.container, self.stream, clock):
            at_end = packet.dts is None and packet.pts is None
            if not packet.size and not at_end:
                continue  # repeats the frame
            if not started and key is not None:
                pts = packet.pts
                started = packet.is_keyframe and pts is not None
                if at_end or (started and pts is not None and pts > key):
                    raise _CannotSeekError
            if started:
                yield packet

    def _check(self, frame: Any) -> None:
        """Raises an error for a frame that cannot be used."""
        if frame.is_corrupt:
            raise self.av.error.InvalidDataError(0, "a frame is corrupted")
        if frame.width * frame.height > _MAX_PIXELS:
            raise _too_large(self.container.name, frame.width, frame.height)

    def _too_early(self, frame: Any) -> bool:
        """Returns whether a frame is one before the key frame, which may be damaged.

        Frames can be stored after a key frame although they are displayed before it,
        and need earlier ones.
        """
        if frame.pts is None or frame.pts > self.key:
            raise _CannotSeekError
        return frame.pts < self.key

    def _time(self, frame: Any) -> float:
        """Returns when a frame is displayed; estimated if this is not stored."""
        if frame.pts is not None:
            return float(self.timeline.seconds(self.track, frame.pts))
        if self.last is None:
            return self.track.begin
        return self.last + (1 / self.track.rate if self.track.rate else self.track.step)


def _pixel_aspect(stream: Any) -> float:
    """Returns width over height of a pixel as displayed; 1 if unknown."""
    aspect = float(stream.sample_aspect_ratio or 1)
    return aspect if 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else 1.0


def _pixels(path: Path, frame: Any, aspect: float, wanted: WantedFrame) -> np.ndarray:
    """Returns a transformed frame, upright and with square pixels, (s s 3) uint8.

    Frames much larger than what the transform returns are reduced first, which is
    faster and needs less memory.
    """
    width = round(frame.width * max(1.0, aspect))
    height = round(frame.height * max(1.0, 1 / aspect))
    orientation = _orientation(frame)
    reduction = getattr(wanted.transform, "reduction", None)
    if reduction is not None:
        transposed = orientation[0]
        factor = reduction(*((width, height) if transposed else (height, width)))
        width, height = math.ceil(width / factor), math.ceil(height / factor)
    if width * height > _MAX_PIXELS:
        raise _too_large(path, width, height)
    if (width, height) == (frame.width, frame.height):
        pixels = frame.to_ndarray(format="rgb24")
    else:
        pixels = frame.to_ndarray(
            format="rgb24", width=width, height=height, interpolation="AREA"
        )
    return wanted.transform(wanted.index, _upright(pixels, orientation))


def _too_large(path: Any, width: int, height: int) -> DataError:
    """Returns the error for a frame that needs too much memory."""
    return DataError(
        "D32",
        f"{path}: a frame of {width:d}x{height:d} pixels is too large.",
        f"at most {_MAX_PIXELS / 1e6:.0f} million pixels",
    )


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """Returns whether x and y are swapped, and then x and y reversed, for display."""
    try:
        data = frame.side_data["DISPLAYMATRIX"]
    except KeyError:
        return False, False, False
    except ValueError:  # the frame has a kind of data that this PyAV does not know
        quarters = round(frame.rotation / 90) % 4  # counterclockwise
        return quarters % 2 == 1, quarters in (2, 3), quarters in (1, 2)
    matrix = np.frombuffer(bytes(data), np.int32).astype(np.int64)
    # x' = a x + c y, y' = b x + d y; angles other than multiples of 90 degrees are
    # rounded to one.
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, a < 0, d < 0
    return True, c < 0, b < 0


def _upright(pixels: np.ndarray, orientation: tuple[bool, bool, bool]) -> np.ndarray:
    """Returns pixels as they are displayed, (h w 3)."""
    transposed, reverse_x, reverse_y = orientation
    if transposed:
        pixels = pixels.swapaxes(0, 1)
    if reverse_x:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if reverse_y else pixels
