"""The embedded dataset: deterministic, and without leakage between its splits."""

import importlib.util
import socket
import subprocess
import sys

import numpy as np
import pytest

from mmfusion_jax.data.datasets.digits import build_store
from mmfusion_jax.data.datasets.digits import generate as make
from mmfusion_jax.data.datasets.digits.build_store import build_or_open
from mmfusion_jax.data.datasets.digits.dataset import (
    FLAGS,
    MODALITIES,
    Jitter,
    load_digits,
)
from mmfusion_jax.data.datasets.digits.generate import DigitsGenerationConfig
from mmfusion_jax.errors import ConfigError, MissingDependencyError

pytestmark = pytest.mark.versions

SHAPES = {
    "image": ((1, 28, 28, 1), np.float32),
    "audio": ((63, 13), np.float32),
    "video": ((16, 32, 32, 1), np.uint8),
    "text": ((16,), np.int32),
}
SPLITS = tuple(make.SIZES)


@pytest.fixture(scope="module")
def folder(cache_dir):
    """The cache of the dataset, built by the first run of the tests on a machine."""
    pytest.importorskip("espeakng_loader")
    return cache_dir / "digits"


@pytest.fixture(scope="module")
def data(folder):
    return load_digits(cache_dir=folder)


@pytest.fixture(scope="module")
def records(folder, data):
    store = build_or_open(folder)
    return {split: store.source(split) for split in SPLITS}


def examples(data, split):
    source = data.source(split)
    return [source[i] for i in range(len(source))]


@pytest.mark.ci
def test_two_processes_make_the_same_examples(tmp_path):
    pytest.importorskip("espeakng_loader")
    script = """
import sys
from mmfusion_jax.data.datasets.digits.build_store import build_or_open
print(build_or_open(sys.argv[1], limit=3).manifest["fingerprint"])
"""
    prints = {
        subprocess.check_output([sys.executable, "-c", script, tmp_path / name])
        for name in "ab"
    }
    assert len(prints) == 1


