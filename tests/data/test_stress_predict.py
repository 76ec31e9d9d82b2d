"""Stress-Predict: windows of one label, masks, folds by subject, standardization."""

import numpy as np
import pytest

from mmfusion_jax.data.datasets.stress_predict import SIGNALS, load_stress_predict
from mmfusion_jax.errors import ConfigError, DataError

SECONDS = 24


def subject(seed, seconds=SECONDS, start=3, **changes):
    """Eight seconds of rest, eight of stress, eight of rest; hr starts late."""
    rng = np.random.default_rng(seed)
    offsets = {"eda": 0, "temp": 0, "hr": start + 2, "bvp": 0}
    arrays = {}
    for name, offset in offsets.items():
        count = (start + seconds - offset) * SIGNALS[name]
        arrays[name] = rng.normal(5 + seed, 2, count).astype("f4")
        arrays[f"{name}_rate_hz"] = np.float32(SIGNALS[name])
        arrays[f"{name}_offset_s"] = np.float32(offset)
    arrays["label_time_s"] = np.arange(start, start + seconds, dtype="f4")
    arrays["label"] = (np.arange(seconds) // 8 % 2).astype("i1")
    arrays["label_resp"] = rng.normal(15, 3, seconds).astype("f4")
    return arrays | changes


def write(folder, subjects=6, **changes):
    for i in range(subjects):
        arrays = subject(i, **changes)
        np.savez(folder / f"S{i + 1:02d}.npz", **arrays)  # pyright: ignore


def stacked(source, part, name):
    return np.stack([source[i][part][name] for i in range(len(source))])


def test_windows_have_one_label(tmp_path):
    write(tmp_path)
    data = load_stress_predict(str(tmp_path), folds=3, window=4, hop=2)
    # Windows start at 0, 2, .. 20; those at 6 and 14 cross a border.
    want = [0, 0, 0, 1, 1, 1, 0, 0, 0]
    test = data.source("test")
    assert data.label("test", "stress").tolist() == want * 2
    for name, rate in SIGNALS.items():
        assert test[0]["inputs"][name].shape == (4 * rate, 1)
        assert test[0]["inputs"][name].dtype == np.float32
    assert test[0]["masks"]["hr"].tolist() == [False, False, True, True]
    assert not test[0]["inputs"]["hr"][:2].any()
    assert test[0]["masks"]["bvp"].all()
    arrays = subject(0)
    bvp = arrays["bvp"][3 * 16 :]
    second = (bvp - bvp.mean()) / bvp.std()
    np.testing.assert_allclose(
        test[1]["inputs"]["bvp"][:, 0], second[32:96], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("standardize_by", ["subject", "train"])
def test_standardization(tmp_path, standardize_by):
    write(tmp_path)
    data = load_stress_predict(
        str(tmp_path),
        folds=3,
        window=4,
        hop=4,
        standardize_by=standardize_by,
        protocol="fixed_epochs",
    )
    # All windows have one label and do not overlap: together they are the recording.
    train = data.source("train")
    for name in SIGNALS:
        mask = stacked(train, "masks", name)
        x = stacked(train, "inputs", name)[..., 0]
        assert not x[~mask].any()
        np.testing.assert_allclose(x[mask].mean(), 0, atol=1e-4)
        np.testing.assert_allclose(x[mask].std(), 1, atol=1e-4)
    one = stacked(train, "inputs", "temp")[:6]  # of one subject
    assert (abs(one.mean()) < 1e-4) == (standardize_by == "subject")


def test_the_test_subjects_do_not_enter_the_standardization(tmp_path):
    write(tmp_path)
    options = dict(folds=3, window=4, hop=4, standardize_by="train")
    train = load_stress_predict(str(tmp_path), **options).source("train")
    want = stacked(train, "inputs", "temp")
    far = subject(0)
    np.savez(tmp_path / "S01.npz", **far | {"temp": far["temp"] + 100})
    train = load_stress_predict(str(tmp_path), **options).source("train")
    np.testing.assert_array_equal(stacked(train, "inputs", "temp"), want)


def test_no_subject_is_in_two_splits_and_all_are_tested_once(tmp_path):
    write(tmp_path, subjects=7)
    unlabeled = {k: v for k, v in subject(9).items() if not k.startswith("label")}
    np.savez(tmp_path / "S00.npz", **unlabeled)
    tested, ids = [], []
    for fold in range(3):
        data = load_stress_predict(str(tmp_path), fold=fold, folds=3, window=4)
        parts = [set(names) for names in data.groups.values()]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 7
        tested += data.groups["test"]
        ids += data.example_id_list("test")
        assert len(data.example_id_list("test")) == len(data.source("test"))
        after = load_stress_predict(
            str(tmp_path), fold=(fold + 1) % 3, folds=3, window=4
        )
        assert data.groups["valid"] == after.groups["test"]
    assert sorted(tested) == [f"S{i:02d}" for i in range(1, 8)]
    assert len(set(ids)) == len(ids) and "S01/0" in ids
    fixed = load_stress_predict(
        str(tmp_path), fold=1, folds=3, protocol="fixed_epochs", window=4
    )
    assert fixed.groups["test"] == ("S02", "S05") and "valid" not in fixed.sources


def test_invalid_arguments_are_named(tmp_path):
    write(tmp_path)
    folder = str(tmp_path)
    with pytest.raises(ConfigError, match=r"C06.*fold=5 is not one of the 5"):
        load_stress_predict(folder, fold=5)
    with pytest.raises(
        ConfigError, match=r"C06.*empty training split with config.data.folds=2"
    ):
        load_stress_predict(folder, folds=2)
    with pytest.raises(ConfigError, match=r"C10.*hop=0"):
        load_stress_predict(folder, hop=0)
    with pytest.raises(
        ConfigError, match=r"C03.*standardize_by='subjct'[\s\S]*'subject'"
    ):
        load_stress_predict(folder, standardize_by="subjct")
    with pytest.raises(ConfigError, match=r"C10.*window=60"):
        load_stress_predict(folder, folds=3)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    with pytest.raises(DataError, match=r"D40.*contains no S\*.npz[\s\S]*fix:"):
        load_stress_predict(str(tmp_path))
    for changes, said in (
        ({"label": np.full(SECONDS, 2)}, "invalid label"),
        ({"label_resp": np.zeros(3)}, "invalid label_resp"),
        ({"label_time_s": np.zeros(SECONDS)}, "invalid label_time_s"),
        ({"bvp_rate_hz": np.float32(64)}, "invalid bvp"),
        ({"eda": np.zeros((5, 2), "f4")}, "invalid eda"),
    ):
        write(tmp_path, **changes)
        with pytest.raises(DataError, match=f"D52.*S01.npz: {said}"):
            load_stress_predict(str(tmp_path), window=4)
    np.savez(tmp_path / "S01.npz", label=np.zeros(3))
    with pytest.raises(DataError, match=r"D52.*S01.npz has no label_time_s"):
        load_stress_predict(str(tmp_path), window=4)


def test_the_real_subjects(real_data):
    folder = real_data / "stress_predict"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    data = load_stress_predict(str(folder), fold=4)
    assert [len(data.groups[s]) for s in ("train", "valid", "test")] == [18, 6, 5]
    assert "S01" not in {name for names in data.groups.values() for name in names}
    labels = np.concatenate([data.label(s, "stress") for s in data.sources])
    assert len(labels) == 2801
    assert labels.mean() == pytest.approx(0.311, abs=2e-3)
    example = data.source("test")[0]
    assert example["inputs"]["bvp"].shape == (960, 1)
    valid = {n: stacked(data.source("test"), "masks", n).mean() for n in SIGNALS}
    assert min(valid.values()) > 0.99
    assert all(np.isfinite(x).all() for x in example["inputs"].values())
