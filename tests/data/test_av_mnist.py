"""AV-MNIST: images, audio and pairs, from raw files in several formats."""

import gzip
import itertools
import json
import struct
import wave

import numpy as np
import pytest
from damaged_json import damaged
from paths import ROOT

from mmfusion_jax.cli.command import run_subcommand
from mmfusion_jax.commands.data_files import AV_MNIST_CONFIG, COMMANDS
from mmfusion_jax.config import build_data
from mmfusion_jax.config.load import load_config
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.datasets.av_mnist import generate as make
from mmfusion_jax.data.datasets.av_mnist.build_store import LICENSE, build_or_open
from mmfusion_jax.data.datasets.av_mnist.dataset import (
    format_summary,
    load_av_mnist,
    summarize,
)
from mmfusion_jax.data.datasets.av_mnist.raw_files import IDX
from mmfusion_jax.errors import ConfigError, DataError
from mmfusion_jax.results.json_file import dumps

TRAIN, TEST = 120, 20
SPEAKERS, NUMBERS = ("ann", "bob"), (0, 7, 45)
LENGTHS = (900, 9000)


def images(count, seed):
    """Images with one strong principal component and weak others."""
    rng = np.random.default_rng(seed)
    bar = np.zeros((28, 28))
    bar[10:14] = 1
    strong = 100 + 60 * rng.standard_normal((count, 1, 1)) * bar
    x = strong + 12 * rng.standard_normal((count, 28, 28))
    return np.clip(x, 0, 255).astype(np.uint8), np.arange(count, dtype=np.uint8) % 10


def mnist():
    (a, b), (c, d) = images(TRAIN, 0), images(TEST, 1)
    return {"x_train": a, "y_train": b, "x_test": c, "y_test": d}


def speech():
    """Every word of every speaker is a tone that depends on the digit."""
    rows = list(itertools.product(range(10), SPEAKERS, NUMBERS))
    words = []
    for i, (digit, _, _) in enumerate(rows):
        t = np.arange(LENGTHS[i % 2]) / make.RATE
        words.append(8000 * np.sin(2 * np.pi * (300 + 300 * digit) * t))
    digit, speaker, index = map(np.array, zip(*rows, strict=True))
    return {
        "samples": np.concatenate(words).astype(np.int16),
        "offsets": np.cumsum([0, *map(len, words)]),
        "digit": digit.astype(np.int8),
        "speaker": speaker,
        "index": index.astype(np.int16),
        "sample_rate": np.array(make.RATE),
    }


def write_wav(path, samples):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, make.RATE, 0, "NONE", ""))
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def write_noise(folder):
    rng = np.random.default_rng(2)
    for fold in range(1, 6):
        noise = np.zeros(12000)
        noise[1000:10000] = 3000 * rng.standard_normal(9000)
        write_wav(folder / f"{fold}-10{fold}-A-3.wav", noise)


