"""Files of a work folder: what is written is read, and damage is one error."""

import copy
import dataclasses
import errno
import functools
import itertools
import json
import os
from pathlib import Path

import pytest
import sample_results
import tiny_dataset
from damaged_json import damaged
from groups import in_ci

from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.report import write_report
from mmfusion_jax.report.gradients import write_page
from mmfusion_jax.results.experiment_result import (
    ExperimentResult,
    MeanStd,
    read_result,
)
from mmfusion_jax.results.gradients_result import (
    GradientsResult,
    LossTerm,
    ModuleCurvature,
    ModuleGradients,
)
from mmfusion_jax.results.json_file import as_read, dumps, read_json, write_json
from mmfusion_jax.results.metrics_file import (
    MetricsLine,
    drop_lines_after,
    read_metrics,
)
from mmfusion_jax.results.model_result import ModelResult, read_run
from mmfusion_jax.results.summary import summary_lines
from mmfusion_jax.runner import experiment
from mmfusion_jax.runner.trainer import Trainer

FREE = ("config", "versions", "facts")
"""Fields whose content is arbitrary."""
PAGES = 200
"""Every 200th result is also written as a page, which takes longer."""


def config_of(label: str):
    """The config of a short run on classes, "label", or on numbers, "score"."""
    asked = tiny_dataset.config(**{"train.epochs": 1, "data.label": label})
    if label == "score":
        asked.losses.task.name, asked.train.selection_metric = "mse", "mae"
    asked.pretrain_unimodal = ("video",)
    return asked


@pytest.fixture(scope="module", params=in_ci(["label", "score"], "score"))
def workdir(request, tmp_path_factory):
    """The folder of a finished experiment, on classes and on numbers."""
    folder = tmp_path_factory.mktemp(request.param)
    experiment.train(resolve(config_of(request.param)), folder, "a test")
    return folder


def outcomes(path, read, use):
    """Reads every damaged version of a file; returns how many were refused, and all."""
    whole, refused, count = json.loads(path.read_text()), 0, 0
    for where, found in damaged(whole, FREE):
        path.write_text(json.dumps(found))
        count += 1
        try:
            result = read()
        except CheckpointError as error:
            assert str(path.name) in str(error), where
            assert len(str(error).splitlines()) == 2, where
            refused += 1
            continue
        try:
            use(result)
        except Exception as error:
            raise AssertionError(f"{where} is read, but not usable") from error
    path.write_text(json.dumps(whole))
    return refused, count


CALLS = itertools.count()


def shown(workdir, result: ExperimentResult) -> None:
    """Uses all fields of a result."""
    assert summary_lines(result)
    if next(CALLS) % PAGES == 0:
        write_report(workdir, result)


def test_a_damaged_result_is_refused_or_can_be_shown(workdir, tmp_path):
    path = tmp_path / "result.json"
    path.write_bytes((workdir / "result.json").read_bytes())
    read = lambda: read_json(path, ExperimentResult, "delete it")
    refused, count = outcomes(path, read, functools.partial(shown, workdir))
    assert count > 800 and refused > count / 2


def test_a_damaged_run_is_refused_or_can_be_used(workdir, tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes((workdir / "run.json").read_bytes())
    whole = read_result(workdir)
    assert whole is not None
    (run,) = whole.runs
    trainer = Trainer(resolve(config_of(whole.task.label)), tiny_dataset.tones())

    def read() -> ModelResult:
        result = read_run(tmp_path)
        assert result is not None
        trainer._check_result(result, path)  # pyright: ignore
        return result

    def use(result: ModelResult) -> None:
        fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result)}
        again = dataclasses.replace(run, **fields)
        shown(workdir, dataclasses.replace(whole, runs=[again]))

    refused, count = outcomes(path, read, use)
    assert count > 500 and refused > count / 2


