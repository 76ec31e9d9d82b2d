"""What of a clip is used: streams, shape of its pixels, what is good of a bad clip."""

from fractions import Fraction

import av
import numpy as np
import pytest
from media_files import (
    RATE,
    beep_time,
    flash_time,
    gray_steps,
    tone,
    write_flash_and_beep,
    write_video,
    write_wav,
)

from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.media.clip_remark import REMARK_KINDS
from mmfusion_jax.data.media.clip_spec import ClipSpec, DecodeJob, decode_job
from mmfusion_jax.data.media.decode import AudioSampling, FrameSampling, read
from mmfusion_jax.data.media.resize import SquareResize
from mmfusion_jax.errors import DataError

pytestmark = pytest.mark.versions

AUDIO = AudioSampling(RATE)
FRAMES = FrameSampling(4, SquareResize(8))


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(1, 2), Fraction(2, 1)])
def test_pixels_are_square(aspect, tmp_path):
    # The bright part is a square as displayed.
    wide, high = (12, 36) if aspect > 1 else (36, 12)
    wide = round(high / aspect) if aspect > 1 else wide
    high = round(wide * aspect) if aspect < 1 else high
    image = np.zeros((64, 64, 3), np.uint8)
    top, left = 32 - high // 2, 32 - wide // 2
    image[top : top + high, left : left + wide] = 255
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    transform = SquareResize(64, "letterbox")
    frame = read(path, FrameSampling(1, transform)).frames[0, ..., 0] > 128
    height, width = frame.any(1).sum(), frame.any(0).sum()
    assert height > 5 and abs(int(height) - int(width)) <= 2


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["hflip", "vflip"])
def test_mirrored_videos_are_displayed_as_their_metadata_asks(flip, rotation, tmp_path):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32] = 255
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        stream.set_display_rotation(rotation, **{flip: True})
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode())
    frame = read(path, FrameSampling(1, SquareResize(32, "stretch"))).frames[0]
    want = np.rot90(image, rotation // 90)
    want = want[:, ::-1] if flip == "hflip" else want[::-1]
    corners = lambda x: [x[i, j, 0] > 128 for i in (2, -3) for j in (2, -3)]
    assert corners(frame) == corners(want)


def two_tracks(path, dispositions):
    """The first video is gray and the first audio silent; the second ones are not."""
    with av.open(str(path), "w") as container:
        streams = []
        for kind in ("video", "audio"):
            for flags in dispositions:
                codec = "mpeg4" if kind == "video" else "pcm_s16le"
                stream = container.add_stream(
                    codec, rate=10 if kind == "video" else RATE
                )
                stream.disposition = flags
                if kind == "video":
                    stream.height = stream.width = 16
                    stream.pix_fmt = "yuv420p"
                else:
                    stream.layout = "mono"
                streams.append(stream)
        for index, stream in enumerate(streams):
            second = index % 2
            if stream.type == "video":
                gray = np.full((16, 16, 3), 50 + 150 * second, np.uint8)
                parts = [av.VideoFrame.from_ndarray(gray) for _ in range(10)]
            else:
                wave = (tone() * 32767 * second).astype(np.int16)[None]
                parts = [av.AudioFrame.from_ndarray(wave, "s16", "mono")]
                parts[0].sample_rate = RATE
            for part in (*parts, None):
                container.mux(stream.encode(part))
    return path


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ("comment", "default", 1),
        (None, "default", 1),
        ("default", None, 0),
        ("visual_impaired", None, 1),
        (None, None, 0),
    ],
)
def test_the_default_streams_are_used(first, second, chosen, tmp_path):
    flags = [
        getattr(av.stream.Disposition, name) if name else av.stream.Disposition(0)
        for name in (first, second)
    ]
    clip = read(two_tracks(tmp_path / "a.mkv", flags), FRAMES, AUDIO)
    assert clip.frames.mean() == pytest.approx(50 + 150 * chosen, abs=6)
    assert np.abs(clip.waveform).max() == pytest.approx(0.5 * chosen, abs=0.01)


