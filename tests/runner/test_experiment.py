"""Whole runs: they conclude, go on, refuse another config, and stop on bad numbers."""

import dataclasses
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny_dataset
from flax.traverse_util import flatten_dict
from groups import in_ci
from ml_collections import ConfigDict
from tiny_dataset import config

from mmfusion_jax.config import build_data
from mmfusion_jax.config.resolve import resolve, unimodal_spec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DivergedError,
    WeightsError,
)
from mmfusion_jax.metrics.nonfinite import (
    undefined_in_evaluations,
    undefined_in_runs,
)
from mmfusion_jax.results.experiment_result import ExperimentResult
from mmfusion_jax.results.json_file import read_json
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.results.model_result import NotFinite
from mmfusion_jax.runner import experiment
from mmfusion_jax.runner.trainer import Trainer, describe_start
from mmfusion_jax.training.plan import SelectionState, TrainPlan
from mmfusion_jax.weights import WEIGHT_MAPPINGS
from mmfusion_jax.weights.convert import NameRule, WeightMapping


def train(asked: ConfigDict, workdir: Path, command: str = "a test"):
    return experiment.train(resolve(asked), workdir, command)


def evaluate(asked: ConfigDict, workdir: Path):
    return experiment.evaluate(resolve(asked), workdir)


def read(workdir: Path) -> ExperimentResult:
    return read_json(workdir / "result.json", ExperimentResult, "delete it")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """CFN-SR over two folds, the video encoder trained first."""
    workdir = tmp_path_factory.mktemp("finished")
    asked = config(**{"data.fold": "all", "data.folds": 2})
    asked.model.name = "cfn_sr"
    asked.model.encoders.audio = dict(name="feature_tokens", hidden_dim=8)
    asked.model.update(hidden_dim=8, num_layers=1, num_heads=2)
    asked.pretrain_unimodal = ("video",)
    return asked, workdir, train(asked, workdir)


def test_a_result_says_everything_and_the_report_stands_beside_it(finished):
    _, workdir, result = finished
    assert read(workdir) == result
    assert [run.fold for run in result.runs] == [0, 1]
    assert result.data.title == "tones (made up)"
    assert result.baseline.scores["accuracy"].mean == pytest.approx(1 / 3)
    accuracies = [run.test.scores["accuracy"] for run in result.runs]
    summary = result.summary.test["accuracy"]
    assert summary.mean == pytest.approx(np.mean(accuracies))
    assert summary.std == pytest.approx(np.std(accuracies, ddof=1))
    assert set(result.summary.stages) == {"video"}
    assert np.mean(accuracies) > 0.5
    assert "tones (made up)" in (workdir / "report.html").read_text("utf-8")


def test_the_chosen_step_is_the_first_of_the_best_on_validation(finished):
    _, workdir, result = finished
    for run in result.runs:
        lines = read_metrics(workdir / run.folder)
        scores = {
            line.step: line.values["valid/accuracy"]
            for line in lines
            if line.kind == "eval"
        }
        assert len(scores) == 4
        best = max(scores.values())
        assert run.step == min(s for s, score in scores.items() if score == best)
        assert run.valid.scores["accuracy"] == pytest.approx(best)
        tests = [x.values["test/accuracy"] for x in lines if x.kind == "eval"]
        assert run.best_test.score == pytest.approx(max(tests))


def test_a_finished_folder_is_left_alone(finished, capfd):
    asked, workdir, result = finished
    before = (workdir / "result.json").stat().st_mtime_ns
    assert train(asked, workdir) == result
    assert "finished experiment" in capfd.readouterr().err
    assert (workdir / "result.json").stat().st_mtime_ns == before


@pytest.fixture(scope="module", params=in_ci(["label", "score", "flags"], "score"))
def undefined(request, tmp_path_factory):
    """A run on a label whose test split has two predictions that are not finite."""
    asked = config(**{"data.endless": (3, 7), "train.epochs": 2})
    if request.param == "score":
        asked.losses.task.name, asked.train.selection_metric = "mse", "mae"
    if request.param == "flags":
        asked.losses.task.name, asked.train.selection_metric = "multilabel", "f1"
    asked.data.label = request.param
    workdir = tmp_path_factory.mktemp(f"undefined_{request.param}")
    return asked, workdir, train(asked, workdir)


