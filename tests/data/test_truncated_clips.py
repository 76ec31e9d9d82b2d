"""Truncated files of every container are noticed, and whole ones are accepted."""

import av
import numpy as np
import pytest
from groups import in_ci
from media_files import RATE, write_flash_and_beep

from mmfusion_jax.data.media.decode import AudioSampling, FrameSampling, read
from mmfusion_jax.data.media.frame_headers import frame_size
from mmfusion_jax.data.media.resize import SquareResize
from mmfusion_jax.data.media.truncation import check_complete, shown_size
from mmfusion_jax.errors import DataError

pytestmark = pytest.mark.versions

FRAMES, AUDIO = FrameSampling(2, SquareResize(8)), AudioSampling(RATE)
FAST = {"options": {"movflags": "faststart"}}
MPEG2 = {"video": "mpeg2video", "audio": "mp2", "fps": 25}
SOUND = {"video": ""}
FILES = {
    "mp4, index first": ("a.mp4", {"audio": "aac", **FAST}),
    "mp4, index last": ("a.mp4", {"audio": "aac"}),
    "mov": ("a.mov", FAST),
    "mkv": ("a.mkv", {}),
    "mkv, streamed": ("a.mkv", {"options": {"live": "1"}}),
    "avi": ("a.avi", {"video": "mjpeg"}),
    "avi of compressed audio": ("a.avi", {"audio": "mp2"}),
    "flv": ("a.flv", {"video": "flv", "audio": "aac"}),
    "asf": ("a.wmv", {"video": "wmv2", "audio": "wmav2"}),
    "program stream": ("a.mpg", MPEG2),
    "transport stream": ("a.ts", MPEG2),
    "gif": ("a.gif", {"video": "gif", "audio": ""}),
    "ogg": ("a.ogg", {"audio": "flac", **SOUND}),
    "wav": ("a.wav", SOUND),
    "rf64": ("a.wav", {"options": {"rf64": "always"}, **SOUND}),
    "w64": ("a.w64", SOUND),
    "aiff": ("a.aiff", {"audio": "pcm_s16be", **SOUND}),
    "au": ("a.au", {"audio": "pcm_s16be", **SOUND}),
    "caf": ("a.caf", SOUND),
    "m4a": ("a.m4a", {"audio": "aac", **FAST, **SOUND}),
    "flac": ("a.flac", {"audio": "flac", **SOUND}),
    "wma": ("a.wma", {"audio": "wmav2", **SOUND}),
    "mp3": ("a.mp3", {"audio": "libmp3lame", **SOUND}),
    "mp3 without a count": (
        "a.mp3",
        {"audio": "libmp3lame", "options": {"write_xing": "0"}, **SOUND},
    ),
    "mp2": ("a.mp2", {"audio": "mp2", **SOUND}),
    "aac": ("a.aac", {"audio": "aac", "format": "adts", **SOUND}),
}


