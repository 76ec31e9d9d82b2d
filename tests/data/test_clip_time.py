"""One clock for the video and audio of a clip: a flash and a beep at the same time."""

import numpy as np
import pytest
from groups import in_ci
from media_files import (
    RATE,
    beep_time,
    flash_time,
    write_flash_and_beep,
    write_video,
    write_wav,
)

from mmfusion_jax.data.media import audio_samples, video_frames
from mmfusion_jax.data.media.decode import AudioSampling, FrameSampling, read
from mmfusion_jax.data.media.resize import SquareResize
from mmfusion_jax.errors import DataError

pytestmark = pytest.mark.versions

AUDIO = AudioSampling(RATE)
FRAMES = FrameSampling(40, SquareResize(8))

MARKED = {
    "together": ("a.mp4", {"audio": "aac"}),
    "audio begins late": ("a.mkv", {"audio_start": 0.5}),
    "audio begins late, mp4": ("a.mp4", {"audio": "aac", "audio_start": 0.512}),
    "video begins late": ("a.mkv", {"video_start": 0.5}),
    "hole in the audio": ("a.mkv", {"hole": (0.3, 0.8)}),
    "hole in the audio, mp4": (
        "a.mp4",
        {"audio": "flac", "hole": (0.3, 0.8), "options": {"strict": "-2"}},
    ),
    "variable frame rate": (
        "a.mkv",
        {"times": [*np.arange(0, 1.2, 0.04).round(3), 1.2, 1.4, 1.6, 1.8]},
    ),
    "transport stream": ("a.ts", {"video": "mpeg2video", "audio": "mp2", "fps": 25}),
    "program stream": ("a.mpg", {"video": "mpeg2video", "audio": "mp2", "fps": 25}),
}


@pytest.mark.parametrize("case", MARKED)
def test_flash_and_beep_are_at_the_same_time(case, tmp_path):
    name, options = MARKED[case]
    path = write_flash_and_beep(tmp_path / name, **options)
    clip = read(path, FRAMES, AUDIO)
    # The end of the last frame of a variable rate is not known.
    end = 1.8 if "times" in options else 2.0
    assert flash_time(clip.frames, end) == pytest.approx(1.0, abs=0.06)
    assert beep_time(clip.waveform) == pytest.approx(1.0, abs=0.04)
    part = read(path, FRAMES, AUDIO, start=0.9, end=1.3)
    assert flash_time(part.frames, 0.4) == pytest.approx(0.1, abs=0.05)
    assert beep_time(part.waveform) == pytest.approx(0.1, abs=0.04)
    assert len(part.waveform) == round(0.4 * RATE) and part.frame_mask.all()


