"""CMU-MOSI utterances: context windows, standardization, splits, errors."""

from typing import Any

import numpy as np
import pytest

from mmfusion_jax.data.dataset import RegressionTarget
from mmfusion_jax.data.datasets.mosi_utterances import (
    MODALITIES,
    load_mosi_utterances,
    windows,
)
from mmfusion_jax.errors import ConfigError, DataError

WIDTHS = {"text": 4, "audio": 3, "video": 2}
LENGTHS = {"train": (4, 1, 3, 5, 2, 3), "test": (6, 2)}


def utterances(split, seed):
    rng = np.random.default_rng(seed)
    count = LENGTHS[split]
    n = sum(count)
    video = np.repeat([f"{split}{i}" for i in range(len(count))], count)
    score = rng.uniform(-3, 3, n).astype("f4")
    score[1] = np.nan
    arrays = {
        name: (rng.normal(size=(n, width)) * 5 + 3).astype("f4")
        for name, width in WIDTHS.items()
    }
    arrays |= {
        "video_id": video,
        "segment": np.concatenate([np.arange(c) + 1 for c in count]).astype("i4"),
        "label_binary": (score >= 0).astype("i1"),
        "label_regression": score,
    }
    if split == "train":
        arrays["suggested_valid"] = np.isin(video, ["train1", "train3"])
    return arrays


def write(folder, train=None, test=None):
    made = {"train": utterances("train", 0), "test": utterances("test", 1)}
    for split, changes in {"train": train, "test": test}.items():
        made[split] |= changes or {}
        kept: dict[str, Any] = {k: v for k, v in made[split].items() if v is not None}
        np.savez(folder / f"{split}.npz", **kept)
    return made


def stacked(data, split, part, name):
    source = data.source(split)
    return np.stack([source[i][part][name] for i in range(len(source))])


def test_windows_stay_within_the_video():
    index, mask = windows(np.array([0, 0, 0, 0, 1]), before=1, after=2, length=4)
    assert mask.sum(1).tolist() == [3, 4, 3, 2, 1]
    assert [i[m].tolist() for i, m in zip(index, mask, strict=True)] == [
        [0, 1, 2],
        [0, 1, 2, 3],
        [1, 2, 3],
        [2, 3],
        [4],
    ]
    assert (np.diff(mask.astype(int)) <= 0).all()  # padding is at the end


def test_an_example_is_an_utterance_with_its_context(tmp_path):
    train = write(tmp_path)["train"]
    data = load_mosi_utterances(
        str(tmp_path), context_before=2, context_after=1, protocol="fixed_epochs"
    )
    assert {k: len(v) for k, v in data.sources.items()} == {"train": 18, "test": 8}
    assert data.classes == {"polarity": ("negative", "positive")} and not data.values
    example = data.source("train")[2]  # the third of four
    assert all(v.shape == (4, WIDTHS[k] + 1) for k, v in example["inputs"].items())
    assert all(v.dtype == np.float32 for v in example["inputs"].values())
    assert example["labels"] == {"polarity": train["label_binary"][2]}
    for name in MODALITIES:
        assert example["masks"][name].all()
        x = train[name].astype("f8")
        want = (x[:4] - x.mean(0)) / x.std(0)
        np.testing.assert_allclose(example["inputs"][name][:, :-1], want, atol=1e-5)
        assert example["inputs"][name][:, -1].tolist() == [0, 0, 1, 0]
    alone = data.source("train")[4]  # the only one of its video
    for name in MODALITIES:
        assert alone["masks"][name].tolist() == [True, False, False, False]
        assert not alone["inputs"][name][1:].any()
        assert alone["inputs"][name][:, -1].tolist() == [1, 0, 0, 0]


def test_no_window_is_longer_than_the_longest_video(tmp_path):
    write(tmp_path)
    data = load_mosi_utterances(str(tmp_path), context_before=9, context_after=9)
    assert data.facts["steps"] == 6
    for split, count in {"train": (4, 3, 2, 3), "test": (6, 2)}.items():
        mask = stacked(data, split, "masks", "text")
        assert mask.sum(1).tolist() == [c for c in count for _ in range(c)]
    alone = load_mosi_utterances(str(tmp_path), context_before=0, context_after=0)
    assert stacked(alone, "test", "inputs", "text").shape == (8, 1, 5)


def test_utterances_without_a_score_are_context_only(tmp_path):
    train = write(tmp_path)["train"]
    data = load_mosi_utterances(str(tmp_path), label="score", protocol="fixed_epochs")
    assert data.values == {"score": RegressionTarget(-3, 3, family="sentiment")}
    assert {k: len(v) for k, v in data.sources.items()} == {"train": 17, "test": 7}
    want = np.delete(train["label_regression"], 1)
    np.testing.assert_array_equal(data.label("train", "score"), want)
    assert stacked(data, "train", "masks", "audio")[0].sum() == 4
    polarity = load_mosi_utterances(str(tmp_path), protocol="fixed_epochs")
    assert "score" not in polarity.source("train")[0]["labels"]


def test_the_validation_protocol_holds_out_videos(tmp_path):
    write(tmp_path)
    data = load_mosi_utterances(str(tmp_path))
    assert data.groups["valid"] == ["train1", "train3"]
    assert data.groups["train"] == ["train0", "train2", "train4", "train5"]
    assert data.groups["test"] == ["test0", "test1"]
    assert {k: len(v) for k, v in data.sources.items()} == {
        "train": 12,
        "valid": 6,
        "test": 8,
    }
    assert "optimistic" in data.facts["warnings"][0]
    for protocol in ("fixed_epochs", "as_published"):
        data = load_mosi_utterances(str(tmp_path), protocol=protocol)
        assert set(data.sources) == {"train", "test"} and not data.facts["warnings"]
        assert len(data.groups["train"]) == 6


