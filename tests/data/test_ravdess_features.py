"""RAVDESS features: folds by actor, standardized by the training split."""

import numpy as np
import pytest

from mmfusion_jax.data.datasets.ravdess.features import load_ravdess_features
from mmfusion_jax.data.datasets.ravdess.filenames import EMOTIONS
from mmfusion_jax.errors import ConfigError, DataError

ACTORS = np.repeat(np.arange(1, 21), 3)


def write(folder, **changes):
    rng = np.random.default_rng(0)
    n = len(ACTORS)
    shift = ACTORS[:, None]
    arrays = {
        "mfcc": (rng.normal(size=(n, 7, 13)) * 9 + shift[..., None]).astype("f2"),
        "au_static": (rng.normal(size=(n, 35)) + shift).astype("f4"),
        "au_dynamic": rng.normal(size=(n, 35)).astype("f4"),
        "name": np.array([f"clip {i}" for i in range(n)]),
        "emotion": np.arange(n) % 8,
        "emotion_names": np.array(EMOTIONS),
        "actor": ACTORS,
    } | changes
    units = ("au_static", "au_dynamic", "name")
    np.savez(folder / "action_units.npz", **{k: arrays[k] for k in units})
    np.savez(folder / "mfcc.npz", **{k: v for k, v in arrays.items() if k[:2] != "au"})
    return arrays


def stacked(data, split, name):
    source = data.source(split)
    return np.stack([source[i]["inputs"][name] for i in range(len(source))])


def test_examples_folds_and_protocols(tmp_path):
    arrays = write(tmp_path)
    data = load_ravdess_features(str(tmp_path), fold=4)
    assert data.facts["actors"]["test"] == [17, 18, 19, 20]
    assert data.facts["actors"]["valid"] == [1, 2, 3, 4]
    assert {k: len(v) for k, v in data.sources.items()} == {
        "train": 36,
        "valid": 12,
        "test": 12,
    }
    example = data.source("test")[2]
    assert example["inputs"]["audio"].shape == (7, 13)
    assert example["inputs"]["video"].shape == (1, 70)
    assert all(v.dtype == np.float32 for v in example["inputs"].values())
    assert example["masks"]["video"].all() and example["weight"] == 1
    assert example["labels"]["emotion"] == arrays["emotion"][50]
    assert data.classes == {"emotion": EMOTIONS}
    np.testing.assert_array_equal(
        data.label("test", "emotion"), arrays["emotion"][48:60]
    )
    assert data.example_id_list("test") == arrays["name"][48:60].tolist()
    paper = load_ravdess_features(str(tmp_path), fold=4, protocol="as_published")
    assert {k: len(v) for k, v in paper.sources.items()} == {"train": 48, "test": 12}
    assert paper.groups["train"][0] == "actor 01" and len(paper.groups["train"]) == 16
    fixed = load_ravdess_features(str(tmp_path), fold=4, protocol="fixed_epochs")
    assert fixed.groups == paper.groups  # no split to select a checkpoint


def test_frames_are_averaged_by_the_stride(tmp_path):
    arrays = write(tmp_path)
    data = load_ravdess_features(str(tmp_path), fold=4, stride=3)
    mfcc = arrays["mfcc"].astype("f4")[:, :6].reshape(-1, 2, 3, 13).mean(axis=2)
    train = mfcc[np.isin(ACTORS, data.facts["actors"]["train"])]
    want = (train - train.mean((0, 1))) / train.std((0, 1))
    np.testing.assert_allclose(stacked(data, "train", "audio"), want, atol=1e-4)
    for stride in (0, 8):
        with pytest.raises(ConfigError, match=r"C10[\s\S]*1 to 7"):
            load_ravdess_features(str(tmp_path), stride=stride)


def test_only_training_examples_are_augmented(tmp_path):
    write(tmp_path)
    assert load_ravdess_features(str(tmp_path)).augment is None
    data = load_ravdess_features(str(tmp_path), augment={"noise": 0.5})
    example = data.source("train")[0]
    assert data.augment is not None
    augmented = data.augment(example, np.random.default_rng(0))
    noise = augmented["inputs"]["audio"] - example["inputs"]["audio"]
    assert 0.3 < noise.std() < 0.7
    with pytest.raises(ConfigError, match=r"C02.*noize[\s\S]*noise"):
        load_ravdess_features(str(tmp_path), augment={"noize": 0.5})


def test_the_test_actors_do_not_enter_the_standardization(tmp_path):
    write(tmp_path)
    data = load_ravdess_features(str(tmp_path), fold=4)
    for name in ("audio", "video"):
        train = stacked(data, "train", name)
        width = train.shape[-1]
        np.testing.assert_allclose(train.reshape(-1, width).mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(train.reshape(-1, width).std(0), 1, atol=1e-4)
    assert stacked(data, "test", "video")[..., :35].mean() > 1  # actors 17-20
    assert abs(stacked(data, "test", "video")[..., 35:].mean()) < 0.2


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(
        DataError, match=r"D40.*mfcc.npz does not exist[\s\S]*fix: python"
    ):
        load_ravdess_features("")
    arrays = write(tmp_path)
    with pytest.raises(ConfigError, match="C06"):
        load_ravdess_features(str(tmp_path), fold=5, folds=6)
    units = tmp_path / "action_units.npz"
    content = units.read_bytes()
    units.unlink()
    with pytest.raises(DataError, match="D40.*action_units.npz does not exist"):
        load_ravdess_features(str(tmp_path))
    np.save(tmp_path / "plain.npy", np.zeros(3))
    plain = (tmp_path / "plain.npy").read_bytes()
    for damaged in (
        plain,
        content[:-40],
        content[: len(content) // 2],
        b"",
        b"\x80\x04].",
    ):
        units.write_bytes(damaged)
        with pytest.raises(DataError, match="D52.*action_units.npz cannot be read"):
            load_ravdess_features(str(tmp_path))
    write(tmp_path, name=arrays["name"].astype(object))
    with pytest.raises(DataError, match="D52.*mfcc.npz cannot be read.*pickle"):
        load_ravdess_features(str(tmp_path))
    write(tmp_path, au_static=np.full((60, 35), np.nan, "f4"))
    with pytest.raises(DataError, match="D52.*au_static.*NaN or infinite"):
        load_ravdess_features(str(tmp_path))
    write(tmp_path, actor=ACTORS[:9])
    with pytest.raises(DataError, match="D52.*different lengths"):
        load_ravdess_features(str(tmp_path))
    write(tmp_path)
    np.savez(tmp_path / "action_units.npz", **arrays | {"name": arrays["name"][::-1]})
    with pytest.raises(DataError, match="D52.*list different clips"):
        load_ravdess_features(str(tmp_path))


def test_the_real_features_are_1200_clips_of_20_actors(real_data):
    folder = real_data / "ravdess"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    for fold in (0, 4):
        data = load_ravdess_features(str(folder), fold=fold)
        assert {k: len(v) for k, v in data.sources.items()} == {
            "train": 720,
            "valid": 240,
            "test": 240,
        }
        counts = np.bincount(data.label("test", "emotion"))
        assert counts.tolist() == [16] + [32] * 7
        assert stacked(data, "test", "audio").shape == (240, 243, 13)
        assert np.abs(stacked(data, "test", "video")).max() < 40