@pytest.mark.parametrize("case", FILES)
def test_truncated_files_are_noticed_and_whole_ones_accepted(case, tmp_path):
    name, options = FILES[case]
    path = write_flash_and_beep(tmp_path / name, **options)
    whole = read(path, FRAMES, AUDIO)
    assert whole.duration == pytest.approx(2.0, abs=0.15)
    assert (whole.frames is None) == (options.get("video") == "")
    assert (whole.waveform is None) == (options.get("audio") == "")
    assert not whole.remarks
    content = path.read_bytes()
    for percent in (30, 50, 70, 95):
        # An odd size: by chance a file can end between two packets of equal size.
        path.write_bytes(content[: len(content) * percent // 100 | 1])
        with pytest.raises(DataError, match=r"D32.*cut short") as error:
            read(path, FRAMES, AUDIO)
        assert "copy or download it again" in str(error.value)


def test_a_download_without_its_index_is_named(tmp_path):
    path = write_flash_and_beep(tmp_path / "a.mp4", audio="aac")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"MB or more, and it has no index \(moov\)"):
        read(path, FRAMES, AUDIO)
    path.write_bytes(content[: content.index(b"moov") - 4])
    with pytest.raises(DataError, match=r"short\): it has no index \(moov\)") as error:
        read(path, FRAMES, AUDIO)
    assert "none of it can be decoded" in error.value.fix


def test_an_avi_with_fewer_frames_than_its_header_is_truncated(tmp_path):
    path = write_flash_and_beep(tmp_path / "a.avi", video="mjpeg")
    content = bytearray(path.read_bytes())
    content = content[: len(content) // 2]
    # As of a recorder that was switched off: the size of the file is not written.
    content[4:8] = bytes(4)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"D32.*\(cut short\).* of 2\.00 s of video"):
        read(path, FRAMES, AUDIO)


def test_lost_audio_is_not_the_same_as_no_audio(tmp_path):
    path = write_flash_and_beep(tmp_path / "none.mp4", audio="", **FAST)
    clip = read(path, FRAMES, AUDIO)
    assert clip.waveform is None and not clip.remarks
    # The audio is behind the frames.
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mjpeg", rate=10)
        video.height, video.width, video.pix_fmt = 32, 32, "yuvj420p"
        audio = container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for _ in range(20):
            image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
            container.mux(video.encode(image))
        container.mux(video.encode())
        block = av.AudioFrame.from_ndarray(np.ones((1, 2 * RATE), "<i2"), "s16", "mono")
        block.sample_rate = RATE
        container.mux(audio.encode(block))
    content = path.read_bytes()
    read(path, FRAMES, AUDIO)
    path.write_bytes(content[: content.index(b"01wb")])
    with pytest.raises(DataError, match=r"D32.*\(cut short\)"):
        read(path, FRAMES, AUDIO)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov"])
def test_bytes_after_the_last_box_are_not_missing_ones(name, tmp_path):
    path = write_flash_and_beep(tmp_path / name, **FAST)
    path.write_bytes(path.read_bytes() + bytes(5000) + b"\x00\x00\x00\x01abc")
    assert read(path, FRAMES, AUDIO).waveform is not None


@pytest.mark.parametrize("codec", ["mp2", "libmp3lame", "ac3", "eac3", "aac"])
@pytest.mark.parametrize("rate", in_ci([32000, 44100, 48000], 44100))
def test_sizes_of_audio_frames(codec, rate, tmp_path):
    kind = {"aac": "adts", "libmp3lame": "mp3"}.get(codec, codec)
    options = {"write_xing": "0", "id3v2_version": "0"} if kind == "mp3" else {}
    path = tmp_path / "a"
    with av.open(str(path), "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        stream.codec_context.open()
        form = stream.codec_context.format.name
        dtype = {"s16": np.int16, "s32": np.int32}.get(form[:3], np.float32)
        for _ in range(4):
            block = np.zeros((1, stream.codec_context.frame_size), dtype)
            frame = av.AudioFrame.from_ndarray(block, form, "mono")
            frame.sample_rate = rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    content, at, count = path.read_bytes(), 0, 0
    while at < len(content):
        size = frame_size(content[at : at + 8])
        assert size > 0
        at, count = at + size, count + 1
    assert at == len(content) and count >= 4


def test_other_bytes_are_not_audio_frames():
    for other in (b"", b"\xff", bytes(8), b"\xff" * 8, b"\x0b\x77" + b"\xff" * 2):
        assert frame_size(other) == 0


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfb\x90\x00" + bytes(20),
        b"ID3\4\0\0\x7f\x7f\x7f\x7f",
        b"\0\0\0\1ftyp" + b"\xff" * 8 + bytes(40),
        b"OggS",
        b"FLV\1" + bytes(4),
        b"RIFF\xff\xff\xff\x00WAVE",
        b"\x1a\x45\xdf\xa3\x01" + b"\xff" * 7,
        b"riff\x2e\x91\xcf\x11" + b"\xff" * 60,
        b"caff\0\1\0\0data\x7f" + b"\xff" * 7,
        b"\0\0\1\xba",
    ],
    ids=lambda content: repr(content[:4]),
)
def test_sizes_in_a_file_can_be_anything(content, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DataError, match="D3[12]"):
        read(path, FRAMES, AUDIO)


@pytest.mark.parametrize(
    "case", ["mkv", "mkv, streamed", "program stream", "transport stream"]
)
def test_zeros_that_were_never_written_are_noticed(case, tmp_path):
    name, options = FILES[case]
    path = write_flash_and_beep(tmp_path / name, **options)
    whole = path.read_bytes()
    check_complete(path)
    kept = len(whole) // 2
    path.write_bytes(whole[:kept] + bytes(len(whole) - kept))
    with pytest.raises(DataError, match=r"D32.*last \d.* MB are zeros"):
        check_complete(path)


def test_a_void_at_the_end_of_matroska_is_deleted_content(tmp_path):
    path = write_flash_and_beep(tmp_path / "a.mkv")
    whole = path.read_bytes()
    # Element 0xEC, its size in 8 bytes, and zeros.
    path.write_bytes(whole + b"\xec\x01" + (40000).to_bytes(7) + bytes(40000))
    assert check_complete(path)
    path.write_bytes(whole + bytes(40000))
    with pytest.raises(DataError, match="are zeros"):
        check_complete(path)


def test_sizes_are_in_a_unit_in_which_they_are_not_0():
    assert shown_size(1) == "1 byte" and shown_size(12) == "12 bytes"
    assert shown_size(353_000) == "0.353 MB"
    assert shown_size(3_500_000, 7_100_000) == "3.5 of 7.1 MB"
    assert shown_size(999_990, 1_000_000) == "0.999990 of 1.000000 MB"