@pytest.mark.parametrize("protocol", ["validation", "fixed_epochs"])
def test_only_training_utterances_enter_the_standardization(tmp_path, protocol):
    made = write(tmp_path)
    before = load_mosi_utterances(str(tmp_path), protocol=protocol)
    held = made["train"]["suggested_valid"] & (protocol == "validation")
    far = {
        split: {
            n: arrays[n] + np.float32(1e3) * (held[:, None] if split == "train" else 1)
            for n in MODALITIES
        }
        for split, arrays in made.items()
    }
    write(tmp_path, **far)
    after = load_mosi_utterances(str(tmp_path), protocol=protocol)
    for name in MODALITIES:
        want = stacked(before, "train", "inputs", name)
        np.testing.assert_array_equal(stacked(after, "train", "inputs", name), want)
        moved = stacked(after, "test", "inputs", name)[:, 0, :-1]
        assert moved.min() > 50


def test_rows_may_come_in_any_order(tmp_path):
    made = write(tmp_path)
    want = load_mosi_utterances(str(tmp_path), context_before=1, context_after=1)
    order = np.random.default_rng(2).permutation(18)
    write(tmp_path, train={k: v[order] for k, v in made["train"].items()})
    data = load_mosi_utterances(str(tmp_path), context_before=1, context_after=1)
    for name in MODALITIES:
        np.testing.assert_allclose(
            stacked(data, "train", "inputs", name),
            stacked(want, "train", "inputs", name),
            atol=1e-6,
        )
    ids = data.example_id_list("test")
    assert ids == want.example_id_list("test") and ids[0] == "test0/1"


def test_a_video_in_two_splits_is_rejected(tmp_path):
    made = write(tmp_path)
    names = np.where(made["test"]["video_id"] == "test0", "train2", "test1")
    write(tmp_path, test={"video_id": names})
    with pytest.raises(DataError, match="D10.*'train2'"):
        load_mosi_utterances(str(tmp_path))
    held = np.arange(18) < 3  # the first video has four utterances
    write(tmp_path, train={"suggested_valid": held})
    with pytest.raises(DataError, match="D10.*'train0'"):
        load_mosi_utterances(str(tmp_path))


def test_invalid_arguments_are_named(tmp_path):
    write(tmp_path)
    folder = str(tmp_path)
    with pytest.raises(ConfigError, match=r"C07.*'scores'[\s\S]*'score'"):
        load_mosi_utterances(folder, label="scores")
    with pytest.raises(ConfigError, match=r"C03.*'fixed'.*\s.*'fixed_epochs'"):
        load_mosi_utterances(folder, protocol="fixed")
    with pytest.raises(ConfigError, match=r"C10.*context_before=-1"):
        load_mosi_utterances(folder, context_before=-1)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    folder = str(tmp_path)
    with pytest.raises(
        DataError,
        match=r"D40.*train.npz does not exist[\s\S]*suggested_valid[\s\S]*fix:",
    ):
        load_mosi_utterances("")
    made = write(tmp_path)
    (tmp_path / "test.npz").unlink()
    with pytest.raises(DataError, match=r"D40.*test.npz does not exist"):
        load_mosi_utterances(folder)
    (tmp_path / "test.npz").write_bytes(b"\x80\x04].")
    with pytest.raises(DataError, match=r"D52.*test.npz cannot be read"):
        load_mosi_utterances(folder)
    write(tmp_path, test={"audio": None})
    with pytest.raises(DataError, match=r"D52.*test.npz.*audio"):
        load_mosi_utterances(folder)
    write(tmp_path, test={"audio": np.full((8, 3), np.nan, "f4")})
    with pytest.raises(DataError, match=r"D52.*test.npz: audio.*NaN or infinite"):
        load_mosi_utterances(folder)
    train = made["train"]
    for name, bad in {
        "text": train["text"][:9],
        "segment": train["segment"][:, None],
        "label_binary": train["label_binary"] + 1,
        "label_regression": train["label_regression"] * 9,
    }.items():
        write(tmp_path, train={name: bad})
        with pytest.raises(DataError, match=rf"D52.*train.npz: invalid {name}"):
            load_mosi_utterances(folder)
    write(tmp_path, test={"video": np.zeros((8, 7), "f4")})
    with pytest.raises(DataError, match=r"D52.*video has different features"):
        load_mosi_utterances(folder)
    write(tmp_path, train={"suggested_valid": np.zeros(18, bool)})
    with pytest.raises(DataError, match=r"D45[\s\S]*protocol=fixed_epochs"):
        load_mosi_utterances(folder)


def test_the_real_utterances(real_data):
    folder = real_data / "mosi"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    data = load_mosi_utterances(str(folder), context_before=3, context_after=3)
    assert data.facts["counts"] == {"train": 1207, "valid": 240, "test": 752}
    assert data.facts["videos"] == {"train": 52, "valid": 10, "test": 31}
    assert data.label("test", "polarity").mean() == pytest.approx(0.621, abs=5e-4)
    fixed = load_mosi_utterances(
        str(folder),
        label="score",
        context_before=99,
        context_after=99,
        protocol="fixed_epochs",
    )
    assert fixed.facts["counts"] == {"train": 1444, "test": 751}
    assert fixed.facts["steps"] == 63
    widths = {k: v.shape for k, v in fixed.source("test")[0]["inputs"].items()}
    assert widths == {"text": (63, 101), "audio": (63, 74), "video": (63, 101)}
