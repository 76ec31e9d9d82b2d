"""ICT-MMMO: masks of zero steps, clips without text, folds, standardization."""

import numpy as np
import pytest

from mmfusion_jax.data.dataset import RegressionTarget
from mmfusion_jax.data.datasets.ict_mmmo import MODALITIES, load_ict_mmmo
from mmfusion_jax.errors import ConfigError, DataError

COUNTS = {"train": 9, "valid": 4, "test": 8}
WIDTHS = {"text": 5, "audio": 3, "video": 2}


def write(folder, **changes):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in COUNTS.items():
        for name, width in WIDTHS.items():
            x = (rng.normal(size=(n, 6, width)) * 4 + 2).astype("f4")
            x[:, 0] = x[:, 3] = 0  # at the beginning and inside
            arrays[f"{split}_{name}"] = x
        arrays[f"{split}_label"] = np.resize([1, 3, 3.5, 5], n).astype("f4")
    arrays.pop("train_text")
    arrays |= changes
    kept = {k: v for k, v in arrays.items() if v is not None}
    np.savez(folder / "mmmo.npz", **kept)
    return arrays


def stacked(data, split, part, name):
    source = data.source(split)
    return np.stack([source[i][part][name] for i in range(len(source))])


def test_the_official_split(tmp_path):
    arrays = write(tmp_path)
    data = load_ict_mmmo(str(tmp_path))
    assert {k: len(v) for k, v in data.sources.items()} == COUNTS
    assert data.values == {"score": RegressionTarget(1, 5, 3)}
    np.testing.assert_array_equal(data.label("test", "score"), arrays["test_label"])
    assert data.label("valid", "positive").tolist() == [0, 0, 1, 1]
    example = data.source("test")[0]
    assert all(v.shape == (6, WIDTHS[k]) for k, v in example["inputs"].items())
    assert all(v.dtype == np.float32 for v in example["inputs"].values())
    for name in MODALITIES:
        assert example["masks"][name].tolist() == [False, True, True, False, True, True]
        assert not example["inputs"][name][[0, 3]].any()
    assert data.facts["warnings"][0].startswith("0 of 9 training clips have text")
    assert not stacked(data, "train", "masks", "text").any()
    assert not stacked(data, "train", "inputs", "text").any()
    # No training clip has text, so it is not standardized.
    valid = [1, 2, 4, 5]
    text = stacked(data, "test", "inputs", "text")[:, valid]
    np.testing.assert_array_equal(text, arrays["test_text"][:, valid])


def test_other_protocols_train_on_the_validation_clips(tmp_path):
    write(tmp_path)
    for protocol in ("fixed_epochs", "as_published"):
        data = load_ict_mmmo(str(tmp_path), protocol=protocol)
        assert {k: len(v) for k, v in data.sources.items()} == {"train": 13, "test": 8}
        assert stacked(data, "train", "masks", "text").any(1).sum() == 4


def test_folds_test_every_clip_with_text_once(tmp_path):
    write(tmp_path)
    tested, train = [], []
    for fold in range(3):
        data = load_ict_mmmo(str(tmp_path), fold=fold, folds=3)
        assert {k: len(v) for k, v in data.sources.items()} == {
            "train": 4,
            "valid": 4,
            "test": 4,
        }
        assert not data.facts["warnings"]
        assert stacked(data, "train", "masks", "text").any(1).all()
        tested += data.example_id_list("test")
        train.append(data.groups["train"])
        after = load_ict_mmmo(str(tmp_path), fold=(fold + 1) % 3, folds=3)
        assert data.groups["valid"] == after.groups["test"]
    assert len(set(tested)) == 12 and not any(n.startswith("train") for n in tested)
    fixed = load_ict_mmmo(str(tmp_path), fold=1, folds=3, protocol="fixed_epochs")
    assert {k: len(v) for k, v in fixed.sources.items()} == {"train": 8, "test": 4}
    more = load_ict_mmmo(str(tmp_path), fold=2, folds=3, keep_clips_without_text=True)
    assert len(more.source("train")) == 4 + 9
    assert list(more.groups["train"][:4]) == list(train[2])
    text = stacked(more, "train", "masks", "text").any(1)
    assert text.tolist() == [True] * 4 + [False] * 9
    assert more.facts["warnings"][0].startswith("4 of 13 training clips have text")


