"""Stored predictions: read back exactly, damage is one error, a kill loses nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_dataset

from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.results.model_result import read_run
from mmfusion_jax.results.predictions_file import read_predictions, write_predictions
from mmfusion_jax.runner import experiment, trainer


def write(folder: Path, prediction: np.ndarray, truth=None) -> Path:
    truth = np.arange(len(prediction)) % 2 if truth is None else truth
    ids = [f"clip {i}" for i in range(len(prediction))]
    write_predictions(folder, ids, truth, prediction)
    return folder / "predictions.json"


@pytest.mark.parametrize("shape", [(50,), (50, 3)])
def test_float32_is_read_back_exactly(tmp_path, shape):
    prediction = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    prediction[3] *= 1e-30
    prediction[4] = np.nan
    write(tmp_path, prediction)
    found = read_predictions(tmp_path)
    assert found is not None
    assert found.ids[:2] == ["clip 0", "clip 1"]
    assert found.truth.tolist() == [0, 1] * 25
    assert found.prediction.dtype == np.float32
    np.testing.assert_array_equal(found.prediction, prediction)
    assert read_predictions(tmp_path / "elsewhere") is None


def test_names_of_files_are_kept_whatever_they_are(tmp_path):
    ids = ["\udcff.mp4", "a\x1b[31m", "“ü”"]
    write_predictions(tmp_path, ids, np.zeros(3), np.zeros(3))
    found = read_predictions(tmp_path)
    assert found is not None and found.ids == ids


WHOLE = {
    "format_version": 2,
    "ids": ["a", "b"],
    "y_true": [0.0, 1.0],
    "y_pred": [[0.5, 1.0], [None, 2.0]],
}


@pytest.mark.parametrize(
    "changes",
    [
        {"ids": ["a", "a"]},
        {"ids": ["a"]},
        {"ids": ["a", 1]},
        {"y_true": [0.0, None]},
        {"y_true": [0.0, [1.0]]},
        {"y_pred": [[0.5], [1.0, 2.0]]},
        {"y_pred": [0.5, "x"]},
        {"y_pred": [[[0.5]], [[0.5]]]},
        {"y_pred": None},
        {"ids": [], "y_true": [], "y_pred": []},
        {"format_version": 3},
    ],
)
def test_damage_is_one_error(tmp_path, changes):
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(WHOLE))
    assert read_predictions(tmp_path) is not None
    path.write_text(json.dumps(WHOLE | changes))
    code = "K06" if "format_version" in changes else "K05"
    with pytest.raises(CheckpointError, match=f"{code}.*predictions.json") as info:
        read_predictions(tmp_path)
    assert len(str(info.value).splitlines()) == 2
    for content in (b"", b"{", b"\xff"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="K05.*is corrupted"):
            read_predictions(tmp_path)


def test_a_run_that_ends_between_its_two_files_is_completed(tmp_path, monkeypatch):
    spec = resolve(tiny_dataset.config(**{"train.epochs": 1}))

    def killed(path, value):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.train(spec, tmp_path, "a test")
    before = read_predictions(tmp_path)
    assert before is not None and read_run(tmp_path) is None
    result = experiment.train(spec, tmp_path, "a test")
    assert read_predictions(tmp_path) == before
    correct = before.prediction.argmax(-1) == before.truth
    (run,) = result.runs
    assert run.test.scores["accuracy"] == pytest.approx(correct.mean())
    assert before.ids == [f"test/{i}" for i in range(9)]
    assert run.macs_per_example == 72  # 6 x 8 and 8 x 3
    assert run.peak_memory is not None and run.peak_memory.bytes > 10_000_000