def test_a_split_with_a_prediction_that_is_not_finite_has_no_scores(undefined):
    asked, workdir, result = undefined
    (run,) = result.runs
    assert run.steps == 8 and np.isfinite(run.valid.scores[result.selection_metric])
    assert run.test.not_finite == NotFinite(count=2, of=9, examples=[3, 7])
    assert len(run.test.scores) > 3 and set(run.test.scores.values()) == {None}
    assert result.summary.test[result.selection_metric].mean is None
    assert read(workdir) == result
    page = (workdir / "report.html").read_text("utf-8")
    assert "not defined" in page and "2 of 9 examples are not finite" in page
    assert "nan" not in re.sub("<svg.*?</svg>", "", page, flags=re.DOTALL).lower()
    evaluated = undefined_in_evaluations(evaluate(asked, workdir))
    for found in (undefined_in_runs(result.runs), evaluated):
        with pytest.raises(DivergedError, match=r"test: .* 2 of 9 .*indices 3, 7\)"):
            experiment.check_finite(found)


def test_finite_runs_pass(finished):
    experiment.check_finite(undefined_in_runs(finished[2].runs))


def test_a_model_that_is_not_trained_is_said_to_be_not_trained():
    start = lambda step, steps: describe_start(step, TrainPlan(steps, 4))
    assert "config.train.epochs=0" in start(0, 0)
    assert start(8, 8) == "already finished"
    assert start(4, 8) == "resuming from step 4"
    assert start(0, 8).startswith("training for 8 steps")


def test_ids_that_the_encoder_does_not_know_are_refused_first(tmp_path, monkeypatch):
    asked = config()
    asked.model.encoders = dict(text=dict(name="conv_lstm", hidden_dim=4, vocab_size=5))
    words = np.array([[1, 4, 9], [0, 5, 9]], np.int32)
    real = np.array([[True, True, False], [True, True, False]])
    label = {"label": np.zeros(2, np.int32)}
    source = InMemory({"text": words}, {"text": real}, label)
    splits = {"train": source, "test": source}
    data = Dataset("words", "words (made up)", splits, {"label": ("a", "b")})
    assert data.id_range("text") == (0, 5)
    monkeypatch.setattr(tiny_dataset, "words", lambda: data, raising=False)
    asked.data.name = "tiny_dataset:words"
    monkeypatch.setattr(experiment, "Trainer", lambda *_: pytest.fail("too late"))
    with pytest.raises(ConfigError, match=r"vocab_size=5: .* ids from 0 to 5.") as info:
        train(asked, tmp_path)
    assert info.value.fix == "--config.model.encoders.text.vocab_size=6"
    spec = resolve(asked)
    weights = dataclasses.replace(spec.model, weights={"text": "bert.npz"})
    with pytest.raises(ConfigError) as info:
        build_data.check_ids(dataclasses.replace(spec, model=weights), data)
    assert "must be of one vocabulary" in info.value.fix
    asked.model.encoders.text.vocab_size = 6
    build_data.check_ids(resolve(asked), data)


def test_pretrained_weights_are_not_given_another_vocabulary_size():
    asked = config()
    asked.model.encoders = dict(
        text=dict(name="bert", hidden_dim=8, num_heads=2, vocab_size=21128, weights="x")
    )
    source = InMemory(
        {"text": np.array([[1, 29000]])}, {"text": np.ones((1, 2), bool)}, {}
    )
    data = Dataset("words", "words (made up)", {"train": source, "test": source})

    def fix():
        with pytest.raises(ConfigError, match="C30|ids from 0 to 29000") as caught:
            build_data.check_ids(resolve(asked), data)
        assert caught.value.code == "C30"
        return caught.value.fix

    text = "--config.model.encoders.text"
    assert "vocab_size=29001" not in fix()
    assert f"{text}.weights=FILE {text}.vocab_size=30522" in fix()
    assert "whose ids are of the vocabulary of x" in fix()
    # One that starts at random has any size.
    asked.model.encoders.text.weights = "random"
    assert fix() == f"{text}.vocab_size=29001"
    # Transcripts of clips become ids of any vocabulary.
    asked.model.encoders.text.weights = "x"
    asked.data = dict(asked.data, name="clips", data_dir="x")
    assert fix().startswith("--config.data.vocabulary=x makes ids of the")


