"""Image, audio and text augmentation: seeds, ranges and masks."""

import pkgutil

import numpy as np
import pytest
from tiny_dataset import config, tones

from mmfusion_jax import testing
from mmfusion_jax.config.build_data import build_dataset
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.augment.audio import (
    RandomSpectrogram,
    RandomWaveform,
    _pitch_shift,
    _time_stretch,
    pink_noise,
)
from mmfusion_jax.data.augment.image import RandomImage, resample
from mmfusion_jax.data.augment.interpolate import interpolate_at
from mmfusion_jax.data.augment.registry import AUGMENTATIONS
from mmfusion_jax.data.augment.text import RandomWords, read_synonyms
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import ConfigError, DataError

pytestmark = pytest.mark.versions

RATE = 8000


def example(values, real=None):
    mask = np.arange(len(values)) < (len(values) if real is None else real)
    other = {"other": np.ones((2, 3))}
    inputs, masks = {"x": values, **other}, {"x": mask, "other": np.ones(2, bool)}
    return {"inputs": inputs, "masks": masks, "labels": {"y": 1}, "weight": 1.0}


def tone(hertz=440.0, seconds=1.0):
    return np.sin(
        2 * np.pi * hertz * np.arange(int(RATE * seconds)) / RATE, dtype=float
    )


def image_batch(channels=3, dtype=np.uint8):
    rng = np.random.default_rng(0)
    x = rng.random((2, 12, 12, channels)) * 0.5 + 0.25
    return (255 * x).astype(dtype) if dtype == np.uint8 else x.astype(dtype)


OPTIONS = {
    "waveform": {"sample_rate": RATE, "prob": 1.0},
    "spectrogram": {"prob": 1.0},
    "words": {"replace_prob": 0.0},
}
"""Augmentation -> its options, where the defaults do not change every example."""

CASES = {
    "image": (RandomImage("x"), image_batch()),
    "image floats": (RandomImage("x"), image_batch(1, np.float32)),
    "waveform": (RandomWaveform("x", RATE, prob=1.0), tone().astype(np.float32)),
    "spectrogram": (
        RandomSpectrogram("x", prob=1.0),
        np.random.default_rng(1).random((20, 8)).astype(np.float32),
    ),
    "spectrogram image": (
        RandomSpectrogram("x", time=2, frequency=1, prob=1.0),
        np.random.default_rng(1).integers(0, 256, (1, 9, 9, 1)).astype(np.uint8),
    ),
    "words": (RandomWords("x", 0.5, 0.0), np.arange(1, 13, dtype=np.int32)),
}


@pytest.mark.parametrize("name", CASES)
def test_properties(name):
    vary, values = CASES[name]
    testing.check_augmentation(vary, example(values), name=name)
    got = vary(example(values), np.random.default_rng(1))
    assert not np.any(got["inputs"]["x"][~got["masks"]["x"]])


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_properties_of_every_augmentation(name):
    options = OPTIONS.get(name, {})
    part = pkgutil.resolve_name(AUGMENTATIONS[name])("x", **options)
    testing.check_augmentation(part, name=name)


def test_images_by_hand():
    x = image_batch(1, np.float32)
    flip = RandomImage("x", (1.0, 1.0), 1.0, 0.0, 0.0, 0.0)
    got = flip(example(x), np.random.default_rng(0))["inputs"]["x"]
    np.testing.assert_allclose(got, x[:, :, ::-1], rtol=1e-6)
    still = RandomImage("x", (1.0, 1.0), 0.0, 0.0, 0.0, 0.0)
    got = still(example(image_batch()), np.random.default_rng(0))["inputs"]["x"]
    np.testing.assert_array_equal(got, image_batch())
    ramp = np.arange(8.0, dtype=np.float32).reshape(1, 8, 1, 1) * np.ones((1, 1, 8, 1))
    np.testing.assert_allclose(
        resample(ramp, 2, 0, 4, 8)[0, :, 0, 0],
        [2, 2.25, 2.75, 3.25, 3.75, 4.25, 4.75, 5],
    )


def test_colors_stay_within_their_ranges():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        vary = RandomImage("x", (1.0, 1.0), 0.0, 0.2, 0.0, 0.0)
        factor = vary(example(image_batch(1, float)), rng)["inputs"]["x"] / image_batch(
            1, float
        )
        assert 0.8 <= factor.min() <= factor.max() <= 1.2
        assert np.ptp(factor) < 1e-5
    gray = np.repeat(image_batch(1), 3, axis=-1)
    vary = RandomImage("x", (1.0, 1.0), 0.0, 0.0, 0.0, 1.0)
    got = vary(example(gray), np.random.default_rng(0))["inputs"]["x"]
    np.testing.assert_array_equal(got, gray)