def test_the_fingerprint_is_that_of_the_examples(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")
    first = build_or_open(tmp_path / "a", limit=1).manifest["fingerprint"]
    make_text = make.sentence

    def reversed_text(*args):
        tokens, count = make_text(*args)
        return tokens[::-1].copy(), count

    monkeypatch.setattr(make, "sentence", reversed_text)
    assert build_or_open(tmp_path / "b", limit=1).manifest["fingerprint"] != first


def test_a_build_needs_no_network(tmp_path, monkeypatch):
    pytest.importorskip("espeakng_loader")

    def refuse(*_):
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert build_or_open(tmp_path, limit=1).manifest["counts"]["train"] == 1


@pytest.mark.ci
def test_a_limit_changes_no_example(tmp_path, records):
    few = build_or_open(tmp_path, limit=2)
    for split in SPLITS:
        few_here = few.source(split)
        assert len(few_here) == 2
        for i in range(2):
            for name, value in few_here[i].items():
                np.testing.assert_array_equal(value, records[split][i][name])


def test_another_config_is_another_store(tmp_path, monkeypatch):
    monkeypatch.setattr(build_store, "write_store", lambda folder, *_: folder.mkdir())
    monkeypatch.setattr(build_store, "open_store", lambda folder: folder.name)
    monkeypatch.setattr(build_store, "_check_extras", lambda: None)
    assert build_or_open(tmp_path) != build_or_open(
        tmp_path, DigitsGenerationConfig(grain=0.0)
    )


def test_handwriting_is_in_one_split_only(records):
    used = [
        records[split][i]["handwriting"]
        for split, size in make.SIZES.items()
        for i in range(size)
    ]
    assert sorted(used) == list(range(1797))


def test_no_speaker_is_in_two_splits(data):
    speakers = {
        split: {voice.split("+")[1] for voice in voices}
        for split, voices in data.groups.items()
    }
    assert set(speakers) == set(SPLITS)
    assert not speakers["train"] & speakers["valid"]
    assert not speakers["train"] & speakers["test"]
    assert not speakers["valid"] & speakers["test"]
    assert len(data.groups["train"]) > 200


def test_splits_are_stratified(data):
    digits = np.concatenate([data.label(split, "digit") for split in SPLITS])
    frequency = np.bincount(digits) / len(digits)
    for split, size in make.SIZES.items():
        counts = np.bincount(data.label(split, "digit"), minlength=10)
        assert counts.sum() == size
        np.testing.assert_allclose(counts, size * frequency, atol=1)


@pytest.mark.parametrize("split", SPLITS)
def test_shapes_and_ranges(data, split):
    example = data.source(split)[5]
    assert set(example["inputs"]) == set(example["masks"]) == set(MODALITIES)
    for name, (shape, dtype) in SHAPES.items():
        assert example["inputs"][name].shape == shape
        assert example["inputs"][name].dtype == dtype
        assert example["masks"][name].shape == shape[:1]
        assert example["masks"][name].dtype == bool
    image = data.source(split).inputs["image"]
    assert 0 <= image.min() < image.max() <= 1
    assert example["weight"] == 1


def test_audio_is_standardized_over_the_training_split(data):
    audio = data.source("train").inputs["audio"]
    np.testing.assert_allclose(audio.mean(axis=(0, 1)), 0, atol=1e-3)
    np.testing.assert_allclose(audio.std(axis=(0, 1)), 1, atol=1e-3)


def test_labels(data):
    seen = {}
    for example in examples(data, "valid"):
        labels = example["labels"]
        flags = dict(zip(FLAGS, labels["flags"], strict=True))
        seen[int(labels["digit"])] = flags
        assert labels["parity"] == labels["digit"] % 2
        assert labels["value"] == pytest.approx((labels["digit"] - 4.5) / 1.5)
    primes = {d for d, flags in seen.items() if flags["prime"]}
    assert primes == {2, 3, 5, 7}
    assert {d for d, flags in seen.items() if flags["even"]} == {0, 2, 4, 6, 8}
    assert {d for d, flags in seen.items() if flags["large"]} == {5, 6, 7, 8, 9}
    assert data.classes["digit"][7] == "seven" and len(data.classes["parity"]) == 2


def test_text_is_a_sentence_of_the_vocabulary(data):
    for example in examples(data, "test"):
        tokens, mask = example["inputs"]["text"], example["masks"]["text"]
        count = mask.sum()
        assert 1 <= count <= make.MAX_WORDS
        np.testing.assert_array_equal(mask, np.arange(make.MAX_WORDS) < count)
        assert np.all(tokens[:count] > 0) and not tokens[count:].any()
        assert tokens.max() < len(make.VOCABULARY)


@pytest.mark.parametrize("digit", range(10))
def test_a_sentence_without_dropped_words_determines_the_digit(digit):
    config = DigitsGenerationConfig(dropped=0.0)
    rng = np.random.default_rng(0)
    for _ in range(40):
        tokens, count = make.sentence(digit, config, rng)
        words = [make.VOCABULARY[token] for token in tokens[:count]]
        numbers = [make.WORDS.index(word) for word in words if word in make.WORDS]
        assert len(set(numbers)) == len(numbers) or "than" in words
        if "than" in words:
            numbers = [numbers[-1] + (1 if "more" in words else -1)]
        elif "between" in words:
            numbers = [sum(numbers) / 2]
        assert numbers[-1] == digit, words


def test_words_are_dropped(data):
    words = make.WORDS.index
    kept = [
        words(make.WORDS[d]) + 1 in text
        for d, text in zip(
            data.label("train", "digit"),
            data.source("train").inputs["text"],
            strict=True,
        )
    ]
    assert 0.4 < np.mean(kept) < 0.7


def test_noise_has_the_requested_snr():
    tone = np.sqrt(2) * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    for babble in (0.0, 1.0):
        config = DigitsGenerationConfig(snr=(10.0, 10.0), babble=babble)
        others = [np.random.default_rng(n).standard_normal(5000) for n in range(9)]
        noisy = make.add_noise(tone, others, config, np.random.default_rng(0))
        signal = (noisy @ tone / 16000) ** 2
        noise = np.mean(noisy.astype(float) ** 2) - signal
        assert 10 * np.log10(signal / noise) == pytest.approx(10, abs=0.3)


@pytest.mark.ci
def test_images_keep_a_quarter_of_their_energy():
    from sklearn.datasets import load_digits

    images, train = load_digits().images / 16, np.arange(1200)
    full = make.pca_reconstruct(images, train, 1.0).reshape(1797, -1) / 255
    part = make.pca_reconstruct(images, train, 0.25).reshape(1797, -1) / 255
    assert 0.2 < part[:1200].var(axis=0).sum() / full[:1200].var(axis=0).sum() < 0.35


def test_the_clip_moves_and_its_noise_differs_by_frame():
    rng = np.random.default_rng(0)
    handwriting = np.zeros((8, 8))
    handwriting[2:6, 3:5] = 1
    clean = dict(turn=0.0, spin=0.0, grain=0.0, occluder=(0.0, 0.0))
    clip = make.render_video(
        handwriting, DigitsGenerationConfig(**clean, drift=8.0), rng
    )[..., 0]
    assert np.abs(np.diff(clip.astype(int), axis=0)).max(axis=(1, 2)).min() > 0
    still = make.render_video(
        handwriting, DigitsGenerationConfig(**clean, drift=0.0), rng
    )[..., 0]
    assert not np.diff(still.astype(int), axis=0).any()
    noisy = make.render_video(handwriting, DigitsGenerationConfig(drift=0.0), rng)[
        ..., 0
    ]
    assert 15 < np.diff(noisy.astype(float), axis=0).std() / np.sqrt(2) < 45


def test_missing_modalities(folder, data):
    some = load_digits(missing_rate=0.5, cache_dir=folder)
    same = load_digits(missing_rate=0.5, cache_dir=folder)
    other = load_digits(missing_rate=0.5, missing_seed=1, cache_dir=folder)
    here = {name: some.source("train").masks[name].any(axis=1) for name in MODALITIES}
    count = np.sum(list(here.values()), axis=0)
    assert count.min() == 1
    for name in MODALITIES:
        assert 0.45 < here[name].mean() < 0.6
        masks = same.source("train").masks[name]
        np.testing.assert_array_equal(some.source("train").masks[name], masks)
        assert (other.source("train").masks[name] != masks).any()
        inputs = some.source("train").inputs[name]
        assert not inputs[~here[name]].any()
        full = data.source("train").inputs[name]
        np.testing.assert_array_equal(inputs[here[name]], full[here[name]])
    assert some.facts["missing_rate"] == 0.5


def test_modalities_can_be_selected(folder):
    pair = load_digits(
        modalities=("audio", "video"), missing_rate=0.9, cache_dir=folder
    )
    example = pair.source("valid")[0]
    assert set(example["inputs"]) == set(example["masks"]) == {"audio", "video"}
    masks = pair.source("valid").masks
    assert (masks["audio"].any(axis=1) | masks["video"].any(axis=1)).all()
    assert load_digits(modalities=("text",), cache_dir=folder).augment is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modalities": ("audoi",)}, "did you mean 'audio'"),
        ({"modalities": ()}, "at least one modality"),
        ({"missing_rate": 1.0}, "missing_rate=1.0"),
        ({"missing_rate": -0.1}, "missing_rate=-0.1"),
    ],
)
def test_invalid_options_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        load_digits(**options)