def test_empty_packets_repeat_a_frame(tmp_path):
    path = tmp_path / "a.nut"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.height = stream.width = 16
        stream.pix_fmt = "yuvj420p"
        for tick, frame in enumerate(gray_steps(10, 16, 16)):
            if tick in (3, 4, 9):
                packet = av.Packet(b"")
                packet.pts = packet.dts = tick
                packet.time_base, packet.stream = Fraction(1, 10), stream
                container.mux(packet)
                continue
            image = av.VideoFrame.from_ndarray(frame, "rgb24")
            image.pts, image.time_base = tick, Fraction(1, 10)
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    frames = read(path, FrameSampling(10, SquareResize(8)), end=1.0).frames
    got = np.round(frames.mean(axis=(1, 2, 3)) / 10).astype(int).tolist()
    assert got == [0, 1, 2, 2, 2, 5, 6, 7, 8, 8]


def test_silent_and_black_clips_have_a_remark(tmp_path):
    black = [np.zeros((32, 32, 3), np.uint8)] * 10
    path = write_video(tmp_path / "a.mp4", black, np.zeros(RATE))
    clip = read(path, FRAMES, AUDIO)
    assert {remark.kind for remark in clip.remarks} == {"silent", "black"}
    dark = [np.full((32, 32, 3), 50, np.uint8)] * 10
    path = write_video(tmp_path / "b.mp4", dark, 0.01 * tone())
    assert read(path, FRAMES, AUDIO).remarks == ()


def test_too_little_audio_is_masked_if_there_are_frames(tmp_path):
    path = write_video(tmp_path / "a.mp4", gray_steps(20), tone(0.04))
    clip = read(path, FRAMES, AUDIO)
    assert clip.waveform is None and clip.frame_mask.all()
    (remark,) = clip.remarks
    assert remark.kind == "audio_masked" and "minimum 2048" in remark.text
    with pytest.raises(DataError, match="D33.*too few audio samples"):
        read(path, None, AUDIO)


def test_an_empty_audio_stream_is_masked(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.height, video.width, video.pix_fmt = 32, 32, "yuv420p"
        container.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for frame in gray_steps(10, 32, 32):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame)))
        container.mux(video.encode())
    clip = read(path, FRAMES, AUDIO)
    assert clip.waveform is None and clip.frames is not None
    assert [r.text for r in clip.remarks] == ["its audio stream is empty"]


def job(video, audio, **options):
    return DecodeJob("a", video, audio, SquareResize(8), **options)


SPEC = ClipSpec(frames=3, size=8, sample_rate=RATE)