@pytest.fixture(autouse=True)
def here(tmp_path_factory, monkeypatch):
    """One cache for all tests of this file, and a folder for logs."""
    base = tmp_path_factory.getbasetemp() / "av_mnist_cache"
    monkeypatch.setenv("MMFUSION_CACHE", str(base))
    monkeypatch.chdir(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    np.savez(root / "mnist.npz", **mnist())
    np.savez(root / "fsdd.npz", **speech())
    (root / "noise").mkdir()
    write_noise(root / "noise")
    return root


@pytest.fixture
def data(folder):
    build_or_open(folder, processes=0)
    return load_av_mnist(str(folder))


def test_components_stay_below_the_energy():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    scale = np.sqrt([30.0, 20.0, 10.0, *[40 / 13] * 13])  # percent
    flat = 128 + rng.standard_normal((20000, 16)) * scale @ axes.T
    x = np.clip(np.rint(flat), 0, 255).astype(np.uint8).reshape(-1, 4, 4)
    for energy, count in ((0.25, 1), (0.35, 1), (0.55, 2), (0.62, 3)):
        found = make.components(x, energy)
        assert found.axes.shape == (16, count)
        assert found.variance_fraction == pytest.approx(
            sum((30, 20, 10)[:count]) / 100, abs=0.02
        )
    centered = x[:50].reshape(50, -1) - found.mean
    want = found.mean + sum(np.outer(centered @ a, a) for a in found.axes.T)
    got = found(x[:50]).reshape(50, -1)
    np.testing.assert_array_equal(got, np.clip(np.rint(want), 0, 255))


@pytest.mark.parametrize("snr_db", [-15.0, 0.0, 20.0])
@pytest.mark.parametrize("length", LENGTHS)
def test_noise_has_the_requested_level(snr_db, length):
    rng = np.random.default_rng(0)
    word = (3000 * rng.standard_normal(length)).astype(np.int16)
    noise = (50 * rng.standard_normal(make.RATE)).astype(np.int16)
    mixed = make.add_noise(word, noise, snr_db)
    padded = np.zeros(make.RATE)
    padded[:length] = word[: make.RATE]
    added = mixed - padded
    power = np.mean(word[: make.RATE].astype(float) ** 2)
    got = 10 * np.log10(power / np.mean(added**2))
    assert got == pytest.approx(snr_db, abs=1e-6)
    np.testing.assert_array_equal(
        make.add_noise(word, np.zeros(make.RATE, np.int16), snr_db), padded
    )


def test_the_spectrogram_is_that_of_scipy():
    signal = pytest.importorskip("scipy.signal")
    audio = np.random.default_rng(0).standard_normal(make.RATE)
    audio += 5 * np.sin(2 * np.pi * 1000 * np.arange(make.RATE) / make.RATE)
    got = make.spectrogram(audio)
    _, _, z = signal.stft(audio, window="hann", nperseg=256, noverlap=186)
    magnitude = np.abs(z)[:112, :112]
    decibel = 20 * np.log10(magnitude / magnitude.max())
    want = 255 * np.clip(1 + decibel / 80, 0, 1)
    assert got.shape == (112, 112) and got.dtype == np.uint8
    np.testing.assert_allclose(got, want, atol=0.5 + 1e-6)
    assert np.bincount(got.argmax(axis=0)).argmax() == 1000 * 256 // make.RATE
    assert not make.spectrogram(np.zeros(make.RATE)).any()


def test_silence_is_trimmed_from_noise_clips():
    clip = np.concatenate([np.zeros(100), np.arange(1, 5), np.zeros(9000)])
    kept = make.trim_silence(clip.astype(np.int16))
    np.testing.assert_array_equal(kept, np.resize([1, 2, 3, 4], make.RATE))
    long = np.arange(1, 9002, dtype=np.int16)
    cut = make.trim_silence(long)
    assert (cut[0], cut[-1]) == (91, 9001)
    assert make.segment(long, 0.0)[0] == 1
    assert make.segment(long, 0.9999)[-1] == 9001


def test_pairs_have_the_same_digit_and_are_uniform():
    digits = np.resize(np.arange(10), 4000)
    spoken = np.array([*range(10), 3, 3, 3, -1])
    got = make.pair_with_speech(digits, spoken, np.random.default_rng(0))
    np.testing.assert_array_equal(spoken[got], digits)
    counts = np.bincount(got, minlength=14)[[3, 10, 11, 12]]
    assert counts.sum() == 400 and counts.min() > 70


def test_sorted_images_are_shuffled_before_the_split(tmp_path, folder):
    (tmp_path / "fsdd.npz").symlink_to(folder / "fsdd.npz")
    write_noise(tmp_path)
    given = mnist()
    order = np.argsort(given["y_train"], kind="stable")
    given |= {name: given[name][order] for name in ("x_train", "y_train")}
    np.savez(tmp_path / "mnist.npz", **given)
    build_or_open(tmp_path, processes=0)
    made = load_av_mnist(str(tmp_path))
    valid = made.label("valid", "digit")
    assert len(set(valid.tolist())) > 4
    both = np.concatenate([made.label("train", "digit"), valid])
    np.testing.assert_array_equal(np.sort(both), given["y_train"])
    components = make.components(given["x_train"])
    known = {
        image.tobytes(): y
        for image, y in zip(components(given["x_train"]), given["y_train"], strict=True)
    }
    source = made.source("valid")
    for i, digit in enumerate(valid):
        image = np.rint(source[i]["inputs"]["image"] * 255).astype(np.uint8)
        assert known[image[0, ..., 0].tobytes()] == digit


def test_examples_are_what_configs_expect(data):
    assert data.facts["counts"] == {"train": 110, "valid": 10, "test": 20}
    assert data.facts["components"] == 1
    raw = mnist()
    components = make.components(raw["x_train"])
    for split, part in (
        ("train", slice(0, 110)),
        ("valid", slice(110, None)),
        ("test", slice(None)),
    ):
        source = data.source(split)
        name = "test" if split == "test" else "train"
        want = components(raw[f"x_{name}"])[part]
        labels = raw[f"y_{name}"][part]
        np.testing.assert_array_equal(data.label(split, "digit"), labels)
        for i in (0, len(source) - 1):
            example = source[i]
            image, audio = (example["inputs"][m] for m in ("image", "audio"))
            np.testing.assert_allclose(image[0, ..., 0], want[i] / 255, atol=1e-6)
            assert audio.shape == (1, 112, 112, 1) and audio.dtype == np.float32
            assert example["labels"]["digit"] == labels[i]
            assert all(mask.tolist() == [True] for mask in example["masks"].values())
        with pytest.raises(IndexError):
            source[len(source)]


def test_the_word_is_in_the_spectrogram_at_low_noise(folder, data):
    del data
    source = load_av_mnist(str(folder), snr_db=40.0).source("test")
    for i in range(10):
        example = source[i]
        digit = int(example["labels"]["digit"])
        loudest = example["inputs"]["audio"][0, :, :10, 0].mean(axis=1).argmax()
        assert abs(loudest - (300 + 300 * digit) * 256 / make.RATE) < 1


def test_splits_share_no_recording_and_test_no_noise(folder, data):
    for made in (data, load_av_mnist(str(folder), pairing_seed=5)):
        words, clips = {}, {}
        for split, source in made.sources.items():
            speech, noise = source.clips.speech, source.clips.noise
            words[split] = {speech[i]["name"] for i in source.speech}
            clips[split] = {noise[i]["number"] for i in source.noise}
            assert words[split] <= set(made.groups[split])
            numbers = {speech[i]["number"] for i in source.speech}
            assert numbers == {{"train": 7, "valid": 45, "test": 0}[split]}
        assert not words["train"] & words["valid"]
        assert not (words["train"] | words["valid"]) & words["test"]
        assert clips["test"] == {5} and clips["train"] == {1, 2, 3, 4}
        assert 5 not in clips["valid"]


def test_a_held_out_speaker_is_only_in_the_test_split(folder, data):
    del data
    made = load_av_mnist(str(folder), held_out_speaker="bob")
    for split, names in made.groups.items():
        speakers = {name.split("_")[1] for name in names}
        assert speakers == ({"bob"} if split == "test" else {"ann"})
    with pytest.raises(ConfigError, match=r"C03.*'bo' is unknown.\s.*mean 'bob'"):
        load_av_mnist(str(folder), held_out_speaker="bo")


def test_pairs_are_the_same_for_the_same_seed(folder, data):
    again, other = (
        load_av_mnist(str(folder)),
        load_av_mnist(str(folder), pairing_seed=1),
    )
    for name in ("speech", "noise", "noise_offset"):
        one, two, three = (
            getattr(x.source("train"), name) for x in (data, again, other)
        )
        np.testing.assert_array_equal(one, two)
        assert (one != three).any()


def test_fewer_pairs_and_cached_spectrograms_are_the_same_examples(folder, data):
    source = load_av_mnist(str(folder), max_train_pairs=7, cache_in_memory=True).source(
        "train"
    )
    assert len(source) == 7 and len(source.digits) == 7
    for i in (6, 0, 6):
        want, got = data.source("train")[i], source[i]
        assert want["labels"]["digit"] == got["labels"]["digit"]
        for name, values in want["inputs"].items():
            np.testing.assert_array_equal(got["inputs"][name], values)
    assert set(source.cache) == {0, 6}
    source.cache[0][:] = 255  # read from the cache, not computed again
    assert source[0]["inputs"]["audio"].min() == 1
    assert len(load_av_mnist(str(folder), max_train_pairs=7).source("valid")) == 10
    with pytest.raises(ConfigError, match="C10.*max_train_pairs=-1"):
        load_av_mnist(str(folder), max_train_pairs=-1)


def test_the_original_files_give_the_same(tmp_path, folder, data):
    for name, values in mnist().items():
        part, what = name[2:], name[0]
        stem = {"train": "train", "test": "t10k"}[part]
        kind = {"x": "images-idx3-ubyte", "y": "labels-idx1-ubyte"}[what]
        head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
        packed = gzip.compress(head + values.tobytes())
        (tmp_path / f"{stem}-{kind}.gz").write_bytes(packed)
    words = speech()
    (tmp_path / "recordings").mkdir()
    for i, (d, speaker, n) in enumerate(
        zip(words["digit"], words["speaker"], words["index"], strict=True)
    ):
        if n != 7 or speaker == "ann":
            samples = words["samples"][words["offsets"][i] : words["offsets"][i + 1]]
            write_wav(tmp_path / "recordings" / f"{d}_{speaker}_{n}.wav", samples)
    write_noise(tmp_path)
    build_or_open(tmp_path, processes=0)
    other = load_av_mnist(str(tmp_path))
    for split in make.SPLITS:
        np.testing.assert_array_equal(
            other.label(split, "digit"), data.label(split, "digit")
        )
    from_npz, from_files = (made.source("test") for made in (data, other))
    for name in ("image", "audio"):
        for i in range(len(from_npz)):
            got, want = from_files[i]["inputs"][name], from_npz[i]["inputs"][name]
            np.testing.assert_array_equal(got, want)


def test_commands_import_and_check(folder, data, capsys, monkeypatch, tmp_path):
    del data
    words = ("import", str(folder), "--dataset=av_mnist")
    assert run_subcommand("mmfusion_jax data", "", COMMANDS, words) == 0
    out = capsys.readouterr().out
    assert "already imported:" in out and AV_MNIST_CONFIG in out
    assert "110 examples, 20 recordings" in out
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    words = ("check", "av_mnist")
    assert run_subcommand("mmfusion_jax data", "", COMMANDS, words) == 3
    assert "error[D75]" in capsys.readouterr().err
    build_or_open(folder, processes=0)
    assert run_subcommand("mmfusion_jax data", "", COMMANDS, words) == 0
    assert "20 examples, 20 recordings" in capsys.readouterr().out
    config = load_config(str(ROOT / AV_MNIST_CONFIG))
    example = build_data.build_dataset(resolve(config), fold=0).source("train")[0]
    assert set(example["inputs"]) == set(config.model.encoders)


def test_a_damaged_manifest_is_refused_or_can_be_used(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path))
    path = build_or_open(folder, processes=0).images.folder / "MANIFEST.json"
    whole, refused, count = json.loads(path.read_text()), 0, 0
    for where, changed in damaged(whole):
        path.write_text(json.dumps(changed))
        count += 1
        try:
            data = load_av_mnist(str(folder))
        except DataError as error:
            assert error.code == "D21" and str(path.parent) in str(error), where
            refused += 1
            continue
        summary = summarize(data)
        assert format_summary(summary) and json.loads(dumps(summary)), where
    assert count > 200 and refused > count / 2


