"""Preprocessing of OF-CMAER-CAT, Sec. 4.1: audio, pixels, faces, transcripts."""

import shutil
import sys
import types

import librosa
import numpy as np
import pytest
from media_files import tone, write_video, write_wav

from mmfusion_jax import testing
from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip, OnPixels
from mmfusion_jax.data.augment.image import RandomImage
from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.media import decode, face_detection
from mmfusion_jax.data.media.speech_features import (
    log_mel,
    remove_silence,
    with_deltas,
)
from mmfusion_jax.data.media.transcripts import TranscriptCleaner
from mmfusion_jax.data.preprocessing import (
    MinMaxScaler,
    PixelStandardizer,
    Standardizer,
    normalize_peak,
    pre_emphasize,
)
from mmfusion_jax.errors import ConfigError, MissingDependencyError

RATE = 16000
SMALL = {"frames": 3, "size": 8, "sample_rate": RATE, "workers": 0}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Eight videos with audio, one without, one wav."""
    folder = tmp_path_factory.mktemp("media")
    for i in range(8):
        rng = np.random.default_rng(i)
        frames = [rng.integers(0, 30 * i + 9, (32, 32, 3)).astype(np.uint8)] * 5
        audio = np.concatenate([np.zeros(RATE // 2), tone(1, 200 + 100 * i)])
        write_video(folder / f"{i}.mp4", frames, audio * (i + 1) / 9)
    write_video(folder / "silent.mp4")
    write_wav(folder / "audio.wav", tone(1))
    lines = ["file,label,split,text"]
    lines += [
        f"{i}.mp4,{'ab'[i % 2]},{'train' if i < 6 else 'test'},The dogs!"
        for i in range(8)
    ]
    lines += ["silent.mp4,a,train,no", "audio.wav,b,train,"]
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def load(media, **options):
    return load_clips(str(media), **SMALL | options)


def test_pre_emphasis_by_hand():
    got = pre_emphasize(np.array([1.0, 2.0, 4.0], np.float32), 0.5)
    np.testing.assert_allclose(got, [1, 1.5, 3])
    assert got.dtype == np.float32
    np.testing.assert_allclose(normalize_peak(np.array([0.1, -0.4])), [0.25, -1])
    assert not normalize_peak(np.zeros(3)).any()


def test_log_mel_is_the_definition():
    x = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    got = log_mel(x, RATE, 20, pad_mode="reflect")
    padded = np.pad(x, 1024, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(2048) / 2048)
    frames = np.stack([padded[i * 512 : i * 512 + 2048] for i in range(len(got))])
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    mel = librosa.filters.mel(sr=RATE, n_fft=2048, n_mels=20)
    np.testing.assert_allclose(got, 10 * np.log10(power @ mel.T), rtol=1e-3, atol=1e-3)
    silence = log_mel(np.zeros(4096), RATE, 20, pad_mode="reflect")
    np.testing.assert_allclose(silence, -100, rtol=1e-6)


def test_differences_are_slopes():
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    got = with_deltas(x)
    assert got.shape == (20, 9) and got.dtype == np.float32
    np.testing.assert_array_equal(got[:, :3], x)
    for t in range(4, 16):  # least squares over 9 frames, away from the ends
        steps = np.arange(-4, 5)
        second, first, _ = np.polyfit(steps, x[t - 4 : t + 5].astype(float), 2)
        np.testing.assert_allclose(got[t, 3:6], first, atol=1e-5)
        np.testing.assert_allclose(got[t, 6:], 2 * second, atol=1e-5)


def test_silence_is_removed():
    quiet = 1e-4 * np.random.default_rng(0).standard_normal(RATE)
    x = np.concatenate([tone(1), quiet, tone(1)]).astype(np.float32)
    kept = remove_silence(x, 40.0)
    assert abs(len(kept) - 2 * RATE) < 3 * 2048
    assert len(remove_silence(x, 120.0)) == len(x)
    assert len(remove_silence(np.zeros(RATE, np.float32), 40.0)) == RATE
    click = np.zeros(RATE, np.float32)
    click[100] = 1
    assert len(remove_silence(click, 10.0)) >= 2048  # enough for one window


def test_audio_features_of_clips(media):
    options = {
        "audio_features": "log_mel",
        "n_mels": 10,
        "deltas": True,
        "pre_emphasis": 0.97,
        "silence_db": 30.0,
        "peak_normalize": True,
        "standardize": False,
    }
    data = load(media, **options)
    example = data.source("test")[1]  # 7.mp4
    audio, mask = example["inputs"]["audio"], example["masks"]["audio"]
    assert audio.shape[1] == 30 and not audio[~mask].any()
    assert mask.sum() * 512 / RATE < 1.3  # of 1.5 s, half a second is silence
    waveform = decode.read(media / "7.mp4", None, decode.AudioSampling(RATE)).waveform
    waveform = pre_emphasize(remove_silence(waveform, 30.0), 0.97)
    want = log_mel(normalize_peak(waveform), RATE, 10, pad_mode="reflect")
    np.testing.assert_allclose(audio[mask], with_deltas(want), atol=1e-3)
    assert "labels in range" in testing.check_dataset(data, "label").checked
    scaled = load(media, **options, min_max=True)
    source = scaled.source("train")
    rows = [source[i]["inputs"]["audio"][source[i]["masks"]["audio"]] for i in range(8)]
    rows = np.concatenate(rows)
    np.testing.assert_allclose(rows.min(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.max(0), 1, atol=1e-5)
    test = scaled.source("test")[1]
    scale = MinMaxScaler(*_extremes(data.source("train")))
    np.testing.assert_allclose(
        test["inputs"]["audio"][mask], scale(audio[mask]), atol=1e-4
    )
    with pytest.raises(ConfigError, match="deltas=True requires audio features"):
        load(media, deltas=True, audio_features="waveform")


def _extremes(source):
    rows = [source[i]["inputs"]["audio"][source[i]["masks"]["audio"]] for i in range(8)]
    rows = np.concatenate(rows)
    return rows.min(0), rows.max(0)


def test_a_constant_feature_is_scaled_to_0():
    scale = MinMaxScaler(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
    np.testing.assert_array_equal(
        scale(np.array([[1.0, 3.0], [7.0, 6.0]])), [[0, 0.5], [0, 2]]
    )


def test_pixels_are_standardized_over_the_training_split(media):
    data = load(media, standardize_pixels=True)
    raw = load(media)
    assert "labels in range" in testing.check_dataset(data, "label").checked
    source = data.source("train")
    videos = [source[i]["inputs"]["video"] for i in range(7)]  # the last has no video
    assert videos[0].dtype == np.float32
    pixels = np.concatenate(videos).reshape(-1, 3)
    np.testing.assert_allclose(pixels.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(pixels.std(0), 1, atol=1e-4)
    wav = source[7]
    assert not wav["masks"]["video"].any() and not wav["inputs"]["video"].any()
    test = data.source("test")[0]["inputs"]["video"]
    assert abs(test.mean()) > 0.05
    before = raw.source("test")[0]["inputs"]["video"].astype(float)
    assert np.corrcoef(before.ravel(), test.ravel())[0, 1] > 0.999


SCALE = PixelStandardizer(Standardizer(np.float32([0.4] * 3), np.float32([0.2] * 3)))


def test_standardized_frames_are_augmented_as_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 8, 8, 3)).astype(np.uint8)
    np.testing.assert_array_equal(SCALE.inverse(SCALE(pixels)), pixels)
    mask = np.array([True, False])
    example = {"inputs": {"video": pixels}, "masks": {"video": mask}}
    scaled = {"inputs": {"video": SCALE(pixels)}, "masks": {"video": mask}}
    augment = CropAndFlip(illumination=0.5)
    for seed in range(5):
        want = augment(example, np.random.default_rng(seed))["inputs"]["video"]
        got = OnPixels(augment, SCALE)(scaled, np.random.default_rng(seed))
        got = got["inputs"]["video"]
        np.testing.assert_allclose(got[0], SCALE(want)[0], atol=1e-6)
        assert got.dtype == np.float32 and not got[1].any()
    with pytest.raises(ConfigError, match=r"pixels are -2\.\d+\.\.\d.*not 0\.\.1"):
        RandomImage("video")(scaled, np.random.default_rng(0))


def test_illumination_scales_all_pixels_of_a_clip():
    pixels = np.full((2, 4, 4, 3), 100, np.uint8)
    example = {"inputs": {"video": pixels}, "masks": {"video": np.ones(2, bool)}}
    augment = CropAndFlip((1.5, 1.5), 0.0, illumination=0.2)
    values = set()
    for seed in range(50):
        video = augment(example, np.random.default_rng(seed))["inputs"]["video"]
        assert np.ptp(video) == 0
        values.add(int(video[0, 0, 0, 0]))
    assert min(values) < 85 and max(values) > 115
    assert min(values) >= 80 and max(values) <= 120


def test_illumination_requires_augmentation(media):
    with pytest.raises(ConfigError, match=r"illumination=0.2 requires augment=True"):
        load(media, illumination=0.2)
    data = load(media, illumination=0.2, augment=True, standardize_pixels=True)
    assert data.augment == OnPixels(CropAndFlip(illumination=0.2), data.augment.pixels)


class Cascade:
    """Finds a face in every frame that is not black."""

    def __init__(self, path):
        assert path == "folder/haarcascade_frontalface_default.xml"

    def detectMultiScale(self, gray, scale, neighbors, minSize):  # noqa: N802, N803
        return [(2, 4, 3, 3), (10, 6, 10, 8)] if gray.max() > 40 else ()


def opencv(monkeypatch):
    """A module with the functions of OpenCV that are called."""
    cv2 = types.ModuleType("cv2")
    cv2.CascadeClassifier = Cascade
    cv2.data = types.SimpleNamespace(haarcascades="folder/")
    cv2.COLOR_RGB2GRAY = 7
    cv2.cvtColor = lambda frame, code: frame.mean(axis=2)
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    return cv2


def test_frames_are_cropped_to_the_largest_face(monkeypatch):
    opencv(monkeypatch)
    frames = np.full((7, 30, 40, 3), 90, np.uint8)
    # Center (15, 10), side 10 * 1.4 = 14.
    assert face_detection.face_box(frames) == (8, 3, 14)
    assert face_detection.face_box(np.zeros_like(frames)) is None
    assert face_detection.face_box(frames[:, :12]) == (9, 0, 12)  # within the frame


def test_clips_without_a_face_are_counted_and_cropped_centrally(media, monkeypatch):
    opencv(monkeypatch)
    with pytest.raises(ConfigError, match="cannot be used with face_crop=True"):
        load(media, face_crop=True, crop_box=(0.0, 0.0, 0.5, 1.0))
    cropped, full = load(media, face_crop=True), load(media)
    warnings = "".join(cropped.facts["warnings"])
    # 0.mp4 and 1.mp4 are dark; audio.wav has no frames.
    assert "2 of 10 clips have no detected face" in warnings
    video = lambda data, i: data.source("train")[i]["inputs"]["video"].astype(int)
    for i in (0, 1):
        np.testing.assert_array_equal(video(cropped, i), video(full, i))
    assert np.abs(video(cropped, 5) - video(full, 5)).max() > 20


def test_opencv_is_asked_for_before_anything_is_decoded(media, monkeypatch):
    said = r"detecting faces requires opencv-python-headless<5.*\s.*\[faces\]"
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match=said):
        load(media, face_crop=True)
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))  # OpenCV 5
    with pytest.raises(MissingDependencyError, match=said):
        load(media, face_crop=True)


def test_a_real_face_is_found(real_data):
    pytest.importorskip("cv2")
    path = real_data / "media_samples" / "Oz06ZWiO20M_6.mp4"
    if not path.is_file():
        pytest.skip(f"{path} does not exist")
    keep = lambda index, frame: frame
    frames = decode.read(path, decode.FrameSampling(5, keep)).frames
    box = face_detection.face_box(frames)
    assert box is not None
    left, top, side = box
    assert 100 < side < 300
    assert 200 < left + side / 2 < 320  # one person in the middle of 480 x 360
    # The face itself is found again in the crop.
    assert face_detection.face_box(frames[:, top : top + side, left : left + side])


def test_transcripts_are_cleaned():
    text = "The dogs, and she's not running; don't!"
    assert TranscriptCleaner()(text) == text
    assert TranscriptCleaner(True)(text) == "The dogs and she not running dont"
    assert TranscriptCleaner(True, True)(text) == "dogs running dont"
    assert TranscriptCleaner(False, True)(text) == "dogs, running; don't!"
    assert TranscriptCleaner(True, True)("No, I am not.") == "No I am not"
    assert TranscriptCleaner(True, True)("") == ""


def test_words_become_lemmas(monkeypatch):
    simplemma = types.ModuleType("simplemma")
    simplemma.lemmatize = lambda word, lang: {"dogs": "dog"}.get(word, word) + lang
    monkeypatch.setitem(sys.modules, "simplemma", simplemma)
    assert TranscriptCleaner(lemmatize=True)("big dogs") == "bigen dogen"
    monkeypatch.setitem(sys.modules, "simplemma", None)
    with pytest.raises(MissingDependencyError, match=r"simplemma.*\s.*\[text\]"):
        TranscriptCleaner(lemmatize=True)("dogs")


def test_real_lemmas():
    pytest.importorskip("simplemma")
    got = TranscriptCleaner(True, True, True)("the children's dogs were running")
    assert got == "child dog run"


def test_token_ids_of_cleaned_transcripts(media, tmp_path):
    options = {"modalities": ("audio", "text", "video"), "max_tokens": 5}
    data = load(media, **options, remove_punctuation=True, remove_stop_words=True)
    # [PAD] [UNK] [CLS] [SEP] dogs no
    assert data.source("train")[0]["inputs"]["text"].tolist() == [2, 4, 3, 0, 0]
    assert data.source("train")[6]["inputs"]["text"].tolist() == [2, 5, 3, 0, 0]
    assert not data.source("train")[7]["masks"]["text"].any()
    cased = shutil.copytree(media, tmp_path / "cased")
    plain = load(cased, **options, lowercase=False)
    # "!" "The" "dogs" "no"
    assert plain.source("train")[0]["inputs"]["text"].tolist() == [2, 5, 6, 4, 3]