@pytest.mark.parametrize("damage", ["no samples", "empty file", "half", "text"])
def test_the_audio_of_the_video_replaces_an_audio_file_that_cannot_be_used(
    damage, tmp_path
):
    video = write_video(tmp_path / "a.mp4", gray_steps(25), tone(1.0, 440))
    audio = write_wav(tmp_path / "a.wav", tone(1.0, 880))
    good = decode_job(SPEC, job(video, audio))
    assert not good.remarks
    content = audio.read_bytes()
    if damage == "no samples":
        audio.write_bytes(content[:40] + bytes(4))
    else:
        half = content[: len(content) // 2]
        audio.write_bytes({"empty file": b"", "half": half, "text": b"x"}[damage])
    result = decode_job(SPEC, job(video, audio))
    (remark,) = result.remarks
    assert remark.kind == "audio_from_video" and "a.mp4 is used" in remark.text
    assert str(tmp_path) not in remark.text
    want = decode_job(SPEC, job(video, video)).record["audio"]
    np.testing.assert_array_equal(result.record["audio"], want)
    silent = write_video(tmp_path / "b.mp4", gray_steps(25))
    masked = decode_job(SPEC, job(silent, audio))
    assert not len(masked.record["audio"]) and len(masked.record["video"]) == 3
    assert [remark.kind for remark in masked.remarks] == ["audio_masked"]
    with pytest.raises(DataError):
        decode_job(SPEC, job(None, audio))


def test_a_segment_with_nothing_in_it_fails(tmp_path):
    path = write_flash_and_beep(tmp_path / "a.mkv", video_start=1.5, audio_seconds=0.3)
    with pytest.raises(DataError, match="D31.*outside of its video"):
        decode_job(SPEC, job(path, path, start=0.5, end=1.0))


def test_large_frames_are_reduced_while_they_are_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.mp4"
    image = np.zeros((1080, 1920, 3), np.uint8)
    image[:540, :960] = (200, 100, 50)
    write_video(path, [image] * 3)
    sizes = []

    class Spy(SquareResize):
        def __call__(self, index, frame):
            sizes.append(frame.shape)
            return super().__call__(index, frame)

    frame = read(path, FrameSampling(2, Spy(56))).frames[0].astype(int)
    assert set(sizes) == {(270, 480, 3)}
    exact = SquareResize(56)(0, image).astype(int)
    assert np.abs(frame[2:26, 2:26] - exact[2:26, 2:26]).max() < 8
    # A part of the frame keeps its resolution, and small frames are as they are.
    assert SquareResize(56, crop_box=(0.0, 0.0, 0.2, 0.2)).reduction(1080, 1920) == 1
    assert SquareResize(224).reduction(480, 640) == 1
    assert SquareResize(10, "letterbox").reduction(20, 16000) == 400


def test_faces_are_searched_in_frames_of_limited_size(tmp_path, monkeypatch):
    from mmfusion_jax.data.media import clip_spec

    path = write_video(tmp_path / "a.mp4", [np.zeros((720, 2560, 3), np.uint8)] * 3)
    shapes = []
    monkeypatch.setattr(clip_spec, "face_box", lambda x: shapes.append(x.shape))
    result = decode_job(
        ClipSpec(("video",), frames=3, size=8, face_crop=True), job(path, path)
    )
    assert shapes == [(3, 360, 1280, 3)] and result.record["video"].shape[1] == 8


def test_masks_and_remarks_of_a_folder_of_clips(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "talks"
    folder.mkdir()
    late = {"video_start": 0.8, "seconds": 1.6}
    write_flash_and_beep(folder / "late.mkv", **late)
    for name in ("a.mkv", "b.mkv", "c.mkv"):
        write_flash_and_beep(folder / name, seconds=1.6)
    rows = ["file,label,split", "late.mkv,x,train", "a.mkv,y,train"]
    rows += ["b.mkv,x,test", "c.mkv,y,test"]
    (folder / "labels.csv").write_text("\n".join(rows))
    options = {"frames": 8, "size": 8, "sample_rate": RATE, "workers": 0}
    data = load_clips(str(folder), standardize_pixels=True, **options)
    late, plain = data.source("train")[0], data.source("train")[1]
    assert late["masks"]["video"].tolist() == [k >= 3 for k in range(8)]
    assert plain["masks"]["video"].all() and plain["masks"]["audio"].all()
    # Masked frames do not count for the statistics: the red of all frames is alike.
    red = np.concatenate(
        [x["inputs"]["video"][x["masks"]["video"]] for x in (late, plain)]
    )
    assert red.mean() == pytest.approx(0, abs=0.02)


def test_kinds_of_remarks_are_listed(tmp_path):
    path = write_flash_and_beep(tmp_path / "a.mkv", video_start=0.5, hole=(1.0, 1.5))
    for remark in read(path, FRAMES, AUDIO).remarks:
        assert remark.kind in REMARK_KINDS and "\n" not in remark.text


def test_flash_and_beep_are_found_where_they_are(tmp_path):
    """The helpers of these tests do not find what is not there."""
    path = write_flash_and_beep(tmp_path / "a.mkv", flash=9.0)
    clip = read(path, FrameSampling(20, SquareResize(8)), AUDIO)
    assert flash_time(clip.frames, 2.0) is None and beep_time(clip.waveform) is None