@pytest.mark.parametrize(
    "options", [{}, {"folds": 3, "fold": 1, "keep_clips_without_text": True}]
)
def test_only_valid_training_steps_enter_the_standardization(tmp_path, options):
    arrays = write(tmp_path)
    data = load_ict_mmmo(str(tmp_path), clip_quantile=0.0, **options)
    known = [name for name in MODALITIES if options or name != "text"]
    for name in known:
        mask = stacked(data, "train", "masks", name)
        valid = stacked(data, "train", "inputs", name)[mask]
        np.testing.assert_allclose(valid.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(valid.std(0), 1, atol=1e-5)
    held_out = {*data.groups["test"], *data.groups["valid"]}
    far, start = {}, 0
    for split, n in COUNTS.items():
        moved = np.array([f"{split} {start + i}" in held_out for i in range(n)])
        start += n
        for name in MODALITIES:
            if f"{split}_{name}" in arrays:
                x = arrays[f"{split}_{name}"]
                far[f"{split}_{name}"] = x + np.float32(1e3) * (
                    moved[:, None, None] & (x != 0)
                )
    write(tmp_path, **far)
    after = load_ict_mmmo(str(tmp_path), clip_quantile=0.0, **options)
    for name in known:
        want = stacked(data, "train", "inputs", name)
        np.testing.assert_array_equal(stacked(after, "train", "inputs", name), want)
    assert stacked(after, "test", "inputs", "video").max() > 50


def test_audio_is_clipped_at_quantiles_of_the_training_split(tmp_path):
    arrays = write(tmp_path)
    audio = arrays["train_audio"].copy()
    audio[0, 1] = 255
    test_audio = arrays["test_audio"].copy()
    test_audio[0, 1] = -255
    write(tmp_path, train_audio=audio, test_audio=test_audio)
    data = load_ict_mmmo(str(tmp_path), clip_quantile=0.1)
    valid = audio[:, [1, 2, 4, 5]].reshape(-1, 3)
    clipped = np.clip(valid, *np.quantile(valid, [0.1, 0.9], axis=0))
    want = ((clipped - clipped.mean(0)) / clipped.std(0)).reshape(9, 4, 3)
    got = stacked(data, "train", "inputs", "audio")
    np.testing.assert_allclose(got[:, [1, 2, 4, 5]], want, atol=1e-4)
    assert not got[:, [0, 3]].any()  # masked
    minimum = data.source("test")[0]["inputs"]["audio"][1]
    np.testing.assert_allclose(minimum, want.min((0, 1)), atol=1e-4)


def test_invalid_arguments_are_named(tmp_path):
    write(tmp_path)
    folder = str(tmp_path)
    with pytest.raises(ConfigError, match=r"C06.*fold=1"):
        load_ict_mmmo(folder, fold=1)
    with pytest.raises(ConfigError, match=r"C06.*keep_clips_without_text=True"):
        load_ict_mmmo(folder, keep_clips_without_text=True)
    with pytest.raises(ConfigError, match=r"C06.*fold=3 is not one of the 3"):
        load_ict_mmmo(folder, fold=3, folds=3)
    with pytest.raises(
        ConfigError, match=r"C06.*empty training split with config.data.folds=2"
    ):
        load_ict_mmmo(folder, folds=2)
    with pytest.raises(ConfigError, match=r"C06[\s\S]*folds=2 to 12"):
        load_ict_mmmo(folder, folds=13)
    with pytest.raises(ConfigError, match=r"C03.*'fixed'.*\s.*'fixed_epochs'"):
        load_ict_mmmo(folder, protocol="fixed")
    with pytest.raises(ConfigError, match=r"C10.*clip_quantile=0.5"):
        load_ict_mmmo(folder, clip_quantile=0.5)


def test_what_is_missing_or_damaged_is_named(tmp_path):
    folder = str(tmp_path)
    with pytest.raises(
        DataError, match=r"D40.*mmmo.npz does not exist[\s\S]*train_audio[\s\S]*fix:"
    ):
        load_ict_mmmo(folder)
    (tmp_path / "mmmo.npz").write_bytes(b"\x80\x04].")
    with pytest.raises(DataError, match=r"D52.*mmmo.npz cannot be read"):
        load_ict_mmmo(folder)
    arrays = write(tmp_path, valid_text=None)
    with pytest.raises(DataError, match=r"D52.*mmmo.npz.*valid_text"):
        load_ict_mmmo(folder)
    video = arrays["valid_video"]
    for name, bad, message in (
        ("valid_video", np.full_like(video, np.inf), "valid_video.*infinite"),
        ("valid_video", video[:3], "invalid valid_video"),
        ("valid_video", video[..., :1], "invalid valid_video"),
        ("valid_video", video[:, 0], "invalid valid_video"),
        ("valid_label", np.zeros(4, "f4"), "invalid valid_label"),
        ("valid_label", np.zeros((4, 1), "f4"), "invalid valid_label"),
    ):
        write(tmp_path, **{name: bad})
        with pytest.raises(DataError, match=rf"D52.*mmmo.npz: {message}"):
            load_ict_mmmo(folder)


def test_the_real_clips(real_data):
    folder = real_data / "mmmo"
    if not folder.is_dir():
        pytest.skip(f"{folder} does not exist")
    data = load_ict_mmmo(str(folder))
    assert data.facts["counts"] == {"train": 220, "valid": 40, "test": 80}
    assert data.label("train", "positive").mean() == pytest.approx(0.555, abs=5e-4)
    valid = [stacked(data, "test", "masks", name).mean() for name in MODALITIES]
    np.testing.assert_allclose(valid, [0.919, 0.920, 0.819], atol=1e-3)
    audio = stacked(data, "test", "inputs", "audio")
    assert np.isfinite(audio).all() and np.abs(audio).max() < 8
    fold = load_ict_mmmo(str(folder), fold=4, folds=5, keep_clips_without_text=True)
    assert fold.facts["counts"] == {"train": 72 + 220, "valid": 24, "test": 24}