def gradients() -> GradientsResult:
    module = ModuleGradients({"task": MeanStd(0.5, 0.1, 2)}, [[1.0]], [[0.0]])
    curvature = ModuleCurvature({"task": 4.0}, [[0.5]], {"task": None})
    return GradientsResult(
        config={"model": {"name": "mea"}},
        model="mea",
        data="digits",
        steps=[8],
        batches=2,
        terms={"task": LossTerm(1.5, 0.5)},
        modules={"all modules": module, "head": module},
        versions={"jax": "0.10.2"},
        curvature=dict.fromkeys(("all modules", "head"), curvature),
    )


def test_damaged_gradients_are_refused_or_can_be_shown(tmp_path):
    path = tmp_path / "gradients.json"
    write_json(path, gradients())
    read = lambda: read_json(path, GradientsResult, "delete it")
    assert read() == gradients()
    use = lambda result: write_page(tmp_path / "gradients.html", result)
    refused, count = outcomes(path, read, use)
    assert count > 100 and refused > count / 2


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"[" * 10**5, "nested too deeply"),
        (b"[]", "not a JSON object"),
        (b"NaN", "NaN is not valid JSON"),
        (b'{"steps": -1' + b"0" * 400 + b"}", r"the integer -10+\.\.\. is too large"),
        (b"{}", "format_version is missing"),
        (b'{"format_version": true}', "format_version is missing or not an integer"),
        (b'{"format_version": 2, "steps": "x"}', r"Expected `array`.*\$.steps"),
    ],
)
def test_a_corrupted_file_is_named_with_the_problem_and_the_fix(
    tmp_path, content, problem
):
    path = tmp_path / "gradients.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=problem) as info:
        read_json(path, GradientsResult, "delete it")
    assert f"K05] {path} is corrupted" in str(info.value)
    assert "fix: delete it" in str(info.value)


def test_a_file_of_another_version_is_not_called_corrupted(tmp_path):
    path = tmp_path / "gradients.json"
    write_json(path, gradients())
    found = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**found, "format_version": 7, "terms": 3}))
    with pytest.raises(CheckpointError, match=r"K06.*format_version=7.*reads 2"):
        read_json(path, GradientsResult, "delete it")


def test_a_file_that_cannot_be_read_is_one_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"K05.*cannot be read: Is a directory"):
        read_json(tmp_path, GradientsResult, "delete it")


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "gradients.json"
    write_json(path, gradients())
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, dataclasses.replace(gradients(), batches=3))
    assert path.read_bytes() == before


def full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_reader_of_the_old_file_is_not_disturbed(tmp_path):
    path = tmp_path / "gradients.json"
    write_json(path, gradients())
    before = path.read_text("utf-8")
    with path.open(encoding="utf-8") as file:
        write_json(path, dataclasses.replace(gradients(), batches=3))
        assert file.read() == before
    assert path.read_text("utf-8") != before
    assert [file.name for file in tmp_path.iterdir()] == ["gradients.json"]


def changed(value, path: str, new):
    """A copy of a JSON value with another value at a path such as "runs.0.step"."""
    value = copy.deepcopy(value)
    *above, last = path.split(".")
    level = value
    for word in above:
        level = level[int(word) if isinstance(level, list) else word]
    level[last] = new
    return value


