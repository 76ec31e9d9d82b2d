"""Checks from its structure that a media file is complete.

Decoders read what is there and then end, without an error, so a download that stopped
is half a clip. Containers state sizes: of boxes (MP4), chunks (AVI, WAV, AIFF), pages
(Ogg), elements (Matroska), packets (MPEG) or tags (FLV), which are compared with the
size of the file.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mmfusion_jax.data.media.frame_headers import HEADER, frame_size
from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.regular_file import open_regular

TOLERANCE = 0.02
"""Fraction that may be missing without an error, where headers are inexact."""

_MAX_ELEMENTS = 1_000_000  # a file of millions of empty boxes would take minutes
_UNKNOWN_SIZE = 0x7FFFF000  # written by programs that stream a RIFF file
_TAIL = 1 << 18
_MAX_PADDING = 8192  # zeros at the end: a DVD pads sectors, PCM in Matroska is blocks
_NOT_A_SIZE = 1 << 48  # larger than any file: what is there is not an object
_AGAIN = "copy or download it again"
_SHORTER = (
    f"{_AGAIN}; or make a shorter clip of what is there: ffmpeg -i FILE -c copy NEW"
)


def check_complete(path: Path) -> bool:
    """Raises DataError for a file that its own structure shows to be truncated.

    Args:
        path: File.

    Returns:
        Whether the structure shows that the file is complete. False if the format does
        not show it, and for unknown formats.
    """
    with open_regular(path) as file:
        size = file.seek(0, 2)
        head = _read(file, 0, 512)
        for is_format, check in _CHECKS:
            if is_format(head):
                return check(_Content(path, file, size, head))
    return False


def truncated(path: Path, what: str, fix: str = _SHORTER) -> DataError:
    """Returns the error for a truncated file.

    Args:
        path: File.
        what: What is there and what should be, such as "3.0 of 4.0 MB".
        fix: Remedy.
    """
    return DataError("D32", f"{path} is truncated (cut short): {what}.", fix)


def shown_size(size: int, total: int | None = None) -> str:
    """Returns a size in MB, such as "0.353 MB", or "3.5 of 7.1 MB" with a total.

    Less than 1000 bytes are "12 bytes".
    """
    if total is None and size < 1000:
        return "1 byte" if size == 1 else f"{size} bytes"
    largest = size if total is None else total
    decimals = 3 if largest < 1e6 else 1
    if total is not None and total - size < 10 ** (6 - decimals):
        decimals = 6
    part = "" if total is None else f"{size / 1e6:.{decimals}f} of "
    return f"{part}{largest / 1e6:.{decimals}f} MB"


class _Content:
    """An open file with its size.

    Attributes:
        path: Path, for error messages.
        file: Open file.
        size: Size in bytes.
        head: The first bytes.
    """

    def __init__(self, path: Path, file: BinaryIO, size: int, head: bytes):
        self.path, self.file, self.size, self.head = path, file, size, head

    def at(self, offset: int, count: int) -> bytes:
        """Returns up to `count` bytes at an offset; b"" outside of the file."""
        # Sizes in a file can be larger than any offset.
        if not 0 <= offset < self.size:
            return b""
        return _read(self.file, offset, count)

    def require(self, end: int, tolerance: float = 0.0) -> None:
        """Raises DataError if the file ends before `end`."""
        if self.size < end - tolerance * end:
            raise self.short(shown_size(self.size, end))

    def short(self, what: str, fix: str = _SHORTER) -> DataError:
        """Returns the error for this file."""
        return truncated(self.path, what, fix)

    def refuse_zeros_at_the_end(self) -> None:
        """Raises DataError if the end is zeros: bytes that were never written.

        Programs that download a file in parts create it with its full size first, so
        the sizes in the file are right. Only for formats that are compressed: zeros are
        silence in uncompressed audio.
        """
        start, least = self.size, max(_MAX_PADDING, int(self.size * TOLERANCE))
        while start > 0:
            block = self.at(max(0, start - _TAIL), min(_TAIL, start)).rstrip(b"\0")
            if block:
                start = max(0, start - _TAIL) + len(block)
                break
            start -= min(_TAIL, start)
        if self.size - start > least and not _is_void(self, start):
            raise self.short(
                f"its last {shown_size(self.size - start)} are zeros, so its download "
                "or copy did not finish"
            )


def _read(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _check_mp4(content: _Content) -> bool:
    """Boxes of MP4, MOV, 3GP and M4A: size, type, content."""
    seen, end = _boxes(content)
    if not seen & {b"moov", b"moof"}:
        what = "it has no index (moov), which is written at its end"
        if end > content.size:
            what = f"{shown_size(content.size, end)} or more, and {what}"
        fix = f"{_AGAIN}; without the index none of it can be decoded"
        raise content.short(what, fix)
    content.require(end)
    # A file of fragments can end after any of them.
    return b"moof" not in seen and end == content.size


def _boxes(content: _Content) -> tuple[set[bytes], int]:
    """Returns the types of the outer boxes of an MP4, and where the last one ends."""
    at, seen = 0, set()
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 16)
        if len(header) < 8:
            break
        size, kind = struct.unpack(">I4s", header[:8])
        if size == 1 and len(header) == 16:
            (size,) = struct.unpack(">Q", header[8:])
        # Bytes after the last box are not a box.
        if not all(32 <= byte < 127 or byte == 0xA9 for byte in kind):
            break
        if size == 0:  # up to the end of the file
            size = content.size - at
        elif size < 8:
            break
        if at + size <= content.size:
            seen.add(kind)
        at += size
    return seen, at


def _check_riff(content: _Content) -> bool:
    """Chunks of AVI: RIFF, size, content; further ones follow in large files."""
    at = 0
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 8)
        if len(header) < 8 or header[:4] != b"RIFF":
            break
        (size,) = struct.unpack("<I", header[4:])
        if size == 0 or size >= _UNKNOWN_SIZE:
            return False
        content.require(at + 8 + size, TOLERANCE)
        at += 8 + size + size % 2
    return True


def _check_wav(content: _Content) -> bool:
    """Chunks of WAV and RF64: name, size, content padded to an even size."""
    at, long_size = 12, 0
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 8)
        if len(header) < 8:
            raise content.short("it ends before its audio data")
        name, size = struct.unpack("<4sI", header)
        if name == b"ds64":
            (long_size,) = struct.unpack("<8xQ8x", content.at(at + 8, 24).ljust(24))
        if name == b"data":
            if size == 0xFFFFFFFF and content.head[:4] != b"RIFF":
                size = long_size
            elif size >= _UNKNOWN_SIZE:
                return False
            content.require(at + 8 + size, TOLERANCE)
            return True
        at += 8 + size + size % 2
    return False


def _check_w64(content: _Content) -> bool:
    """Chunks of Sony Wave64: a GUID that begins with the name, size with header."""
    at = 40
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 24)
        if len(header) < 24:
            raise content.short("it ends before its audio data")
        (size,) = struct.unpack("<Q", header[16:])
        if size < 24 or size >= 1 << 62:
            return False
        if header[:4] == b"data":
            content.require(at + size, TOLERANCE)
            return True
        at += size + -size % 8
    return False


def _check_aiff(content: _Content) -> bool:
    """FORM chunk of AIFF."""
    (size,) = struct.unpack(">I", content.head[4:8])
    content.require(8 + size, TOLERANCE)
    return True


def _check_au(content: _Content) -> bool:
    """Header of AU: offset and size of the audio."""
    offset, size = struct.unpack(">II", content.head[4:12].ljust(8, b"\xff"))
    if size == 0xFFFFFFFF:
        return False
    content.require(offset + size, TOLERANCE)
    return True


def _check_caf(content: _Content) -> bool:
    """Chunks of CAF: name, size; -1 is the rest of the file."""
    at = 8
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 12)
        if len(header) < 12:
            return True
        (size,) = struct.unpack(">q", header[4:])
        if not 0 <= size < _NOT_A_SIZE:
            return False
        at += 12 + size
        content.require(at, TOLERANCE)
    return False


def _check_ogg(content: _Content) -> bool:
    """Pages of Ogg; the last page of every stream is marked."""
    begun, ended, at = set(), set(), 0
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 27)
        if header[:4] != b"OggS":
            break
        table = content.at(at + 27, header[26]) if len(header) == 27 else b""
        end = at + 27 + (header[26] + sum(table) if table else 0)
        if len(header) < 27 or len(table) < header[26] or end > content.size:
            raise content.short(f"its last page ends after {shown_size(at)}")
        flags, serial = header[5], header[14:18]
        if flags & 2:
            begun.add(serial)
        if flags & 4:
            ended.add(serial)
        at = end
    else:
        return False
    if begun - ended:
        raise content.short(
            f"after {shown_size(at)} its last page is not marked as the last",
            f"{_AGAIN}; if it is complete: ffmpeg -i FILE -c copy NEW",
        )
    return at == content.size


def _check_program_stream(content: _Content) -> bool:
    """Packets of an MPEG program stream, from the last pack on."""
    begin = max(0, content.size - _TAIL)
    tail = content.at(begin, _TAIL)
    at = tail.rfind(b"\0\0\1\xba")
    while 0 <= at < len(tail):
        kind = (
            tail[at + 3]
            if tail[at : at + 3] == b"\0\0\1" and at + 4 <= len(tail)
            else 0
        )
        if kind == 0xB9:  # end of the program
            return True
        if kind == 0xBA:
            second = tail[at + 4 : at + 5]
            if second and second[0] >> 6 == 1 and len(tail) >= at + 14:
                step = 14 + (tail[at + 13] & 7)
            else:
                step = 12
        elif kind > 0xB9 and at + 6 <= len(tail):
            step = 6 + int.from_bytes(tail[at + 4 : at + 6])
        else:
            # Neither a packet nor the padding after the last one.
            if tail[at:].strip(b"\0\xff"):
                raise content.short("its last packet is incomplete")
            break
        at += step
    if at > len(tail):
        missing = at - len(tail)
        raise content.short(f"its last packet lacks {shown_size(missing)}")
    content.refuse_zeros_at_the_end()
    return False


def _check_transport_stream(content: _Content) -> bool:
    """Packets of an MPEG transport stream, of equal size."""
    size = _packet_size(content.head)
    if size and content.size % size:
        raise content.short("its last packet is incomplete")
    content.refuse_zeros_at_the_end()
    return False


def _packet_size(head: bytes) -> int:
    """Returns the size of the packets of a transport stream; 0 for other files."""
    for size, first in ((188, 0), (192, 4), (204, 0)):
        sync = head[first : first + 2 * size + 1 : size]
        if sync == b"\x47\x47\x47":
            return size
    return 0


_SEGMENT, _CLUSTER, _VOID = 0x18538067, 0x1F43B675, 0xEC


def _check_matroska(content: _Content) -> bool:
    """Elements of Matroska and WebM: id, size, content."""
    at = 0
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 12)
        kind, after = _variable_integer(header, 0, keep_marker=True)
        size, after = _variable_integer(header, after)
        if not after:
            content.refuse_zeros_at_the_end()
            if header and len(header) < 12:
                raise content.short("its last element is incomplete")
            return False
        # Of unknown size while it is recorded: its children are checked.
        if size is None and kind not in (_SEGMENT, _CLUSTER):
            return False
        at += after + (size or 0)
        if at > content.size:
            more = "" if kind == _SEGMENT else " or more"
            raise content.short(f"{shown_size(content.size, at)}{more}")
        if kind == _SEGMENT and size is not None:
            content.refuse_zeros_at_the_end()
            return True
    return False


def _is_void(content: _Content, start: int) -> bool:
    """Returns whether zeros from `start` on are a Void of Matroska: deleted content."""
    before = content.at(max(0, start - 9), 18)
    for at in range(min(9, start)):
        size, after = _variable_integer(before, at + 1)
        end = max(0, start - 9) + after + (size or 0)
        if before[at] == _VOID and after and end == content.size:
            return True
    return False


def _variable_integer(
    header: bytes, at: int, keep_marker: bool = False
) -> tuple[int | None, int]:
    """Returns an integer of Matroska, None if unknown, and the offset after it."""
    if at >= len(header) or not header[at]:
        return 0, 0
    length = 9 - header[at].bit_length()
    if at + length > len(header):
        return 0, 0
    value = int.from_bytes(header[at : at + length])
    if keep_marker:
        return value, at + length
    value &= (1 << 7 * length) - 1
    return None if value == (1 << 7 * length) - 1 else value, at + length


def _check_flv(content: _Content) -> bool:
    """The last tag of FLV, whose size follows it."""
    if content.size < 17:
        raise content.short("it has no audio or video")
    (size,) = struct.unpack(">I", content.at(content.size - 4, 4))
    tag = content.at(content.size - 4 - size, 4) if size < content.size - 12 else b""
    if not size or len(tag) < 4 or int.from_bytes(tag[1:]) + 11 != size:
        raise content.short("its last tag is incomplete")
    return False


_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")


def _check_asf(content: _Content) -> bool:
    """Objects of ASF (WMV and WMA): GUID, size, content."""
    at = 0
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, 24)
        if len(header) < 24:
            break
        (size,) = struct.unpack("<Q", header[16:])
        # Unknown, while it is recorded; or bytes after the last object.
        if not 24 <= size < _NOT_A_SIZE:
            return False
        content.require(at + size)
        at += size
    return at == content.size


def _check_audio_frames(content: _Content) -> bool:
    """The last frame of MP3, AAC or AC-3."""
    at, end = _tag_size(content.head), content.size
    if content.at(end - 128, 3) == b"TAG":
        end -= 128
    content.require(at + _counted_bytes(content.at(at, 200)), TOLERANCE)
    first = content.at(at, 1)
    for _ in range(_MAX_ELEMENTS):
        header = content.at(at, min(HEADER, end - at)) if at < end else b""
        size = frame_size(header.ljust(HEADER, b"\0"))
        # Fewer bytes than a header are the start of a frame; others are another tag.
        if at + size > end or (0 < len(header) < HEADER and header[:1] == first):
            raise content.short("its last frame is incomplete")
        if not size:
            break
        at += size
    return False


def _counted_bytes(frame: bytes) -> int:
    """Returns the size of an MP3 according to its first frame; 0 if unknown."""
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at < 0 or len(frame) < at + 16:
        return 0
    flags, *counts = struct.unpack(">3I", frame[at + 4 : at + 16])
    return counts[flags & 1] if flags & 2 else 0


def _tag_size(head: bytes) -> int:
    """Returns the size of the ID3 tag before audio; 0 without one."""
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    a, b, c, d = head[6:10]
    return 10 + (a << 21 | b << 14 | c << 7 | d)


def _check_gif(content: _Content) -> bool:
    """The mark at the end of a GIF."""
    tail = content.at(max(0, content.size - _TAIL), _TAIL)
    if not tail.rstrip(b"\0").endswith(b";"):
        raise content.short("the mark at its end is missing")
    return True


def _check_dv(content: _Content) -> bool:
    """Frames of DV, of equal size."""
    size = 144000 if content.head[3] & 0x80 else 120000
    if content.size % size:
        raise content.short("its last frame is incomplete")
    return False


def _check_swf(content: _Content) -> bool:
    """Size in the header of a Flash file."""
    content.require(int.from_bytes(content.head[4:8], "little"))
    return True


_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_W64_RIFF = b"riff\x2e\x91\xcf\x11"

_CHECKS: tuple[tuple[Callable[[bytes], bool], Callable[[_Content], bool]], ...] = (
    (lambda head: head[4:8] in _MP4_BOXES, _check_mp4),
    (lambda head: head[:4] == b"RIFF" and head[8:12] == b"AVI ", _check_riff),
    (
        lambda head: head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE",
        _check_wav,
    ),
    (lambda head: head.startswith(_W64_RIFF), _check_w64),
    (lambda head: head[:4] == b"FORM" and head[8:11] == b"AIF", _check_aiff),
    (lambda head: head.startswith(b".snd"), _check_au),
    (lambda head: head.startswith(b"caff"), _check_caf),
    (lambda head: head.startswith(b"OggS"), _check_ogg),
    (lambda head: head.startswith(b"\0\0\1\xba"), _check_program_stream),
    (lambda head: bool(_packet_size(head)), _check_transport_stream),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), _check_matroska),
    (lambda head: head.startswith(b"FLV\x01"), _check_flv),
    (lambda head: head.startswith(_ASF_HEADER), _check_asf),
    (lambda head: head.startswith((b"GIF87a", b"GIF89a")), _check_gif),
    (lambda head: head.startswith(b"\x1f\x07\0"), _check_dv),
    (lambda head: head.startswith(b"FWS"), _check_swf),
    (
        lambda head: head.startswith(b"ID3") or bool(frame_size(head[:HEADER])),
        _check_audio_frames,
    ),
)
"""Whether the first bytes are of a format -> its check."""