def test_a_late_or_missing_part_is_silence_with_a_remark(tmp_path):
    late = write_flash_and_beep(tmp_path / "late.mkv", audio_start=0.5)
    wave = read(late, None, AUDIO).waveform
    assert not wave[: RATE // 2 - 20].any() and np.abs(wave[RATE // 2 :]).max() > 0.4
    hole = write_flash_and_beep(tmp_path / "hole.mkv", hole=(0.3, 0.8))
    clip = read(hole, None, AUDIO)
    assert not clip.waveform[round(0.31 * RATE) : round(0.79 * RATE)].any()
    (remark,) = clip.remarks
    assert remark.kind == "audio_gap" and "0.50 s" in remark.text
    plain = write_flash_and_beep(tmp_path / "plain.mkv")
    assert read(plain, FRAMES, AUDIO).remarks == ()


def test_frames_before_the_video_begins_are_masked(tmp_path):
    path = write_flash_and_beep(tmp_path / "a.mkv", video_start=0.8, seconds=2.4)
    clip = read(path, FrameSampling(24, SquareResize(8)), AUDIO)
    # Up to a quarter of a second is the delay of a codec, not a late start.
    assert clip.frame_mask.tolist() == [k >= 6 for k in range(24)]
    assert not clip.frames[:6].any() and clip.frames[6:].any(axis=(1, 2, 3)).all()
    assert "frames_masked" in {remark.kind for remark in clip.remarks}
    assert read(path, FRAMES, AUDIO, end=0.4).frames is None
    assert read(path, FRAMES, AUDIO, end=0.4).waveform is not None


def test_no_frame_is_repeated_after_the_end_of_the_video(tmp_path):
    path = write_flash_and_beep(tmp_path / "a.mkv", audio_seconds=4.0)
    outside = read(path, FRAMES, AUDIO, start=2.5, end=3.5, key_frame=SquareResize(8))
    assert outside.frames is None and outside.key_frame is None
    assert len(outside.waveform) == RATE
    assert [remark.kind for remark in outside.remarks] == ["frames_masked"]
    half = read(path, FrameSampling(10, SquareResize(8)), AUDIO, start=1.0, end=3.0)
    assert half.frame_mask.tolist() == [k < 7 for k in range(10)]
    assert read(path, FRAMES, AUDIO).frame_mask.all()  # the length of the video
    short = write_flash_and_beep(tmp_path / "b.mkv", audio_seconds=1.0)
    clip = read(short, FRAMES, AUDIO, start=1.2, end=1.8)
    assert clip.waveform is None and clip.frame_mask.all()
    assert [remark.kind for remark in clip.remarks] == ["audio_masked"]


@pytest.mark.parametrize(("start", "end"), [(5.0, None), (2.5, 3.0), (1.0, 2.5)])
def test_segments_outside_of_the_clip_are_refused(start, end, tmp_path):
    path = write_flash_and_beep(tmp_path / "a.mkv")
    with pytest.raises(DataError, match=r"D34.*ends at 2\.\d\d s"):
        read(path, FRAMES, AUDIO, start=start, end=end)


def test_consecutive_frames_are_stored_frames_at_any_rate(tmp_path):
    times = [0.0, 0.5, 1.0, 1.02, 1.06, 1.1, 1.5]
    path = write_flash_and_beep(tmp_path / "a.mkv", times=times, seconds=1.7)
    clip = read(path, FrameSampling(3, SquareResize(8), "consecutive"))
    green = clip.frames[:, 4, 4, 1] > 120
    assert green.all()  # the frames of 1.0, 1.02 and 1.06 s are in the middle
    few = read(path, FrameSampling(9, SquareResize(8), "consecutive"))
    assert few.frame_mask.tolist() == [True] * 7 + [False] * 2


FILMS = {
    "mp4": ("a.mp4", {"video": "libx264", "audio": "aac"}),
    "open groups of pictures": (
        "a.mkv",
        {
            "video": "libx264",
            "video_options": {"x264-params": "open-gop=1:bframes=2:keyint=12"},
        },
    ),
    "avi": ("a.avi", {"video_options": {"g": "12"}}),
    "webm": (
        "a.webm",
        {
            "video": "libvpx",
            "audio": "libopus",
            "video_options": {"g": "12", "deadline": "realtime", "cpu-used": "8"},
        },
    ),
    "transport stream": ("a.ts", {"video": "mpeg2video", "audio": "mp2", "fps": 25}),
}


@pytest.mark.parametrize("case", in_ci(FILMS, "mp4"))
def test_segments_of_a_film_seek_and_have_the_same_frames(case, tmp_path, monkeypatch):
    name, options = FILMS[case]
    gop = {"video_options": {"g": "12"}} | options
    path = write_flash_and_beep(tmp_path / name, seconds=30, flash=26.0, **gop)
    count = {video_frames: 0, audio_samples: 0}
    for module in count:
        monkeypatch.setattr(module, "packets", _counted(module, count))
    segment = {"start": 25.9, "end": 26.5}
    rate = 48000 if name == "a.webm" else RATE  # without resampling
    audio = AudioSampling(rate)
    sought = read(path, FRAMES, audio, **segment)
    few = dict(count)
    for module in count:
        monkeypatch.setattr(module, "_SEEK_FROM", np.inf)
    all_decoded = read(path, FRAMES, audio, **segment)
    np.testing.assert_array_equal(sought.frames, all_decoded.frames)
    assert flash_time(sought.frames, 0.6) == pytest.approx(0.1, abs=0.05)
    assert beep_time(sought.waveform, rate) == pytest.approx(0.1, abs=0.04)
    assert len(sought.waveform) == len(all_decoded.waveform) == round(0.6 * rate)
    for module, packets in few.items():
        assert packets < (count[module] - packets) / 4


def _counted(module, count):
    packets = module.packets

    def counted(*arguments):
        for packet in packets(*arguments):
            count[module] += 1
            yield packet

    return counted


def test_a_key_frame_that_cannot_be_found_is_decoded_from_the_start(
    tmp_path, monkeypatch
):
    path = write_flash_and_beep(tmp_path / "a.mp4", seconds=10, flash=8.0)
    want = read(path, FRAMES, start=7.9, end=8.3).frames
    # Of a frame that is not a key frame, as with a damaged index.
    monkeypatch.setattr(video_frames, "_key_before", lambda *_: 79)
    np.testing.assert_array_equal(read(path, FRAMES, start=7.9, end=8.3).frames, want)


def test_joined_recordings_follow_each_other(tmp_path):
    one = {"video": "mpeg2video", "audio": "mp2", "fps": 25, "flash": 0.4}
    path = write_flash_and_beep(tmp_path / "a.ts", seconds=1.0, **one)
    path.write_bytes(path.read_bytes() * 2)
    clip = read(path, FrameSampling(50, SquareResize(8)), AUDIO)
    assert clip.duration == pytest.approx(2.0, abs=0.2)
    second = read(path, FRAMES, AUDIO, start=1.0, end=2.0)
    for part, end in ((clip, 2.0), (second, 1.0)):
        assert flash_time(part.frames, end) == pytest.approx(0.4, abs=0.15)
        assert beep_time(part.waveform) == pytest.approx(0.4, abs=0.15)


def test_forged_time_stamps_do_not_fill_the_memory(tmp_path):
    hole = {"hole": (0.5, 1e6), "audio_seconds": 0.5}
    path = write_flash_and_beep(
        tmp_path / "a.mkv", times=[0.0, 5e6], video="mjpeg", **hole
    )
    with pytest.raises(DataError, match=r"D32.*time stamps cover 1389 h"):
        read(path, FRAMES, AUDIO)


def test_other_clips_are_read_after_one_was_replaced(tmp_path):
    path = tmp_path / "a.mp4"
    write_video(path)
    assert read(path, FRAMES, AUDIO).waveform is None
    path.unlink()
    write_wav(path)
    assert len(read(path, FRAMES, AUDIO).waveform) == RATE