@pytest.mark.parametrize(
    ("path", "new", "problem"),
    [
        ("runs", [], "runs: empty"),
        ("runs.0.step", 81, "step: not between 0 and steps"),
        ("runs.0.parameters.total", 31, "parameters: wrong total"),
        ("runs.0.last.scores", {"loss": 1.0}, "not the same scores"),
        ("runs.0.baseline.scores", {"other": 1.0}, "baseline: an unknown score"),
        ("runs.0.plot_data.confusion", [[1, 2], [3]], "not a square matrix"),
        ("runs.0.plot_data.confusion", [[1, -2], [3, 4]], "a negative count"),
        ("runs.0.plot_data.confusion", [[1]], "confusion does not fit the classes"),
        ("runs.0.plot_data.confusion", None, "confusion does not fit the classes"),
        ("runs.0.stages", {}, "runs: stages: 'audio' is missing or unknown"),
        ("selection_metric", "other", "selection_metric: not in metrics"),
        ("summary.test", {}, "summary.test: .* is missing or unknown"),
        ("summary.stages.audio.test", {}, "summary.stages.audio.test: "),
        ("baseline.scores", {"x": {"mean": 1, "std": 0, "n": 1}}, "not in metrics"),
        ("task.range", [0, 1], "task: range does not fit kind"),
        ("task.kind", "regression", "task: range does not fit kind"),
    ],
)
def test_values_that_do_not_fit_together_are_named(tmp_path, path, new, problem):
    file = tmp_path / "result.json"
    write_json(file, changed(sample_results.result(), path, new))
    with pytest.raises(CheckpointError, match=f"K05.*{problem}"):
        read_json(file, ExperimentResult, "delete it")


@pytest.mark.parametrize(
    ("pairs", "problem"),
    [([[1.0], []], "not of the same length"), ([[10**20], [1.0]], "too large")],
)
def test_pairs_of_a_regression_are_checked(tmp_path, pairs, problem):
    plot = {"pairs": dict(zip(("truth", "prediction"), pairs, strict=True))}
    write_json(tmp_path / "run.json", sample_results.entry(0.5) | {"plot_data": plot})
    with pytest.raises(CheckpointError, match=f"K05.*{problem}"):
        read_run(tmp_path)


def test_numbers_that_are_not_finite_are_null():
    term = LossTerm(float("nan"), float("inf"))
    assert as_read(term) == LossTerm(None, None)
    assert json.loads(dumps([term])) == [{"value": None, "weight": None}]


LINES = [
    MetricsLine(4, "train", 1.0, {"loss": 2.0, "grad_norm": float("nan")}),
    MetricsLine(4, "eval", 1.0, {"valid/loss": 1.5}),
    MetricsLine(8, "train", 2.0, {"loss": 1.0}),
]


@pytest.fixture
def log(tmp_path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(line.dumps() for line in LINES), "utf-8")
    return path


def test_lines_of_metrics_are_flat_rows_and_are_read_back(log):
    first = json.loads(log.read_text("utf-8").splitlines()[0])
    assert first == {
        "format_version": 2,
        "step": 4,
        "kind": "train",
        "epoch": 1.0,
        "loss": 2.0,
        "grad_norm": None,
    }
    assert read_metrics(log.parent) == [as_read(line) for line in LINES]
    assert read_metrics(log.parent / "nothing") == []


@pytest.mark.parametrize("length", range(1, 50, 7))
def test_a_last_line_that_a_kill_cut_off_is_left_out(log, length):
    log.write_bytes(log.read_bytes()[:-length])
    assert read_metrics(log.parent) == [as_read(line) for line in LINES[:2]]
    drop_lines_after(log.parent, step=8)
    assert log.read_text("utf-8") == "".join(line.dumps() for line in LINES[:2])


def test_lines_of_later_steps_are_dropped_when_a_run_resumes(log):
    drop_lines_after(log.parent, step=4)
    assert read_metrics(log.parent) == [as_read(line) for line in LINES[:2]]


@pytest.mark.parametrize(
    "line",
    [
        "x",
        "[]",
        "{}",
        '{"format_version": 2, "step": "4", "kind": "eval", "epoch": 1}',
        '{"format_version": 2, "step": 4, "kind": "test", "epoch": 1}',
        '{"format_version": 2, "step": 4, "kind": "eval", "epoch": 1, "loss": "nan"}',
    ],
)
def test_a_damaged_line_is_named(log, line):
    lines = log.read_text("utf-8").splitlines()
    lines[1] = line
    log.write_text("\n".join(lines) + "\n")
    with pytest.raises(CheckpointError, match=r"K05.*metrics.jsonl, line 2 is") as info:
        read_metrics(log.parent)
    assert "only the learning curves are lost" in info.value.fix
