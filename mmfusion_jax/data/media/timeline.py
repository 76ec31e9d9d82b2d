"""The clock of a container: where its video and audio begin and end.

Times in a file need not begin at 0, and its streams need not begin together. Everything
here and in the modules that decode is in seconds from the start of the file: the time
at which the first of its streams begins.
"""

import dataclasses
import functools
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.media.truncation import TOLERANCE, check_complete, truncated
from mmfusion_jax.data.storage.file_checksums import FileState, file_state
from mmfusion_jax.errors import DataError, missing_dependency, shown_name

SLACK = 0.1
"""Seconds at both ends that codecs add and headers do not count."""

_MAX_HOURS = 48
_JUMPING = ("mpeg", "mpegts", "mpegtsraw")
# Recordings of broadcasts, and audio that is written until its recording ends.
_ENDING_ANYWHERE = (*_JUMPING, "aiff", "au", "caf", "w64", "wav")
# Of other formats FFmpeg takes the duration of the file for that of an empty stream.
_STATING_DURATIONS = ("avi", "mov,mp4,m4a,3gp,3g2,mj2")
_BACK, _FORTH = -0.5, 10.0  # s; other steps of the time stamps are those of the clip
_COVERS = ("attached_pic", "timed_thumbnails")
_SECONDARY = (
    "comment",
    "descriptions",
    "dub",
    "hearing_impaired",
    "karaoke",
    "visual_impaired",
)


@dataclasses.dataclass(frozen=True)
class Track:
    """The video or audio stream that is used.

    Attributes:
        index: Index of the stream in the container.
        begin: Start in seconds.
        end: End in seconds.
        ticks: Time stamps of its packets in units of `unit`, sorted.
        keys: Time stamps of those that can be decoded without earlier ones, sorted.
        unit: Seconds of one tick.
        rate: Average frames per second; 0 if unknown, and for audio.
        seekable: The time stamps of all packets are known, so decoding can start at
            one of `keys`.
    """

    index: int
    begin: float
    end: float
    ticks: np.ndarray
    keys: np.ndarray
    unit: Fraction
    rate: float
    seekable: bool

    @property
    def step(self) -> float:
        """Typical seconds from one packet to the next; 0 for fewer than two packets."""
        if len(self.ticks) < 2:
            return 0.0
        return float(np.median(np.diff(self.ticks)) * self.unit)


@dataclasses.dataclass(frozen=True)
class Timeline:
    """The clock of a file.

    Attributes:
        origin: Time stamp of the start of the file, in seconds.
        tracks: "video" and "audio" -> their stream, for those that have packets.
        unusable: "video" and "audio" -> why their stream cannot be used, such as "its
            audio stream is empty".
    """

    origin: float
    tracks: dict[str, Track]
    unusable: dict[str, str]

    @property
    def duration(self) -> float:
        """End of the longer stream in seconds."""
        return max(track.end for track in self.tracks.values())

    def streams(self, container: Any) -> list[Any]:
        """Returns the streams that are used, of the open file."""
        return [container.streams[track.index] for track in self.tracks.values()]

    def tick(self, track: Track, seconds: float) -> int:
        """Returns the time stamp of a time."""
        return round((seconds + self.origin) / track.unit)

    def seconds(self, track: Track, ticks: Any) -> Any:
        """Returns the time of one time stamp, or of an array of them."""
        return ticks * float(track.unit) - self.origin


def import_av() -> Any:
    """Imports PyAV, or raises the error that names the extra."""
    try:
        import av
    except ImportError as error:
        raise missing_dependency("av", "media", "decoding video and audio") from error
    return av


def open_container(av: Any, path: Path) -> Any:
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


def read_timeline(av: Any, path: Path) -> Timeline:
    """Reads the packets of a file, without decoding them, and checks their extent.

    The headers of truncated files state the full length, and decoders end early without
    an error. The result of the last file is kept: many segments of one film are decoded
    one after the other.

    Args:
        av: PyAV.
        path: File.

    Raises:
        DataError: The file is truncated, or has neither video nor audio.
    """
    return _cached(path, file_state(path), av)


@functools.lru_cache(maxsize=2)
def _cached(path: Path, state: FileState, av: Any) -> Timeline:
    del state  # another file of the same name is read again
    return _timeline(av, path, check_complete(path))


def seek(container: Any, stream: Any, tick: int) -> None:
    """Goes to a key frame at a time stamp, or before it."""
    if container.format.name in _JUMPING:
        # Without an index, the packet of this time is found, whatever it is, by the
        # time at which it is decoded, which is earlier.
        tick -= round(1 / stream.time_base)
    container.seek(tick, stream=stream, backward=True)


