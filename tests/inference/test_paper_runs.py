"""Runs of all five papers: predictions of a loaded run, and its choice of seeds."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_configs
import tiny_dataset
from groups import in_ci
from trained_runs import arrays, fused, table, train

import mmfusion_jax as mmf
from mmfusion_jax.config import build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.registry import DATASETS
from mmfusion_jax.results.experiment_result import read_result
from mmfusion_jax.results.predictions_file import read_predictions
from mmfusion_jax.types import Batch

CHANGES = {
    "data.batch_size": 4,
    "train.epochs": 1,
    "train.log_every": 9,
    "train.patience": 0,
    "pretrain_unimodal": (),
}
MISSING = {"data.missing_rate": 0.3}


@pytest.fixture
def small_digits(monkeypatch):
    monkeypatch.setitem(DATASETS, "digits", "small_configs:digits")


@pytest.mark.parametrize(
    "word",
    in_ci(small_configs.SMALL, slow=("cfn_sr", "mea", "mcl_mcf", "of_cmaer_cat")),
)
def test_predictions_are_those_of_the_run(word, small_digits, tmp_path, monkeypatch):
    config = small_configs.small(word, **CHANGES, **MISSING)
    folder = train(config, tmp_path / "run")
    inputs, masks = arrays(build_data.build_dataset(resolve(config), 0), "test")
    monkeypatch.setattr(build_data, "build_dataset", None)  # the data are not needed
    predictor = mmf.load(folder, batch_size=4, packages=("small_configs",))
    modalities = predictor.modalities
    stored, rows = read_predictions(folder), table(folder, "test")
    assert stored is not None and len(rows) == 6
    found = predictor.predict(inputs, masks=masks)
    assert [one.label for one in found] == [row["prediction"] for row in rows]
    got = [[one.probabilities[name] for name in predictor.labels] for one in found]
    want = [[float(row[f"p_{name}"]) for name in predictor.labels] for row in rows]
    np.testing.assert_allclose(got, want, atol=2e-6)
    outputs = predictor.apply(predictor.variables, Batch(inputs, masks))
    # An example with none of the modalities that the model reads has the prior.
    present = np.any([masks[name].any(axis=1) for name in modalities], axis=0)
    difference = np.abs(outputs.prediction - stored.prediction)[present]
    assert difference.max() <= 1e-6
    weighs = any(one.weights for one in found)
    result = read_result(folder)
    assert result is not None and weighs == bool(result.summary.modality_weights)
    # NaN in masked values, and every subset of the modalities.
    spoilt = {
        m: np.where(masks[m].reshape(*masks[m].shape, *[1] * (x.ndim - 2)), x, np.nan)
        if x.dtype.kind == "f"
        else x
        for m, x in inputs.items()
    }
    assert set(modalities) <= set(inputs)
    assert predictor.predict(spoilt, masks=masks) == found
    for left in modalities:
        alone = predictor.predict({left: inputs[left][0]})[0]
        assert set(alone.missing) == set(modalities) - {left}
        assert np.isfinite([*alone.probabilities.values()]).all()


@pytest.mark.ci
def test_of_several_seeds_and_folds_the_best_on_validation_is_chosen(tmp_path):
    config = fused(**{"seeds": 2, "data.fold": "all", "data.folds": 2})
    workdir = train(config, tmp_path / "run")
    result = read_result(workdir)
    assert result is not None and len(result.runs) == 4
    scores = {
        run.folder: run.valid.scores["accuracy"] for run in result.runs if run.valid
    }
    predictor = mmf.load(workdir, packages=("tiny_dataset",))
    chosen = predictor.run.folder.relative_to(workdir).as_posix()
    assert scores[chosen] == max(scores.values())
    assert "of 4 runs, the one with the best validation" in predictor.run.remarks[0]
    for run in result.runs:
        one = mmf.load(workdir / run.folder, packages=("tiny_dataset",))
        inputs, masks = arrays(tiny_dataset.tones(fold=run.fold), "test")
        rows = table(workdir / run.folder, "test")
        found = one.predict(inputs, masks=masks, explain=False)
        assert [p.label for p in found] == [row["prediction"] for row in rows]
    # A training that has not ended names one of its runs.
    (workdir / "result.json").unlink()
    with pytest.raises(mmf.CheckpointError, match=r"(?s)K09.*4 runs.*--run="):
        mmf.load(workdir, packages=("tiny_dataset",))


@pytest.mark.ci
def test_a_run_without_validation_is_not_calibrated(tmp_path):
    config = fused(seeds=2)
    config.data.valid = False
    workdir = train(config, tmp_path / "run")
    predictor = mmf.load(workdir, packages=("tiny_dataset",))
    assert (
        "the first one: they do not have a validation score"
        in (predictor.run.remarks[0])
    )
    inputs, _ = arrays(tiny_dataset.tones(), "test")
    (one,) = predictor.predict({m: x[0] for m, x in inputs.items()})
    assert not one.calibrated and one.coverage is one.prediction_set is None
    found = predictor.evaluate(
        inputs, labels=tiny_dataset.tones().label("test", "label")
    )
    assert found.calibration is found.test_calibration is None


@pytest.mark.ci
def test_a_run_on_several_devices_and_its_unimodal_stages(tmp_path):
    """Trained by pmap on two devices; loaded on one."""
    config = fused(**{"parallel": "pmap", "pretrain_unimodal": ("video",)})
    workdir = train(config, tmp_path / "run")
    predictor = mmf.load(workdir, packages=("tiny_dataset",))
    inputs, masks = arrays(tiny_dataset.tones(), "test")
    rows = table(workdir, "test")
    found = predictor.predict(inputs, masks=masks)
    got = [[one.probabilities[name] for name in predictor.labels] for one in found]
    want = [[float(row[f"p_{name}"]) for name in predictor.labels] for row in rows]
    np.testing.assert_allclose(got, want, atol=2e-6)
    stage = mmf.load(workdir / "stages" / "video", packages=("tiny_dataset",))
    assert stage.modalities == ("video",)
    stored = read_predictions(workdir / "stages" / "video")
    assert stored is not None
    video = Batch({"video": inputs["video"]}, {"video": masks["video"]})
    outputs = stage.apply(stage.variables, video).prediction
    np.testing.assert_allclose(outputs, stored.prediction, atol=1e-6)


@pytest.mark.ci
def test_a_model_of_another_package(tmp_path):
    config = fused(**{"train.epochs": 1})
    config.model = dict(name="own_parts:Linear", encoders=dict(config.model.encoders))
    workdir = train(config, tmp_path / "run")
    with pytest.raises(mmf.ConfigError, match=r"(?s)C39.*--packages=own_parts"):
        mmf.load(workdir, packages=("tiny_dataset",))
    predictor = mmf.load(workdir, packages=("own_parts", "tiny_dataset"))
    inputs, _ = arrays(tiny_dataset.tones(), "test")
    rows = table(workdir, "test")
    found = predictor.predict(inputs)
    assert [one.label for one in found] == [row["prediction"] for row in rows]
    # The folder can be moved, and the path relative.
    moved = shutil.move(workdir, tmp_path / "a run, ü")
    again = mmf.load(moved, packages=("own_parts", "tiny_dataset"))
    same = [dataclasses.replace(one) for one in again.predict(inputs)]
    assert same == found and isinstance(again.run.folder, Path)