def test_evaluation_repeats_the_scores(finished):
    asked, workdir, result = finished
    for again, run in zip(evaluate(asked, workdir), result.runs, strict=True):
        assert again.step == run.step
        assert again.splits["test"].scores["accuracy"] == pytest.approx(
            run.test.scores["accuracy"]
        )
        assert again.splits["test"].scores["loss"] == pytest.approx(
            run.test.scores["loss"], rel=1e-5
        )


def test_another_config_is_refused(finished):
    asked, workdir, _ = finished
    other = asked.copy_and_resolve_references()
    other.optim.learning_rate = 0.5
    with pytest.raises(ConfigError, match=r"learning_rate=0.01, but this run has 0.5"):
        train(other, workdir)


def test_nothing_to_evaluate_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="not contain a checkpoint") as error:
        evaluate(config(), tmp_path)
    assert error.value.fix.startswith("train first")


def test_a_run_without_its_checkpoints_is_told_from_none(finished, tmp_path):
    asked, workdir, _ = finished
    shutil.copytree(workdir, tmp_path / "copy")
    for folder in [*(tmp_path / "copy").rglob("checkpoints")]:
        shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="not contain a checkpoint") as error:
        evaluate(asked, tmp_path / "copy")
    assert error.value.fix.startswith("restore it")


def test_without_a_validation_split_a_run_goes_to_its_end(tmp_path, capfd):
    result = train(config(**{"data.valid": False}), tmp_path)
    (run,) = result.runs
    assert run.step == run.steps == 16
    assert run.valid is None
    assert run.test == run.last
    said = capfd.readouterr().err
    assert "test accuracy" in said and "valid accuracy" not in said


def test_data_without_folds_know_no_fixed_protocol(tmp_path):
    with pytest.raises(
        ConfigError, match=r"C06.*'fixed_epochs'[\s\S]*protocol=validation"
    ):
        train(config(protocol="fixed_epochs"), tmp_path)


def test_a_stage_reads_its_tokens_as_the_model_does():
    asked = config(**{"model.name": "cfn_sr"})
    asked.model.update(audio_pooling="mean_std", dropout=0.6, hidden_dim=8)
    asked.model.encoders.video.weights = ""
    asked.optim.groups = dict(
        video=dict(param_prefix="encoders_video", learning_rate=0.1),
        audio=dict(param_prefix="encoders_audio", frozen=True),
    )
    made = unimodal_spec(resolve(asked), "video")
    assert made.model.model.name == "unimodal"
    assert made.model.model.options == {"audio_pooling": "mean_std", "dropout": 0.6}
    assert set(made.optimizer.groups) == {"video"}, "no option of the encoder is lost"
    assert made.data == resolve(asked).data and made.training == resolve(asked).training


@pytest.mark.ci
def test_pretrained_networks_are_combined_without_another_epoch(tmp_path):
    asked = config(**{"pretrain_epochs": 4, "train.epochs": 0})
    asked.model = dict(name="late_fusion", rule="product", audio_pooling="mean")
    asked.model.encoders = dict(
        audio=dict(name="feature_tokens", hidden_dim=8),
        video=dict(name="feature_tokens", hidden_dim=8),
    )
    asked.pretrain_unimodal = ("audio", "video")
    spec = resolve(asked)
    (run,) = experiment.train(spec, tmp_path, "a test").runs
    assert run.steps == run.step == 0
    assert all(stage.steps == 4 * 4 for stage in run.stages.values())
    data, made = (
        build_data.build_dataset(spec, 0),
        experiment.Experiment(spec, tmp_path),
    )
    params = made.trainer(data).best_state(tmp_path).params
    for name in ("audio", "video"):
        folder = tmp_path / "stages" / name
        alone = made.trainer(data, name).best_state(folder).params
        for part in (f"encoders_{name}", f"head_{name}"):
            jax.tree.map(np.testing.assert_array_equal, params[part], alone[part])
    assert run.test.scores["accuracy"] > run.baseline.scores["accuracy"]