def test_a_store_with_the_license_under_another_name_is_read(
    folder, monkeypatch, tmp_path
):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path))
    path = build_or_open(folder, processes=0).images.folder / "MANIFEST.json"
    text = path.read_text()
    assert '"license"' in text
    path.write_text(text.replace('"license"', '"licence"'))
    assert load_av_mnist(str(folder)).facts["license"] == LICENSE


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        ("mnist.npz", "contains no MNIST"),
        ("fsdd.npz", "contains no spoken digits"),
        ("noise", "contains no noise clips"),
    ],
)
def test_missing_raw_files_are_named(tmp_path, folder, remove, said):
    for part in folder.iterdir():
        if part.name != remove:
            (tmp_path / part.name).symlink_to(part)
    if remove != "noise":
        write_noise(tmp_path)
    with pytest.raises(DataError, match=rf"D40.*{said}[\s\S]*ESC-50[\s\S]*digits"):
        build_or_open(tmp_path)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("mnist.npz", {"y_test": np.zeros(3, np.uint8)}, "test has images"),
        ("mnist.npz", {"x_train": np.zeros((TRAIN, 784), np.uint8)}, "train has"),
        ("fsdd.npz", {"sample_rate": np.array(16000)}, "sample_rate must be 8000"),
        ("fsdd.npz", {"offsets": np.array([0, 5])}, "offsets must increase"),
        ("fsdd.npz", {"digit": np.float32(1)}, "must be .n. integers"),
        ("fsdd.npz", {"digit": np.full(60, 10)}, "digits must be 0 to 9"),
    ],
)
def test_invalid_raw_files_are_rejected(tmp_path, file, change, said):
    np.savez(tmp_path / "mnist.npz", **mnist())
    np.savez(tmp_path / "fsdd.npz", **speech())
    arrays = mnist() if file == "mnist.npz" else speech()
    np.savez(tmp_path / file, **(arrays | change))
    write_noise(tmp_path)
    with pytest.raises(DataError, match=f"D52.*{file}: .*{said}"):
        build_or_open(tmp_path, processes=0)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not readable"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcde", mtime=0)[:-9], "not readable"),
        (
            gzip.compress(b"\0\0\x08\x01\0\0\0\x05abcd", mtime=0),
            "4 bytes, but the shape",
        ),
        (
            gzip.compress(b"\0\0\x0d\x01\0\0\0\x04abcd", mtime=0),
            "4 bytes, but the shape",
        ),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x04abcd", mtime=0), "train has images"),
    ],
)
def test_damaged_files_of_mnist_are_named(tmp_path, folder, content, said):
    for form in IDX.values():
        name = form.replace("?", "-").replace("*", ".gz")
        (tmp_path / name).write_bytes(content)
    (tmp_path / "fsdd.npz").symlink_to(folder / "fsdd.npz")
    write_noise(tmp_path)
    with pytest.raises(DataError, match=f"D52.*train-images-idx3-ubyte.gz: .*{said}"):
        build_or_open(tmp_path, processes=0)


