"""Decoding: frames at the right time, librosa's MFCC, and damaged files."""

import random
import struct
import sys

import av
import numpy as np
import pytest
from media_files import RATE, gray_steps, tone, write_video, write_wav

from mmfusion_jax.data.media.decode import AudioSampling, FrameSampling, mfcc, read
from mmfusion_jax.data.media.resize import SquareResize
from mmfusion_jax.errors import DataError, MissingDependencyError

pytestmark = pytest.mark.versions

AUDIO = AudioSampling(RATE)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "a.mp4", audio=tone())


@pytest.fixture(scope="module")
def music(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("music") / "a.wav")


def gray_indices(clip):
    """The index of the gray step of each frame."""
    return np.round(clip.frames.mean(axis=(1, 2, 3)) / 10).astype(int).tolist()


def test_frame_k_is_displayed_at_k_nths_of_the_duration(video):
    clip = read(video, FrameSampling(5, SquareResize(16)))
    assert clip.frames.shape == (5, 16, 16, 3) and clip.frames.dtype == np.uint8
    assert gray_indices(clip) == [0, 5, 10, 15, 20]
    assert clip.duration == pytest.approx(1.0, abs=0.1)


def test_more_frames_than_there_are_repeat(video):
    clip = read(video, FrameSampling(50, SquareResize(4)))
    assert gray_indices(clip) == [k // 2 for k in range(50)]


def test_a_segment_has_only_its_own_frames(video):
    clip = read(video, FrameSampling(4, SquareResize(4)), AUDIO, start=0.4, end=0.8)
    assert gray_indices(clip) == [10, 12, 15, 17]
    assert len(clip.waveform) == round(0.4 * RATE)


def test_variable_frame_rates_are_sampled_by_time(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=1000)
        stream.height, stream.width, stream.pix_fmt = 32, 32, "yuv420p"
        for frame, at in zip(gray_steps(4, 32, 32), (0, 100, 150, 700), strict=True):
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts = at
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    got = gray_indices(
        read(path, FrameSampling(8, SquareResize(4)), end=0.8)
    )  # every .1 s
    assert got == [0, 1, 2, 2, 2, 2, 2, 3]


def test_consecutive_frames_are_from_the_middle():
    indices = FrameSampling(4, sampling="consecutive").times(2.0, 4.0, 10.0) * 10
    assert np.floor(indices).tolist() == [28, 29, 30, 31]
    few = FrameSampling(30, sampling="consecutive").times(0.0, 1.0, 10.0) * 10
    assert np.floor(few[:2]).tolist() == [0, 1]  # the last frame is repeated


def test_resize_modes(tmp_path):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, 16:48] = 200
    video = write_video(tmp_path / "a.mp4", [image] * 5)
    resized = lambda mode: read(video, FrameSampling(1, SquareResize(32, mode)))
    mean = lambda mode: resized(mode).frames.mean()
    assert mean("center_crop") == pytest.approx(200, abs=4)
    assert mean("stretch") == pytest.approx(100, abs=4)
    assert mean("letterbox") == pytest.approx(50, abs=4)