def test_patience_stops_early(tmp_path):
    asked = config(**{"train.epochs": 50, "train.patience": 2})
    (run,) = train(asked, tmp_path).runs
    assert run.ended == "early"
    assert run.steps < 200
    assert run.steps - run.step == 2 * 4


def test_numbers_that_are_not_finite_stop_the_run_and_keep_the_weights(tmp_path, capfd):
    asked = config(**{"data.broken": True, "train.log_every": 50})
    asked.model.encoders = dict(audio=dict(name="feature_tokens", hidden_dim=8))
    with pytest.raises(DivergedError, match=r"[34] consecutive steps"):
        train(asked, tmp_path)
    assert "input/audio" in capfd.readouterr().err
    spec = resolve(asked)
    data = build_data.build_dataset(spec, 0)
    state = experiment.Experiment(spec, tmp_path).trainer(data).best_state(tmp_path)
    assert all(np.isfinite(x).all() for x in state.params["head_audio"].values())
    assert int(state.skipped_steps["total"]) == int(state.step)


def test_a_label_out_of_range_is_refused_before_training(tmp_path, monkeypatch):
    def short():
        data = tiny_dataset.tones()
        return type(data)(
            data.name, data.title, data.sources, {"label": ("low", "middle")}
        )

    monkeypatch.setattr(tiny_dataset, "short", short, raising=False)
    with pytest.raises(DataError, match=r"example 2: class 2 is not in 0..1"):
        train(config(**{"data.name": "tiny_dataset:short"}), tmp_path)
    assert not (tmp_path / "checkpoints").exists()


def test_options_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"config.model.heds is unknown"):
        asked = config()
        asked.model.name, asked.model.heds = "cfn_sr", 2
        train(asked, tmp_path)
    with pytest.raises(ConfigError, match=r"batch_size=7 cannot be split across 2"):
        train(config(**{"data.batch_size": 7}), tmp_path / "b")


def test_a_first_score_that_is_no_number_can_be_beaten():
    progress = SelectionState()
    for step, score in enumerate((float("nan"), 0.25, 0.5, 0.5)):
        progress.update(step, score)
    assert (progress.best_step, progress.best_score, progress.evals_since_best) == (
        2,
        0.5,
        1,
    )


@pytest.mark.parametrize(
    ("label", "loss", "select", "limit"),
    [("score", "l1", "mae", 0.6), ("flags", "multilabel", "accuracy", 0.7)],
)
def test_labels_that_are_no_classes(tmp_path, capfd, label, loss, select, limit):
    asked = config(
        **{"data.label": label, "train.selection_metric": select, "train.epochs": 8}
    )
    asked.losses.task.name = loss
    result = train(asked, tmp_path)
    (run,) = result.runs
    better = run.test.scores[select] < limit if label == "score" else (
        run.test.scores[select] > limit
    )  # fmt: skip
    assert better, run.test
    blind = result.baseline.scores[select].mean
    assert blind == pytest.approx(2 / 3)  # both, by hand: the middle, the commoner one
    assert result.baseline.description in capfd.readouterr().err
    report = (tmp_path / "report.html").read_text("utf-8")
    assert ("predictions vs. labels" in report.lower()) == (label == "score")
    (again,) = evaluate(asked, tmp_path)
    assert again.splits["test"].scores[select] == pytest.approx(run.test.scores[select])


def test_a_score_of_another_kind_of_label_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"C16.*'mae'[\s\S]*accuracy"):
        train(config(**{"train.selection_metric": "mae"}), tmp_path)