def test_speed_and_pitch_of_a_tone():
    def peak(x):
        return np.argmax(np.abs(np.fft.rfft(x, RATE)))

    for seed in range(3):
        vary = RandomWaveform("x", RATE, 0.0, 4.0, (80.0, 80.0), prob=1.0)
        got = vary(example(tone()), np.random.default_rng(seed))["inputs"]["x"]
        assert 440 * 2 ** (-4 / 12) - 8 <= peak(got) <= 440 * 2 ** (4 / 12) + 8
    vary = RandomWaveform("x", RATE, 0.3, 0.0, (80.0, 80.0), prob=1.0)
    lengths = [
        vary(example(tone(), 6000), np.random.default_rng(s))["masks"]["x"].sum()
        for s in range(6)
    ]
    assert len(set(lengths)) > 3
    assert 6000 * np.exp(-0.3) - 2 <= min(lengths) and max(lengths) <= RATE


@pytest.mark.filterwarnings("ignore:The `hop_length`|The `n_fft`:FutureWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_speed_and_pitch_are_those_of_librosa():
    import librosa

    x = tone(seconds=0.4) + np.random.default_rng(0).normal(0, 0.1, 3200)
    x = x.astype(np.float32)
    end = 2 * 2048  # versions of librosa differ at the end of the audio
    for speed in (0.8, 1.0, 1.3):
        want = librosa.effects.time_stretch(x, rate=speed)
        got = _time_stretch(librosa, x, speed)
        assert got.shape == want.shape and got.dtype == x.dtype
        np.testing.assert_allclose(got[:-end], want[:-end], atol=1e-3)
    for steps in (-3.0, 2.5):
        want = librosa.effects.pitch_shift(x, sr=RATE, n_steps=steps)
        got = _pitch_shift(librosa, x, RATE, steps)
        assert got.shape == want.shape and got.dtype == x.dtype
        np.testing.assert_allclose(got[:-end], want[:-end], atol=1e-3)


@pytest.mark.parametrize("count", [1, 100, 511, 2047])
def test_audio_shorter_than_a_window_stays_finite(count):
    vary = RandomWaveform("x", RATE, prob=1.0)
    x = tone()[:count].astype(np.float32)
    for seed in range(5):
        got = vary(example(x), np.random.default_rng(seed))
        assert np.isfinite(got["inputs"]["x"]).all() and got["masks"]["x"].any()


def test_noise_has_the_power_asked_for():
    vary = RandomWaveform("x", RATE, 0.0, 0.0, (10.0, 10.0), prob=1.0)
    clean = tone()
    noise = vary(example(clean), np.random.default_rng(0))["inputs"]["x"] - clean
    ratio = 10 * np.log10(np.mean(clean**2) / np.mean(noise**2))
    assert abs(ratio - 10) < 0.5
    power = np.abs(np.fft.rfft(pink_noise(4096, np.random.default_rng(0)))) ** 2
    assert power[1:64].mean() > 8 * power[1024:].mean()


def test_spectrograms_by_hand():
    x = np.zeros((10, 16), np.float32)
    x[:, 8] = 1
    vary = RandomSpectrogram("x", time_stretch=0.0, semitones=12.0, noise=0.0, prob=1.0)
    for seed in range(5):
        peak = vary(example(x), np.random.default_rng(seed))["inputs"]["x"][0].argmax()
        assert 4 <= peak <= 15
    vary = RandomSpectrogram("x", time_stretch=0.5, semitones=0.0, noise=0.0, prob=1.0)
    lengths = [
        vary(example(x, 6), np.random.default_rng(s))["masks"]["x"].sum()
        for s in range(8)
    ]
    assert min(lengths) >= 4 and max(lengths) <= 10 and len(set(lengths)) > 2
    np.testing.assert_allclose(
        interpolate_at(np.array([0.0, 2.0, 4.0]), np.array([-1, 0.5, 9]), 0), [0, 1, 4]
    )


@pytest.fixture
def tables(tmp_path):
    words = tmp_path / "vocab.txt"
    words.write_text("pad\nbig\nlarge\nhuge\ncat\n")
    synonyms = tmp_path / "synonyms.txt"
    synonyms.write_text("big large huge unheard\ncat kitten\n")
    return {"synonyms": str(synonyms), "vocabulary": str(words)}


def test_words_are_deleted_and_the_rest_moves_up():
    words = np.array([7, 101, 5, 5, 5, 5, 0, 0], np.int32)
    vary = RandomWords("x", 1.0, 0.0, protected_ids=(101,))
    got = vary(example(words, 6), np.random.default_rng(0))
    # One of the others remains, before or after the protected one.
    assert got["masks"]["x"].sum() == 2
    assert sorted(got["inputs"]["x"])[-1] == 101 and not got["inputs"]["x"][2:].any()
    alone = RandomWords("x", 1.0, 0.0)(example(words, 6), np.random.default_rng(0))
    assert alone["masks"]["x"].sum() == 1
    vary = RandomWords("x", 0.25, 0.0)
    counts = [
        vary(example(words, 6), np.random.default_rng(s))["masks"]["x"]
        for s in range(300)
    ]
    assert abs(np.mean(np.sum(counts, axis=1)) - 4.5) < 0.3


def test_words_become_synonyms(tables):
    assert read_synonyms(
        **{"path": tables["synonyms"], "vocabulary": tables["vocabulary"]}
    )[1] == (2, 3)
    words = np.array([1, 4, 3], np.int32)
    seen = set()
    for seed in range(40):
        vary = RandomWords("x", 0.0, 1.0, **tables, protected_ids=(3,))
        got = vary(example(words), np.random.default_rng(seed))["inputs"]["x"]
        seen.add(int(got[0]))
        assert got[1:].tolist() == [4, 3]
    assert seen == {2, 3}


def test_words_of_several_pieces_are_one_word(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nbig\n##ger\nlarge\nhuge\n")
    vary = RandomWords("x", 0.3, 1.0, vocabulary=str(vocabulary))
    words = np.array([2, 4, 5, 6, 3], np.int32)  # [CLS] big ##ger large [SEP]
    seen = set()
    for seed in range(60):
        got = vary(example(words), np.random.default_rng(seed))
        seen.add(tuple(got["inputs"]["x"][got["masks"]["x"]].tolist()))
    # "large" of one piece becomes a synonym of the library's list; "bigger" is kept or
    # deleted as one; [CLS] and [SEP] always remain.
    assert seen == {
        tuple(x)
        for replaced in (4, 7)
        for x in ([2, 4, 5, replaced, 3], [2, 4, 5, 3], [2, replaced, 3])
    }


def test_the_probabilities_are_those_of_the_paper_by_default(tables):
    vary = RandomWords("x", **tables)
    words = np.full(1000, 1, np.int32)  # "big"
    got = vary(example(words), np.random.default_rng(0))
    kept = got["inputs"]["x"][got["masks"]["x"]]
    assert abs(len(kept) / 1000 - 0.9) < 0.03  # p = 0.1 for each
    assert abs(np.mean(np.isin(kept, (2, 3))) - 0.1) < 0.03


def test_invalid_options_are_rejected(tables, tmp_path):
    with pytest.raises(ConfigError, match="replace_prob=0.1 requires a vocabulary"):
        RandomWords("x")
    embeddings = example(np.ones((4, 3), np.float32))
    with pytest.raises(ConfigError, match="requires token ids, and the text is float"):
        RandomWords("x", **tables)(embeddings, np.random.default_rng(0))
    empty = tmp_path / "empty.txt"
    empty.write_text("word\n")
    with pytest.raises(DataError, match="D15.*contains no synonyms"):
        read_synonyms(str(empty), tables["vocabulary"])
    with pytest.raises(DataError, match="D30.*does not exist"):
        read_synonyms(str(tmp_path / "nothing.txt"), "")
    with pytest.raises(ConfigError, match="out of range"):
        RandomImage("x", crop=(0.9, 0.5))
    with pytest.raises(ConfigError, match="out of range"):
        RandomSpectrogram("x", time_stretch=2.0)


def test_a_config_asks_for_them():
    spec = {"name": "spectrogram", "prob": 1.0}
    asked = config()
    asked.data.augmentations = {"audio": spec}
    data = build_dataset(resolve(asked), 0)
    one, again = (next(Pipeline(data, 10, seed=1).train(2, 3)) for _ in range(2))
    plain = next(Pipeline(tones(), 10, seed=1).train(2, 3))
    np.testing.assert_array_equal(one.inputs["audio"], again.inputs["audio"])
    assert np.any(one.inputs["audio"] != plain.inputs["audio"])
    np.testing.assert_array_equal(one.inputs["video"], plain.inputs["video"])
    asked.data.augmentations = {"audio": {"name": "spectogram"}}
    with pytest.raises(ConfigError, match=r"audio.name='spectogram' is not a known"):
        resolve(asked)
    assert set(AUGMENTATIONS) == {"image", "spectrogram", "waveform", "words"}