def packets(container: Any, stream: Any, clock: Iterable[Any] = ()) -> Iterator[Any]:
    """Yields the packets of a stream, ended by one without content and time stamp.

    Empty packets, which repeat a frame in Theora and AVI, have a time stamp. A decoder
    would take them for the end of the stream.

    Args:
        container: Open container.
        stream: The stream.
        clock: All streams that are used. The time stamps of MPEG streams can jump where
            recordings were joined: they are changed so that one recording follows the
            other, in all streams alike.
    """
    for packet in _packets(container, list(clock) or [stream], _JoinedRecordings()):
        if packet.stream.index == stream.index:
            yield packet


def _packets(
    container: Any, streams: list[Any], joined: "_JoinedRecordings"
) -> Iterator[Any]:
    """Yields the packets of streams, with time stamps that do not jump back."""
    jumping = container.format.name in _JUMPING
    try:
        for packet in container.demux(*streams):
            if jumping and packet.dts is not None:
                joined.shift(packet)
            yield packet
    except IndexError as error:  # a damaged file can have other streams at each reading
        path = container.name
        raise DataError("D32", f"{path}: its streams change.") from error


class _JoinedRecordings:
    """Changes the time stamps of packets so that one recording follows the other."""

    def __init__(self):
        self.shifts = [0.0]  # s, of each recording
        self.current: dict[int, int] = {}  # index of a stream -> its recording
        self.expected: dict[int, float] = {}  # index of a stream -> its next time

    def shift(self, packet: Any) -> None:
        """Changes the time stamps of a packet."""
        unit, index = packet.time_base, packet.stream.index
        stored = float(packet.dts * unit)
        at = stored + self.shifts[self.current.setdefault(index, 0)]
        if not _BACK <= at - self.expected.get(index, at) <= _FORTH:
            # The packets of two streams are not in order: the other one may have
            # reached this recording before.
            self.current[index] += 1
            if self.current[index] == len(self.shifts):
                self.shifts.append(max(self.expected.values()) - stored)
            at = stored + self.shifts[self.current[index]]
        moved = round((at - stored) / unit)
        if packet.pts is not None:
            packet.pts += moved
        packet.dts += moved
        self.expected[index] = at + float((packet.duration or 0) * unit)


def _timeline(av: Any, path: Path, complete: bool) -> Timeline:
    """Returns the clock of a file.

    Args:
        av: PyAV.
        path: File.
        complete: Its structure has shown that it is complete.
    """
    with open_container(av, path) as container:
        chosen, unusable = _streams(av, container)
        if not chosen:
            reason = "; ".join(unusable.values()) or "it has no video or audio stream"
            raise DataError("D31", f"{path} cannot be decoded: {reason}.")
        extents = _extents(path, container, chosen, complete)
        spans = {}
        for kind, extent in extents.items():
            declared = _declared(container, chosen[kind])
            if span := extent.span():
                spans[kind] = span
                check_length(path, span[1] - span[0], declared, kind)
            elif declared and container.format.name in _STATING_DURATIONS:
                raise truncated(path, f"its {kind} of {declared:.2f} s is lost")
            else:
                unusable[kind] = f"its {kind} stream is empty"
        if not spans:
            raise DataError("D31", f"{path} has neither frames nor audio.")
        origin = min(begin for begin, _ in spans.values())
        tracks = {
            kind: extents[kind].track(span, origin) for kind, span in spans.items()
        }
        timeline = Timeline(origin, tracks, unusable)
        if not complete:
            # A subtitle can end later: a complete file need not have its duration.
            total = (container.duration or 0) / av.time_base
            check_length(path, timeline.duration, total, "clip")
    if timeline.duration > _MAX_HOURS * 3600:
        raise DataError(
            "D32",
            f"{path}: its time stamps cover {timeline.duration / 3600:.0f} h, more "
            f"than {_MAX_HOURS:d}.",
        )
    return timeline


def _extents(
    path: Path, container: Any, chosen: dict[str, Any], complete: bool
) -> "dict[str, _Extent]":
    """Returns kind -> the time stamps of its packets."""
    extents = {stream.index: _Extent(stream) for stream in chosen.values()}
    incomplete, joined = False, _JoinedRecordings()
    for packet in _packets(container, list(chosen.values()), joined):
        if packet.dts is None and packet.pts is None:
            if packet.size:
                raise DataError(
                    "D31",
                    f"{path} has no time stamps.",
                    "ffmpeg -r FRAMES_PER_SECOND -i FILE -c copy NEW.mp4",
                )
            continue
        extents[packet.stream.index].add(packet)
        incomplete = packet.is_corrupt
    for extent in extents.values():
        extent.seekable &= len(joined.shifts) == 1
    if incomplete and not complete and container.format.name not in _ENDING_ANYWHERE:
        raise truncated(path, "its last packet is incomplete")
    if container.format.name == "mpeg" and any(
        extent.last_picture_is_incomplete() for extent in extents.values()
    ):
        raise truncated(path, "its last frame is incomplete")
    return {kind: extents[stream.index] for kind, stream in chosen.items()}


