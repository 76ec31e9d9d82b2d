"""Labeled data are scored by the metrics of the run, which stays as it is."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tiny_dataset
from trained_runs import arrays, fused, train

import mmfusion_jax as mmf
from mmfusion_jax.__main__ import run as run_words
from mmfusion_jax.errors import ConfigError, UserError
from mmfusion_jax.inference import evaluation
from mmfusion_jax.inference.evaluation import _classes
from mmfusion_jax.results.model_result import TaskInfo, read_run

pytestmark = pytest.mark.ci

DATA = tiny_dataset.tones()
TEST = arrays(DATA, "test")


@pytest.fixture(scope="module", autouse=True)
def few_samples():
    """Intervals of 60 samples, which tests do not need to be exact."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "RESAMPLES", 60)
        yield


@pytest.fixture(scope="module", params=["label", "score", "flags"])
def run(request, tmp_path_factory) -> Path:
    return train(fused(request.param), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def predictor(run):
    return mmf.load(run, batch_size=4, packages=("tiny_dataset",))


def labels_of(predictor, split="test"):
    """Labels of a split, classes by name."""
    task = predictor.run.info.task
    values = DATA.label(split, task.label)
    return [task.classes[i] for i in values] if task.classes else values


def tree(folder: Path):
    return {
        path.relative_to(folder): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
    }


def test_the_test_split_has_the_scores_of_the_run(run, predictor):
    before = tree(run)
    found = predictor.evaluate(TEST[0], labels=labels_of(predictor))
    assert tree(run) == before
    result = read_run(run)
    assert result is not None and found.count == 9
    want = {k: v for k, v in result.test.scores.items() if k != "loss"}
    assert found.scores.keys() == want.keys()
    for name, one in found.scores.items():
        assert one.value == pytest.approx(want[name], abs=1e-5) == one.test
        if one.low is not None:
            assert one.low <= one.high
    assert found.metric == predictor.run.spec.training.selection_metric
    assert found.calibration is not None and found.test_calibration is not None
    for here, there in zip(
        found.calibration.coverage, found.test_calibration.coverage, strict=True
    ):
        assert here.measured == pytest.approx(there.measured)
    assert found.calibration.ece == pytest.approx(found.test_calibration.ece, abs=1e-5)
    assert "there are 9 examples" in " ".join(found.warnings)
    assert "9 examples" in repr(found)


def test_classes_and_flags_have_recall_and_precision(predictor):
    found = predictor.evaluate(TEST[0], labels=labels_of(predictor))
    task = predictor.run.info.task
    truth = DATA.label("test", task.label)
    predicted = predictor.predict(TEST[0])
    assert [one.name for one in found.classes] == predictor.labels
    for i, one in enumerate(found.classes):
        if task.flags:
            is_true = truth[:, i] == 1
            is_predicted = np.array([one.name in p.flags for p in predicted])
        else:
            is_true = truth == i
            is_predicted = np.array([p.label == one.name for p in predicted])
        hits = (is_true & is_predicted).sum()
        assert (one.count, one.predicted) == (is_true.sum(), is_predicted.sum())
        assert one.recall == pytest.approx(hits / is_true.sum())
        assert one.low <= one.recall <= one.high and one.few
        if is_predicted.any():
            assert one.precision == pytest.approx(hits / is_predicted.sum())


def saved(folder: Path, predictor, split="test", **changes) -> Path:
    """An .npz file of a split with its labels, speakers and ids."""
    inputs, masks = arrays(DATA, split)
    content = {
        **inputs,
        "audio_mask": masks["audio"],
        predictor.run.info.task.label: np.array(labels_of(predictor, split)),
        "speaker": np.array(["ann", "bob", "ann"] * (len(masks["audio"]) // 3)),
        "id": [f"{split} {i}" for i in range(len(masks["audio"]))],
    }
    content |= changes
    path = folder / f"{split}.npz"
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    return path


def test_speakers(predictor, tmp_path):
    found = predictor.evaluate(saved(tmp_path, predictor, "train"))
    assert [(one.name, one.count, one.few) for one in found.speakers] == [
        ("ann", 20, True),
        ("bob", 10, True),
    ]
    inputs, _ = arrays(DATA, "train")
    rows = np.arange(30) % 3 == 1
    labels = np.array(labels_of(predictor, "train"))[rows]
    alone = predictor.evaluate({m: x[rows] for m, x in inputs.items()}, labels=labels)
    bob = found.speakers[1].score
    assert bob.value == pytest.approx(alone.scores[found.metric].value, abs=1e-5)
    assert bob.low == pytest.approx(alone.scores[found.metric].low, abs=1e-5)


def test_the_command(run, predictor, tmp_path, capsys):
    path = saved(tmp_path, predictor)
    before = tree(run)
    words = ["evaluate", f"--run={run}", f"--data={path}", "--packages=tiny_dataset"]
    assert run_words([*words, "--json", f"--workdir={tmp_path}"]) == 0
    output = json.loads(capsys.readouterr().out)
    found = predictor.evaluate(path)
    assert output["count"] == 9 and output["scores"].keys() == found.scores.keys()
    assert [one["name"] for one in output["speakers"]] == ["ann", "bob"]
    assert run_words([*words, f"--workdir={tmp_path}"]) == 0
    shown = capsys.readouterr().out
    assert "95 % interval" in shown and "bob" in shown and "6*" in shown
    inputs, _ = TEST
    broken = {**inputs, "video": inputs["video"].copy()}
    broken["video"][4] = np.nan
    bad = saved(tmp_path, predictor, video=broken["video"])
    assert run_words([*words[:2], f"--data={bad}", *words[3:]]) == 1
    assert "1 of 9 examples are not scored" in capsys.readouterr().out
    assert predictor.evaluate(bad).count == 8
    assert tree(run) == before


def test_examples_of_the_training_are_reported(run, predictor, tmp_path):
    from mmfusion_jax.results.predictor_file import hashed_id

    path = saved(tmp_path, predictor)
    assert "did not store ids" in " ".join(predictor.evaluate(path).warnings)
    predictor.run.info.train_ids[:] = [hashed_id("test 3"), hashed_id("other")]
    try:
        (warning, *_) = predictor.evaluate(path).warnings
    finally:
        predictor.run.info.train_ids.clear()
    assert warning.startswith("1 of 9 examples have the id of a training example")
    assert "'test 3'" in warning
    ids = [f"valid/{i}" for i in range(9)]  # ids without a meaning
    named = saved(tmp_path, predictor, id=ids)
    assert "do not have ids" in predictor.evaluate(named).warnings[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": None},
        {"labels": ["low"]},
        {"labels": ["loud"] * 9},
        {"labels": [None] * 9},
        {"labels": [7] * 9},
        {"labels": "low"},
        {"split": "test", "data": "x.npz"},
        {"data": 3},
        {"data": "nothing here"},
        {"data": __file__},
        {"data": str(Path(__file__).parent)},
        {"data": "x.npz", "labels": [1]},
    ],
)
def test_wrong_data_are_one_clear_error(predictor, changes):
    options = {"data": TEST[0], **changes}
    with pytest.raises(UserError) as error:
        predictor.evaluate(options.pop("data"), **options)
    assert len(str(error.value)) < 1500


def test_classes_are_matched_by_name():
    task = TaskInfo("label", "classification", classes=["b", "a"])
    assert _classes(task, "x", ["a", "b ", np.str_("a")]).tolist() == [1, 0, 1]
    assert _classes(task, "x", [0, np.int64(1), np.array(1)]).tolist() == [0, 1, 1]
    with pytest.raises(UserError, match=r"D07.*'A' \(2\), '' \(1\).*mean 'a'"):
        _classes(task, "x", ["A", "a", "", "A"])
    with pytest.raises(UserError, match="D07"):
        _classes(task, "x", [-1])


def test_an_address_is_not_a_path(predictor):
    with pytest.raises(ConfigError, match="C40.*data='gs://bucket/clips'"):
        predictor.evaluate("gs://bucket/clips")
    with pytest.raises(ConfigError, match="C40.*inputs='https://x.org/a.mp4'"):
        predictor.predict("https://x.org/a.mp4")


def test_a_label_that_the_data_lack(predictor, tmp_path):
    label = predictor.run.info.task.label
    path = saved(tmp_path, predictor, **{label: None})
    with pytest.raises(UserError, match="does not have the label"):
        predictor.evaluate(path)
    one = saved(tmp_path, predictor, **{m: x[:1] for m, x in TEST[0].items()})
    with pytest.raises(UserError, match="9 values for 1 examples|rows for 1"):
        predictor.evaluate(one)
    first = {m: x[:1] for m, x in TEST[0].items()}
    found = predictor.evaluate(first, labels=labels_of(predictor)[:1])
    assert found.count == 1
    assert all(
        one.low is None and (one.value is None or math.isfinite(one.value))
        for one in found.scores.values()
    )