def test_jitter_changes_only_a_copy_of_the_audio(data):
    example = data.source("train")[0]
    before = example["inputs"]["audio"].copy()
    changed = Jitter()(example, np.random.default_rng(0))
    again = Jitter()(example, np.random.default_rng(0))
    audio = changed["inputs"]["audio"]
    np.testing.assert_array_equal(audio, again["inputs"]["audio"])
    np.testing.assert_array_equal(example["inputs"]["audio"], before)
    assert audio.dtype == np.float32 and audio.shape == before.shape
    assert (audio != before).mean() > 0.99
    np.testing.assert_array_equal(
        changed["inputs"]["video"], example["inputs"]["video"]
    )


def test_jitter_shifts_the_audio_both_ways():
    audio = np.arange(63 * 13, dtype=np.float32).reshape(63, 13)
    example = {"inputs": {"audio": audio}, "masks": {"audio": np.ones(63, bool)}}
    starts = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        shifted = Jitter(shift=3, offset=0, noise=0)(example, rng)["inputs"]["audio"]
        start = int(shifted[10, 0] / 13) - 10
        np.testing.assert_array_equal(shifted[3:60], audio[3 + start : 60 + start])
        starts.add(start)
    assert starts == set(range(-3, 4))


def test_jitter_does_not_change_missing_audio(data):
    example = data.source("train")[0]
    masks = {**example["masks"], "audio": np.zeros(63, bool)}
    inputs = {**example["inputs"], "audio": np.zeros((63, 13), np.float32)}
    absent = {**example, "inputs": inputs, "masks": masks}
    changed = Jitter()(absent, np.random.default_rng(0))
    assert not changed["inputs"]["audio"].any()


@pytest.mark.parametrize("module", ["espeakng_loader", "librosa"])
def test_a_missing_extra_is_named_and_nothing_is_written(
    module, tmp_path, monkeypatch, folder, data
):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(MissingDependencyError, match=module) as caught:
        load_digits(cache_dir=tmp_path)
    assert "mmfusion_jax[demo]" in caught.value.fix
    assert not list(tmp_path.iterdir())
    assert (
        len(load_digits(cache_dir=folder).source("train")) == 1200
    )  # built: not needed


def test_facts_and_title(folder, data):
    assert data.title == "digits (embedded)"
    assert data.facts["version"] == make.VERSION
    assert data.facts["counts"] == make.SIZES
    assert data.facts["fingerprint"] == build_or_open(folder).manifest["fingerprint"]
    size = sum(file.stat().st_size for file in build_or_open(folder).folder.iterdir())
    assert size < 100e6


def test_reading_imports_neither_jax_nor_the_generators(folder, data):
    script = f"""
import sys
from mmfusion_jax.data.datasets.digits.dataset import load_digits
load_digits(cache_dir={str(folder)!r})
heavy = {{"jax", "librosa", "sklearn", "espeakng_loader"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