def test_seeds_are_added_to_a_finished_folder_and_never_taken_away(tmp_path, capfd):
    grown, fresh = tmp_path / "grown", tmp_path / "fresh"
    one = train(config(), grown)
    metrics = (grown / "metrics.jsonl").read_text("utf-8")
    two = train(config(seeds=2), grown)
    assert two.runs[0] == one.runs[0]
    assert (grown / "metrics.jsonl").read_text("utf-8") == metrics
    assert [run.seed for run in two.runs] == [1234, 1235]
    want = train(config(seeds=2), fresh)
    assert two.summary.test == want.summary.test
    assert two.summary.test["accuracy"].n == 2
    assert len(evaluate(config(seeds=2), grown)) == 2
    with pytest.raises(ConfigError, match=r"C09.*seeds=2, but this run has 1"):
        train(config(), grown)
    with pytest.raises(ConfigError, match=r"C09.*seeds=2, but this run has 3"):
        evaluate(config(seeds=3), grown)
    capfd.readouterr()
    assert train(config(seeds=2), grown) == two
    assert "finished experiment" in capfd.readouterr().err


def test_all_seeds_share_one_program_that_makes_their_first_state():
    run = Trainer(resolve(config()), tiny_dataset.tones())
    first, second = run.programs.init(0), run.programs.init(1)
    assert run.programs._init._cache_size() == 1  # pyright: ignore
    assert (jax.random.key_data(first.key) != jax.random.key_data(second.key)).any()


def test_an_encoder_starts_from_the_weights_of_a_file(tmp_path, monkeypatch, capfd):
    table = WeightMapping((NameRule("(.*)", r"\1"),), "an export")
    monkeypatch.setattr(tiny_dataset, "mapping", table, raising=False)
    monkeypatch.setitem(WEIGHT_MAPPINGS, "feature_tokens", "tiny_dataset:mapping")
    asked = config(**{"train.epochs": 0})
    data = tiny_dataset.tones()
    state = Trainer(resolve(asked), data).programs.init(0)
    fresh = state.params["encoders_video"] | {"norm": None}
    fresh["norm"] = {**state.params["encoders_video"]["norm"]}
    fresh["norm"] |= state.stats["encoders_video"]["norm"]
    file = tmp_path / "video.safetensors"
    named = flatten_dict(fresh, sep="/")
    arrays = {k: np.full(v.shape, 0.25, np.float32) for k, v in named.items()}
    safetensors.numpy.save_file({**arrays, "extra": np.ones(1, np.float32)}, file)

    train(asked, tmp_path / "random")
    said = capfd.readouterr().err
    assert "encoder 'feature_tokens' is randomly initialized" in said
    asked.model.encoders.video.weights = str(file)
    train(asked, tmp_path / "given")
    said = capfd.readouterr().err
    assert f"video: loaded weights from {file} (1 unused keys)" in said
    assert "randomly" not in said
    got = (
        Trainer(resolve(asked), data)
        .best_state(tmp_path / "given")
        .params["encoders_video"]
    )
    for leaf in flatten_dict(got).values():
        np.testing.assert_array_equal(leaf, 0.25)

    asked.model.encoders.video.weights = str(tmp_path / "absent.safetensors")
    with pytest.raises(WeightsError, match=r"W01.*absent[\s\S]*an export"):
        train(asked, tmp_path / "absent")


@pytest.fixture
def ctrl_c():
    """SIGINT raises KeyboardInterrupt, also where the tests' parent ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_the_preparation_of_data_at_once(tmp_path, monkeypatch):
    def prepare(config, fold):
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the signal was kept for later")

    monkeypatch.setattr(build_data, "build_dataset", prepare)
    with pytest.raises(KeyboardInterrupt):
        train(config(), tmp_path / "run")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff\xfe", b"null"])
@pytest.mark.parametrize("name", ["result.json", "run.json", "config.json"])
def test_a_corrupted_file_of_a_run_is_one_error(finished, tmp_path, name, content):
    asked, workdir, result = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    folder = copy / result.runs[0].folder if name == "run.json" else copy
    if name == "run.json":
        (copy / "result.json").unlink()
    (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=f"K05.*{name} is corrupted") as info:
        train(asked, copy)
    assert "delete" in info.value.fix
    if name == "config.json":
        return
    (folder / name).unlink()
    assert train(asked, copy).summary.test == result.summary.test