def test_a_split_without_a_recording_is_named(tmp_path):
    words = speech()
    words["index"] = np.where(words["digit"] == 3, 7, words["index"])
    np.savez(tmp_path / "mnist.npz", **mnist())
    np.savez(tmp_path / "fsdd.npz", **words)
    write_noise(tmp_path)
    build_or_open(tmp_path, processes=0)
    with pytest.raises(
        DataError, match="D78.*'valid' of AV-MNIST has no recording of three"
    ):
        load_av_mnist(str(tmp_path))
    with pytest.raises(ConfigError, match="C10.*snr_db=nan"):
        load_av_mnist(str(tmp_path), snr_db=float("nan"))


def test_the_real_raw_files(real_data, tmp_path):
    real = real_data / "avmnist_parts"
    if not real.is_dir():
        pytest.skip(f"{real} does not exist")
    with np.load(real / "mnist.npz") as file:
        steps = {"train": 25, "test": 100}
        # Sorted by digit, as it is: every 25th image.
        few = {name: file[name][:: steps[name[2:]]] for name in file.files}
    np.savez(tmp_path / "mnist.npz", **few)
    (tmp_path / "fsdd.npz").symlink_to(real / "fsdd.npz")
    for clip in sorted((real / "esc10").glob("00[12]_*.ogg")):
        (tmp_path / clip.name).symlink_to(clip)
    made = build_or_open(tmp_path, processes=0)
    assert made.images_manifest.components == 3
    assert made.images_manifest.energy == pytest.approx(0.23, abs=0.02)
    data = load_av_mnist(str(tmp_path), held_out_speaker="")
    assert data.facts["counts"] == {"train": 2200, "valid": 200, "test": 100}
    counts = {split: len(names) for split, names in data.groups.items()}
    assert counts == {"train": 2400, "valid": 300, "test": 300}
    for source in data.sources.values():
        audio = source[len(source) - 1]["inputs"]["audio"]
        assert audio.max() == 1 and 0.1 < audio.mean() < 0.9
