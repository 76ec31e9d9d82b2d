"""A loaded run predicts what it predicted when it was trained, from any inputs."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_dataset
from groups import in_ci
from trained_runs import arrays, fused, table, train

import mmfusion_jax as mmf
from mmfusion_jax.errors import UserError
from mmfusion_jax.metrics.calibration import calibrate
from mmfusion_jax.results.calibration_file import read_calibration
from mmfusion_jax.results.predictions_file import read_predictions
from mmfusion_jax.types import Batch

PACKAGES = ("tiny_dataset",)
TEST = arrays(tiny_dataset.tones(), "test")


@pytest.fixture(scope="module", params=in_ci(["label", "score", "flags"], "label"))
def run(request, tmp_path_factory) -> Path:
    """A run of the tiny dataset on one of its labels."""
    return train(fused(request.param), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def predictor(run):
    return mmf.load(run, batch_size=4, packages=PACKAGES)


def numbers(found, names) -> np.ndarray:
    """Scores (n), or probabilities (n k)."""
    if not names:
        return np.array([one.score for one in found])
    return np.array([[one.probabilities[n] for n in names] for one in found])


def test_predictions_are_those_of_the_run(run, predictor):
    for split in ("valid", "test"):
        inputs, masks = arrays(tiny_dataset.tones(), split)
        found = predictor.predict(inputs, masks=masks)
        rows = table(run, split)
        assert len(rows) == len(found) == 9
        names = predictor.labels
        task = predictor.run.info.task
        if task.kind == "regression":
            want = [float(row["prediction"]) for row in rows]
            np.testing.assert_allclose(numbers(found, ()), want, atol=1e-5)
            assert all(one.interval[0] <= one.score <= one.interval[1] for one in found)
        elif task.kind == "classification":
            assert [one.label for one in found] == [row["prediction"] for row in rows]
            assert [one.confidence for one in found] == [
                max(one.probabilities.values()) for one in found
            ]
        if names:
            columns = [f"p_{name}" for name in names]
            want = [[float(row[column]) for column in columns] for row in rows]
            np.testing.assert_allclose(numbers(found, names), want, atol=2e-6)
        for name in task.flags:
            chosen = [int(name in one.flags) for one in found]
            assert chosen == [int(row[f"prediction_{name}"]) for row in rows]
    # The outputs themselves, before calibration and rounding.
    stored = read_predictions(run)
    assert stored is not None
    batch = Batch(*TEST)
    prediction = predictor.apply(predictor.variables, batch).prediction
    np.testing.assert_allclose(prediction, stored.prediction, atol=1e-6)


def test_the_calibration_is_that_of_the_selected_checkpoint(run, predictor):
    calibration, task = read_calibration(run), predictor.run.info.task
    data = tiny_dataset.tones()
    prediction = predictor.apply(
        predictor.variables, Batch(*arrays(data, "valid"))
    ).prediction
    found = {"truth": data.label("valid", task.label), "prediction": prediction}
    found = {name: np.asarray(x) for name, x in found.items()}
    again = calibrate(task, found)
    assert calibration is not None and again is not None
    if task.kind == "regression":
        assert again.temperature is calibration.temperature is None
    else:
        assert again.temperature == pytest.approx(calibration.temperature, rel=1e-3)
    np.testing.assert_allclose(
        again.nonconformity, calibration.nonconformity, atol=1e-4
    )


def test_every_subset_of_modalities_has_one_program(run):
    """No subset, number of examples or length of an input compiles again."""
    predictor = mmf.load(run, batch_size=4, packages=PACKAGES)
    traced = []
    inner = predictor.model

    class Counted:
        def apply(self, *args, **kwargs):
            traced.append(1)
            return inner.apply(*args, **kwargs)

    predictor.model = Counted()
    inputs, masks = TEST
    predictor.predict(inputs, masks=masks)
    first = predictor.predict({m: x[0] for m, x in inputs.items()})
    assert len(first) == 1 and first[0].missing == [] and first[0].without.keys() == {
        "audio", "video"
    }  # fmt: skip
    for m in inputs:
        (alone,) = predictor.predict({m: inputs[m][0]})
        (other,) = {"audio", "video"} - {m}
        assert alone.missing == [other] and alone.without == {}
        left = first[0].without[other]
        assert left.label == alone.label and left.flags == alone.flags
        if left.score is not None:
            assert left.score == pytest.approx(alone.score, abs=1e-6)
        (ignored,) = predictor.predict(
            {n: x[0] for n, x in inputs.items()}, leave_out=[other]
        )
        assert dataclasses.replace(ignored, remarks=[]) == alone
    for count in (2, 3, 5, 9):
        assert (
            len(predictor.predict({m: x[:count] for m, x in inputs.items()})) == count
        )
    predictor.predict({"audio": inputs["audio"][0][:7]})
    predictor.predict(Batch(inputs, masks))
    assert len(traced) == 1


def test_nothing_is_known_without_any_modality(predictor):
    inputs, masks = TEST
    masks = {m: np.zeros_like(mask) for m, mask in masks.items()}
    found = predictor.predict(inputs, masks=masks)
    info = predictor.run.info
    for one in found:
        assert one.confidence is None and one.missing == ["audio", "video"]
        assert one.without == {}
        if info.task.kind == "regression":
            assert one.score == pytest.approx(info.prior)
            assert one.interval == info.task.range
        else:
            assert one.prediction_set is not None
            assert set(one.prediction_set) == set(predictor.labels)


def test_masked_values_and_padding_change_nothing(predictor):
    inputs, masks = ({m: x.copy() for m, x in part.items()} for part in TEST)
    masks["audio"][:, 20:] = False
    want = predictor.predict(inputs, masks=masks)
    inputs["audio"][:, 20:] = np.nan
    assert predictor.predict(inputs, masks=masks) == want
    # As a list of arrays of their lengths, which have no mask.
    ragged = {"audio": [x[:20] for x in inputs["audio"]], "video": inputs["video"]}
    assert predictor.predict(ragged) == want
    # A batch of padded examples.
    again = predictor.predict(Batch(inputs, masks))
    assert again == want
    masks["audio"][0] = False
    partly = predictor.predict({**ragged, "audio": [None, *ragged["audio"][1:]]})
    assert partly[0].missing == ["audio"] and partly[1:] == want[1:]
    assert partly == predictor.predict(inputs, masks=masks)


def test_longer_inputs_are_cut_and_remarked(predictor):
    inputs = {m: x[0] for m, x in TEST[0].items()}
    (want,) = predictor.predict(inputs)
    longer = np.concatenate([inputs["audio"], np.ones((5, 4))])
    (found,) = predictor.predict({**inputs, "audio": longer})
    assert found.remarks == [
        "audio has 29 steps: the first 24, the longest in the training data, are used"
    ]
    assert dataclasses.replace(found, remarks=[]) == want


def test_files_of_arrays(predictor, tmp_path, monkeypatch):
    inputs, masks = TEST
    want = predictor.predict(inputs, masks=masks)
    folder = tmp_path / "a folder, ü"
    folder.mkdir()
    path = folder / "new data.npz"
    ids = [f"clip {i % 8}" for i in range(9)]  # one occurs twice
    np.savez(path, id=ids, audio_mask=masks["audio"], label=np.arange(9), **inputs)
    found = predictor.predict(path)
    assert [one.id for one in found] == ids
    assert [dataclasses.replace(a, id=b.id) for a, b in zip(found, want)] == want  # noqa: B905
    monkeypatch.chdir(folder)
    assert predictor.predict("new data.npz") == found
    monkeypatch.setenv("HOME", str(folder))
    assert predictor.predict(["~/new data.npz"]) == found
    broken = {**inputs, "audio": inputs["audio"].copy()}
    broken["audio"][3, 2] = np.nan
    np.savez(path, id=ids, **broken)
    with pytest.raises(UserError, match="1 of 9 examples cannot be used") as error:
        predictor.predict(path)
    assert "clip 3: audio has NaN" in str(error.value)
    kept = predictor.predict(path, errors="return")
    assert "NaN" in kept[3].error and kept[3].label is kept[3].score is None
    assert kept[:3] + kept[4:] == found[:3] + found[4:]
    both = predictor.predict([path, folder / "none.npz"], errors="return")
    assert both[:9] == kept and "none.npz" in both[9].error


def test_the_order_is_that_of_the_inputs(predictor, tmp_path):
    inputs, _ = TEST
    for name, rows in (("b", slice(0, 3)), ("a", slice(3, 8))):
        part = {m: x[rows] for m, x in inputs.items()}
        np.savez(
            tmp_path / f"{name}.npz",
            id=[f"{name}{i}" for i in range(len(part["audio"]))],
            **part,
        )
    paths = [tmp_path / "b.npz", tmp_path / "a.npz"]
    found = predictor.predict(paths)
    assert [one.id for one in found] == ["b0", "b1", "b2", *(f"a{i}" for i in range(5))]


ONE = {m: x[0] for m, x in TEST[0].items()}
AUDIO, VIDEO = ONE["audio"], ONE["video"]
BATCH = Batch(*TEST)
WRONG = {
    "nothing": [],
    "no modality": {},
    "None": None,
    "a number": 3,
    "bytes": b"x.npz",
    "a set": {"x.npz"},
    "a generator": (x for x in ()),
    "an array": AUDIO,
    "paths and a number": ["x.npz", 3],
    "a modality of another model": {"smell": AUDIO},
    "a misspelled modality": {"Audio": AUDIO},
    "only None": {"audio": None, "video": None},
    "a flat array": {"audio": AUDIO[0]},
    "other features": {"audio": AUDIO[:, :3]},
    "four axes": {"audio": AUDIO[None, None]},
    "a text": {"audio": "a.wav"},
    "texts": {"audio": np.array([["a"] * 4] * 3)},
    "objects": {"audio": np.array([[{}] * 4] * 3, object)},
    "complex": {"audio": AUDIO * 1j},
    "bools": {"audio": AUDIO > 0},
    "ragged rows": {"audio": [[1.0, 2.0], [3.0]]},
    "NaN": {"audio": AUDIO * np.nan},
    "infinite": {"audio": AUDIO.astype("f8") * 1e300},
    "no examples": {"audio": np.zeros((0, 24, 4))},
    "other numbers": {"audio": AUDIO[None], "video": np.stack([VIDEO, VIDEO])},
    "missing file": "no such file.npz",
    "missing clip": "no such file.mp4",
    "a null byte": "a\0b.npz",
    "a null byte in a clip": "a\0b.mp4",
    "a long name": "a" * 5000 + ".mp4",
    "an unknown user": "~nobody_at_all/x.npz",
    "a folder": "/dev",
    "a device": "/dev/null",
    "batch without a modality": BATCH.replace(inputs={"audio": BATCH.inputs["audio"]}),
    "batch of other shapes": BATCH.replace(
        inputs={**BATCH.inputs, "audio": BATCH.inputs["audio"][:, :5]}
    ),
    "batch with NaN": BATCH.replace(
        inputs={**BATCH.inputs, "audio": BATCH.inputs["audio"] * np.nan}
    ),
    "empty batch": BATCH.replace(weight=np.zeros(9, np.float32)),
}
WRONG_ARGUMENTS = {
    "masks of a path": ({"masks": TEST[1]}, "x.npz"),
    "masks are a list": ({"masks": [True]}, ONE),
    "a mask of another modality": ({"masks": {"smell": [True]}}, ONE),
    "a short mask": ({"masks": {"audio": [True] * 3}}, ONE),
    "a mask of numbers": ({"masks": {"audio": np.full(24, 0.5)}}, ONE),
    "a mask of NaN": ({"masks": {"audio": np.full(24, np.nan)}}, ONE),
    "masks of two examples": ({"masks": {"audio": np.ones((2, 24), bool)}}, ONE),
    "coverage 1": ({"coverage": 1}, ONE),
    "coverage 0": ({"coverage": 0.0}, ONE),
    "coverage NaN": ({"coverage": float("nan")}, ONE),
    "coverage text": ({"coverage": "high"}, ONE),
    "leave_out": ({"leave_out": ["smell"]}, ONE),
    "errors": ({"errors": "ignore"}, ONE),
}


@pytest.mark.parametrize("name", [*WRONG, *WRONG_ARGUMENTS])
def test_wrong_inputs_are_one_clear_error(predictor, name):
    options, inputs = WRONG_ARGUMENTS.get(name, ({}, WRONG.get(name)))
    with pytest.raises(UserError) as error:
        predictor.predict(inputs, **options)
    assert len(str(error.value)) < 1500


@pytest.mark.parametrize(
    "options", [{"batch_size": 0}, {"batch_size": "2"}, {"workers": -1}]
)
def test_wrong_arguments_of_load(run, options):
    with pytest.raises(UserError):
        mmf.load(run, packages=PACKAGES, **options)
    with pytest.raises(UserError):
        mmf.load(None)  # pyright: ignore[reportArgumentType]


def test_a_run_of_an_earlier_version_gets_the_defaults_of_new_fields(run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    path = copy / "config.json"
    stored = json.loads(path.read_text())
    del stored["config"]["train"]["log_every"]
    del stored["config"]["optim"]["gradient_balance"]
    del stored["config"]["data"]["modality_dropout"]
    path.write_text(json.dumps(stored))
    spec = mmf.load(copy, packages=PACKAGES).run.spec
    assert spec.training.log_every == 20
    assert spec.optimizer.gradient_balance == "none"
    assert spec.data.modality_dropout == {}
    assert spec.training.epochs == 3


def test_code_of_other_packages_must_be_allowed(run):
    with pytest.raises(UserError, match="would run code of the package 'tiny_dataset'"):
        mmf.load(run)
    assert mmf.load(run, packages="tiny_dataset").labels is not None