def test_crop_box(tmp_path):
    image = np.zeros((32, 64, 3), np.uint8)
    image[16:, 32:] = 200
    video = write_video(tmp_path / "a.mp4", [image] * 5)
    transform = SquareResize(8, "stretch", (0.55, 0.55, 1.0, 1.0))
    frames = read(video, FrameSampling(1, transform)).frames
    assert frames.mean() == pytest.approx(200, abs=4)
    assert SquareResize(4, crop_box=(0.0, 0.0, 0.001, 0.001))(0, image).shape == (
        4,
        4,
        3,
    )
    for box in ((0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.0, 1.1), (0.5,)):
        with pytest.raises(ValueError, match="C10.*crop_box="):
            SquareResize(8, crop_box=box)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_rotation_metadata_is_applied(tmp_path, rotation):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:16, :32] = 255
    video = write_video(tmp_path / "a.mp4", [image] * 5, rotation=rotation)
    frame = read(video, FrameSampling(1, SquareResize(32, "stretch"))).frames[0]
    want = np.rot90(image, rotation // 90)
    corners = lambda x: [x[i, j, 0] > 128 for i in (2, -3) for j in (2, -3)]
    assert corners(frame) == corners(want)


def test_waveform_is_the_mean_of_the_channels(tmp_path):
    stereo = np.stack([tone(), 0.1 * tone()])
    clip = read(write_wav(tmp_path / "a.wav", stereo), None, AUDIO)
    np.testing.assert_allclose(clip.waveform, 0.55 * tone(), atol=1e-4)
    assert clip.waveform.dtype == np.float32 and clip.frames is None
    assert clip.channels == 2 and not clip.remarks
    many = np.stack([tone(), tone()] + [0.5 * tone()] * 6)
    clip = read(write_wav(tmp_path / "b.wav", many), None, AUDIO)
    np.testing.assert_allclose(clip.waveform, 5 / 8 * tone(), atol=1e-4)


@pytest.mark.parametrize("channels", [2, 6, 8])
def test_empty_channels_do_not_lower_the_loudness(channels, tmp_path):
    empty = np.zeros((channels - 1, RATE))
    path = write_wav(tmp_path / "a.wav", np.concatenate([empty, tone()[None]]))
    clip = read(path, None, AUDIO)
    np.testing.assert_allclose(clip.waveform, tone(), atol=1e-4)
    (remark,) = clip.remarks
    assert remark.kind == "channels" and clip.channels == channels
    assert f"{channels} audio channels, of which {channels - 1} are" in remark.text


def test_resamples_and_cuts_like_librosa(music):
    import librosa

    clip = read(music, None, AudioSampling(22050, offset=0.25, duration=0.5))
    half = tone()[RATE // 4 : RATE * 3 // 4].astype(np.float32)
    want = librosa.resample(half, orig_sr=RATE, target_sr=22050)
    np.testing.assert_allclose(clip.waveform, want, atol=1e-4)


@pytest.mark.parametrize("pad_mode", ["reflect", "constant"])
def test_mfcc_is_the_definition(pad_mode):
    """The equations of librosa's defaults, redone in NumPy."""
    from scipy.fft import dct

    rate, wave = 22050, np.random.default_rng(0).normal(size=5000) * 0.1
    edges = np.pad(wave, 1024, mode=pad_mode)
    frames = np.lib.stride_tricks.sliding_window_view(edges, 2048)[::512]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    power = np.abs(np.fft.rfft(frames * hann)) ** 2
    log = np.log(6.4) / 27
    to_mel = lambda f: np.where(f < 1000, f * 3 / 200, 15 + np.log(f / 1000) / log)
    to_hz = lambda m: np.where(m < 15, m * 200 / 3, 1000 * np.exp(log * (m - 15)))
    top = float(to_mel(np.array(rate / 2, float).clip(1000)))
    hertz = to_hz(np.linspace(0, top, 130))
    ramps = hertz[:, None] - np.arange(1025) * rate / 2048
    up = -ramps[:-2] / np.diff(hertz)[:-1, None]
    down = ramps[2:] / np.diff(hertz)[1:, None]
    bands = np.maximum(0, np.minimum(up, down)) * 2 / (hertz[2:] - hertz[:-2])[:, None]
    decibel = 10 * np.log10(np.maximum(1e-10, power @ bands.T))
    decibel = np.maximum(decibel, decibel.max() - 80)
    want = dct(decibel, norm="ortho")[:, :13]
    got = mfcc(wave, rate, pad_mode=pad_mode)
    assert got.shape == (10, 13) and got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=2e-3)


def test_the_paper_has_212_frames():
    assert len(mfcc(np.ones(108045), 44100)) == 212


def test_mfcc_needs_a_full_window():
    with pytest.raises(ValueError, match="less than n_fft=2048"):
        mfcc(np.ones(2000), RATE)


def test_a_missing_stream_is_none(video, music, tmp_path):
    assert read(music, FrameSampling(), AUDIO).frames is None
    silent = write_video(tmp_path / "silent.mp4")
    clip = read(silent, FrameSampling(3, SquareResize(8)), AUDIO)
    assert clip.waveform is None and clip.frames.shape == (3, 8, 8, 3)
    assert read(video, None, AUDIO).frames is None
    assert read(video, FrameSampling(3, SquareResize(8))).waveform is None


def test_the_name_of_a_file_does_not_matter(video, music, tmp_path):
    named_mp4 = tmp_path / "music.mp4"
    named_mp4.write_bytes(music.read_bytes())
    assert len(read(named_mp4, FrameSampling(), AUDIO).waveform) == RATE
    named_wav = tmp_path / "video.wav"
    named_wav.write_bytes(video.read_bytes())
    assert gray_indices(read(named_wav, FrameSampling(2, SquareResize(8)))) == [0, 12]


def test_metadata_need_not_be_utf8(video, music, tmp_path):
    title = b"INFOINAM" + struct.pack("<I", 4) + b"\xe9t\xe9\0"  # Latin-1
    named = music.read_bytes() + b"LIST" + struct.pack("<I", len(title)) + title
    path = tmp_path / "a.wav"
    path.write_bytes(patched(named, 4, struct.pack("<I", len(named) - 8)))
    assert len(read(path, None, AUDIO).waveform) == RATE
    content = video.read_bytes()
    assert b"VideoHandler" in content  # the name of the stream
    path = tmp_path / "a.mp4"
    path.write_bytes(content.replace(b"VideoHandler", b"Vid\xe9oH\xe4ndl\xffr"))
    assert gray_indices(read(path, FrameSampling(2, SquareResize(8)))) == [0, 12]


def float_wav(samples):
    """A wav of 32 bit floats."""
    body = np.asarray(samples, "<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, RATE, 4 * RATE, 4, 32)
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    head += b"data" + struct.pack("<I", len(body))
    return b"RIFF" + struct.pack("<I", len(head) + len(body)) + head + body


def patched(content, at, value):
    return content[:at] + value + content[at + len(value) :]


def flipped(content):
    """Every 50th byte between a quarter and three quarters turned over."""
    content = bytearray(content)
    for at in range(len(content) // 4, 3 * len(content) // 4, 50):
        content[at] ^= 0xFF
    return bytes(content)


def faststart(path):
    """The same video with its index in front, so that a cut leaves it readable."""
    fast = path.with_name("fast.mp4")
    with (
        av.open(str(path)) as old,
        av.open(str(fast), "w", options={"movflags": "+faststart"}) as new,
    ):
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        for packet in old.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                new.mux(packet)
    return fast.read_bytes()


def flac(audio):
    import io

    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=RATE, layout="mono")
        block = (audio[None] * 32767).astype(np.int16)
        piece = av.AudioFrame.from_ndarray(block, "s16", "mono")
        piece.sample_rate = RATE
        container.mux(stream.encode(piece))
        container.mux(stream.encode())
    return file.getvalue()


PAGE = b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Please log in</body></html>"
DAMAGE = {
    "empty": (lambda video, music: b"", "D31.*is empty"),
    "HTML page": (lambda video, music: PAGE, "D31.*an HTML page"),
    "playlist": (
        lambda video, music: b"#EXTM3U\n#EXTINF:9,\n/etc/passwd\n",
        "D31.*a text file",
    ),
    "playlist in UTF-8": (
        lambda video, music: "#EXTM3U\n#EXTINF:9,é\n/etc/passwd\n".encode(),
        "D31.*a text file",
    ),
    "lfs pointer": (
        lambda video, music: b"version https://git-lfs.github.com/spec/v1\n",
        r"D31.*a Git LFS pointer[\s\S]*git lfs pull",
    ),
    "annex pointer": (
        lambda video, music: b"/annex/objects/SHA256E-s9--0.mp4\n",
        r"D31.*a git-annex pointer[\s\S]*git annex get",
    ),
    "AppleDouble": (
        lambda video, music: b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4000),
        r"D31.*an AppleDouble file of macOS[\s\S]*clip\.mp4, without",
    ),
    "JSON": (
        lambda video, music: b'{"error": {"code": 403, "message": "rate limit"}}',
        "D31.*text file, of JSON",
    ),
    "ZIP": (lambda video, music: b"PK\3\4" + video, r"D31.*a ZIP[\s\S]*unpack"),
    "gzip": (lambda video, music: b"\x1f\x8b" + video, "D31.*a gzip archive"),
    "zeros": (lambda video, music: bytes(3 << 20), "D31.*zeros only"),
    "image": (
        lambda video, music: b"\xff\xd8\xff\xe0" + bytes(99),
        "D31.*a JPEG image with the name of a clip",
    ),
    "zeros after the first bytes": (
        lambda video, music: video[:300] + bytes(len(video) - 300),
        "D3[12]",
    ),
    "noise": (lambda video, music: random.Random(0).randbytes(9000), "D3[12]"),
    "half video": (lambda video, music: video[: len(video) // 2], "D32"),
    "half video, index first": (
        lambda video, music: faststart(video)[: len(faststart(video)) // 2],
        r"D32.*truncated \(cut short\): 0\.\d+ of 0\.\d+ MB",
    ),
    "flipped video": (lambda video, music: flipped(video), "D32"),
    "half wav": (
        lambda video, music: music[: len(music) // 2],
        r"D32.*truncated \(cut short\): 0\.016 of 0\.032 MB",
    ),
    "half flac": (lambda video, music: flac(tone())[:4000], "D32"),
    "wav of headers": (lambda video, music: music[:44], "D32"),
    "wav of nothing": (
        lambda video, music: patched(music[:44], 40, struct.pack("<I", 0)),
        "D3[123]",
    ),
    "rate 0": (
        lambda video, music: patched(music, 24, struct.pack("<I", 0)),
        "D32",
    ),
    "NaN": (
        lambda video, music: float_wav([0.1, np.nan] * 4000),
        "D33.*NaN or infinite",
    ),
    "infinity": (lambda video, music: float_wav([np.inf] * 8000), "D33.*infinite"),
    "too short": (
        lambda video, music: float_wav([0.1] * 2047),
        "D33.*: 2047, minimum 2048",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_reported_not_decoded(case, video, music, tmp_path):
    make, message = DAMAGE[case]
    path = tmp_path / "clip.mp4"
    if "index first" in case:
        copy = tmp_path / "copy.mp4"
        copy.write_bytes(video.read_bytes())
        content = make(copy, None)
    else:
        content = make(video.read_bytes(), music.read_bytes())
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read(path, FrameSampling(3, SquareResize(8)), AUDIO)
    assert str(path) in str(error.value)


def test_audio_lost_at_the_end_of_a_video_is_reported(tmp_path):
    video = write_video(tmp_path / "a.mp4", gray_steps(75), tone(3.0))
    content = faststart(video)
    index_first = tmp_path / "b.mp4"
    index_first.write_bytes(content)
    read(index_first, FrameSampling(3, SquareResize(8)), AUDIO)
    index_first.write_bytes(content[:-900])
    with pytest.raises(DataError, match="D32"):
        read(index_first, FrameSampling(3, SquareResize(8)), AUDIO)


def test_a_streamed_wav_of_unknown_size_is_fine(music, tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(patched(music.read_bytes(), 40, b"\xff\xff\xff\xff"))
    assert len(read(path, None, AUDIO).waveform) == RATE


def test_the_cover_of_a_song_is_not_a_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), "f"), "fltp", "mono")
        block.sample_rate = RATE
        for _ in range(8):
            container.mux(audio.encode(block))
        container.mux(audio.encode())
        container.mux(cover.encode(image))
        container.mux(cover.encode())
    assert read(path, FrameSampling(), AudioSampling(RATE)).frames is None


def test_unknown_resize_modes():
    message = (
        r"C03.*resize_mode='zoom' is unknown.\s.*: center_crop, letterbox, stretch"
    )
    with pytest.raises(ValueError, match=message):
        SquareResize(8, "zoom")


def test_missing_files_and_segments(tmp_path, video):
    with pytest.raises(DataError, match="D30.*nowhere.mp4"):
        read(tmp_path / "nowhere.mp4")
    with pytest.raises(DataError, match="D30"):
        read(tmp_path)
    with pytest.raises(
        DataError, match=r"D34.*0-9 s exceeds the clip, which ends at 1\.\d+ s"
    ):
        read(video, FrameSampling(), end=9.0)
    with pytest.raises(
        DataError, match="D33.*too few audio samples from 5 s on: 0, minimum"
    ):
        read(video, None, AudioSampling(RATE, offset=5.0))


@pytest.mark.parametrize("module", ["av", "librosa", "PIL"])
def test_names_the_extra_that_is_missing(module, video, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingDependencyError, match=r"E01[\s\S]*mmfusion_jax\[media\]"
    ):
        read(video, FrameSampling(), AudioSampling(8000))


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_random_damage_raises_nothing_but_data_errors(count, video, music, tmp_path):
    rng = random.Random(1)
    path = tmp_path / "clip"
    sources = [video.read_bytes(), music.read_bytes(), flac(tone())]
    reported = 0
    for _ in range(count):
        content = bytearray(rng.choice(sources))
        for _ in range(rng.choice([1, 5, 50])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.5:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            clip = read(path, FrameSampling(3, SquareResize(8)), AudioSampling(RATE))
        except DataError:
            reported += 1
            continue
        if clip.frames is not None:
            assert clip.frames.shape == (3, 8, 8, 3)
    assert reported > count / 3


def test_librosa_reads_the_real_recordings_alike(real_data):
    folder = real_data / "ravdess"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    with np.load(folder / "wav_mfcc_librosa.npz", allow_pickle=False) as file:
        names, offsets, mfccs = file["name"], file["offsets"], file["mfcc"]
    for index in (0, 1, 17):
        wave = read(
            folder / "wav" / f"{names[index]}.wav", None, AudioSampling()
        ).waveform
        want = mfccs[offsets[index] : offsets[index + 1]]
        np.testing.assert_allclose(
            mfcc(wave, 22050, pad_mode="constant"), want, atol=1e-2
        )


def test_a_real_video_has_its_frames_and_audio(real_data):
    path = real_data / "media_samples" / "Oz06ZWiO20M_6.mp4"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    clip = read(path, FrameSampling(30, SquareResize(56)), AudioSampling(16000))
    assert clip.duration == pytest.approx(7.5, abs=0.01)
    assert clip.frames.shape == (30, 56, 56, 3) and clip.frames.std() > 10
    assert len(clip.waveform) / 16000 == pytest.approx(7.44, abs=0.05)