def _declared(container: Any, stream: Any) -> float:
    """Returns the seconds of a stream according to its header; 0 if unknown."""
    ticks = stream.duration or 0
    if container.format.name == "avi" and stream.type == "video":
        ticks = max(ticks, stream.frames)  # the header counts frames
    return float(ticks * stream.time_base)


def check_length(path: Path, have: float, want: float, what: str) -> None:
    """Raises DataError for a stream that is shorter than its header states."""
    if have < want * (1 - TOLERANCE) - SLACK:
        raise truncated(path, f"{have:.2f} of {want:.2f} s of {what}")


class _Extent:
    """Collects the time stamps of the packets of a stream."""

    def __init__(self, stream: Any):
        self.stream = stream
        self.ticks: list[int] = []
        self.keys: list[int] = []
        self.bounds: tuple[int, int] | None = None
        self.seekable = True
        self.is_mpeg = stream.codec_context.name in ("mpeg1video", "mpeg2video")
        self.rows: list[int] = []  # of the last pictures

    def add(self, packet: Any) -> None:
        """Adds a packet that has a time stamp."""
        self.seekable &= packet.pts is not None
        if packet.is_discard:
            return
        at = packet.dts if packet.pts is None else packet.pts
        end = at + (packet.duration or 0)
        begin, known_end = self.bounds or (at, end)
        self.bounds = min(at, begin), max(end, known_end)
        if not packet.size:
            return
        self.ticks.append(at)
        if packet.is_keyframe:
            self.keys.append(at)
        if self.is_mpeg:
            self.rows = [*self.rows[-2:], _last_row(bytes(packet))]

    def last_picture_is_incomplete(self) -> bool:
        """Returns whether the last picture of MPEG video lacks rows of others."""
        return bool(self.rows) and self.rows[-1] < max(self.rows)

    def span(self) -> tuple[float, float] | None:
        """Returns start and end in seconds; None without packets."""
        if not self.ticks or self.bounds is None:
            return None
        stream, (begin, end) = self.stream, self.bounds
        if stream.type == "video" and end == max(self.ticks) and stream.average_rate:
            end += round(1 / (stream.average_rate * stream.time_base))
        # Samples that the encoder added in front are not played.
        begin = max(begin, begin if stream.start_time is None else stream.start_time)
        return float(begin * stream.time_base), float(end * stream.time_base)

    def track(self, span: tuple[float, float], origin: float) -> Track:
        """Returns the stream on the clock of the file."""
        stream = self.stream
        return Track(
            stream.index,
            span[0] - origin,
            span[1] - origin,
            np.sort(np.array(self.ticks, np.int64)),
            np.sort(np.array(self.keys, np.int64)),
            stream.time_base,
            float(getattr(stream, "average_rate", None) or 0),
            self.seekable,
        )


def _last_row(picture: bytes) -> int:
    """Returns the last row of macroblocks of an MPEG picture; 0 without any."""
    at, row = picture.find(b"\0\0\1"), 0
    while 0 <= at < len(picture) - 3:
        if 1 <= picture[at + 3] <= 0xAF:  # the start of a slice
            row = max(row, picture[at + 3])
        at = picture.find(b"\0\0\1", at + 3)
    return row


def _streams(av: Any, container: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns kind -> stream to use, and kind -> why none of them can be used."""
    chosen, unusable = {}, {}
    for kind in ("video", "audio"):
        streams = [s for s in getattr(container.streams, kind) if not _is_cover(av, s)]
        usable = [s for s in streams if s.codec_context is not None]
        if usable:
            chosen[kind] = min(usable, key=functools.partial(_rank, av))
        elif streams:
            unusable[kind] = f"no decoder for its {shown_name(kind)} stream"
    return chosen, unusable


def _is_cover(av: Any, stream: Any) -> bool:
    """Returns whether a stream is an image, such as the cover of a song."""
    return any(stream.disposition & _flag(av, name) for name in _COVERS)


def _rank(av: Any, stream: Any) -> tuple[bool, bool, int]:
    """Returns a key: the default stream is first, and a comment is last."""
    secondary = any(stream.disposition & _flag(av, name) for name in _SECONDARY)
    default = bool(stream.disposition & _flag(av, "default"))
    return secondary, not default, stream.index


def _flag(av: Any, name: str) -> int:
    """Returns a flag of the disposition; 0 if this PyAV does not have it."""
    return getattr(av.stream.Disposition, name, 0)
