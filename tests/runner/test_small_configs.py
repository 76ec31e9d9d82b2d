"""Whole runs of all five papers: broken off and resumed, guarded, reported."""

import dataclasses
import signal
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small_configs
from save_trials import fingerprint
from tiny_dataset import spoilt

from mmfusion_jax.config import build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.config.spec import ExperimentSpec
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.registry import DATASETS
from mmfusion_jax.errors import DivergedError, Interrupted
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.runner import experiment
from mmfusion_jax.runner.trainer import Trainer
from mmfusion_jax.runner.workdir import RunKey
from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.signals import GracefulShutdown
from mmfusion_jax.types import WEIGHT_PREFIX

STEPS = 6
CHANGES = {
    "data.batch_size": 4,
    "data.missing_rate": 0.3,
    "train.epochs": 2,
    "train.patience": 0,
    "train.log_every": 1,
    "train.diagnosis": True,
    "pretrain_unimodal": (),
}
MARKS = {
    "cfn_sr": [pytest.mark.ci, pytest.mark.versions],
    # They compile for minutes; what saves and resumes a run is the same for all.
    "mcl_mcf": [pytest.mark.slow],
    "mea": [pytest.mark.slow],
    "of_cmaer_cat": [pytest.mark.slow],
}
"""Config -> groups of its tests; a new paper is in `ci`."""

SECTIONS = (
    "Fusion vs. unimodal", "Checkpoint selection (validation vs. test)",
    "Learning curves", "Confusion matrix", "All metrics", "Parameters",
    "Runs and time", "Dataset", "Reproduce",
)  # fmt: skip


class InStepFour(GracefulShutdown):
    """A signal that comes in the fourth step; the loop asks once in each."""

    def __init__(self):
        self.asked = 0

    @property
    def signal(self) -> int | None:
        self.asked += 1
        return signal.SIGTERM if self.asked >= 4 else None


@dataclasses.dataclass
class Paper:
    """A config and its model, compiled once for all tests.

    Attributes:
        whole: the folder of a run that nobody disturbed.
        result: of that run.
    """

    config: ExperimentSpec
    data: Dataset
    run: Trainer
    whole: Path
    result: dict[str, Any]

    def last(self, folder: Path):
        """The newest state that is saved."""
        with CheckpointManager(
            folder / "checkpoints", log=print, read_only=True
        ) as saved:
            found = saved.restore_latest(self.run.programs.init(0))
        assert found
        return found[0]


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "digits", "small_configs:digits")
        yield patch


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=MARKS.get(name, [pytest.mark.ci]))
        for name in small_configs.SMALL
    ],
)
def paper(request, patch, tmp_path_factory):
    config = resolve(small_configs.small(request.param, **CHANGES))
    data = build_data.build_dataset(config, 0)
    run = Trainer(config, data)
    patch.setattr(experiment, "Trainer", lambda config, data: run)
    whole = tmp_path_factory.mktemp("whole")
    return Paper(config, data, run, whole, experiment.train(config, whole, "a test"))


def scalars(folder: Path) -> list[dict[str, Any]]:
    """What was written down of every step but how fast it was."""
    lines = [dataclasses.asdict(line) for line in read_metrics(folder)]
    for line in lines:
        line["values"].pop("examples_per_s", None)
    return lines


def test_a_run_that_is_resumed_ends_as_one_that_was_not(paper, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "GracefulShutdown", InStepFour)
        with pytest.raises(Interrupted, match="step 4"):
            experiment.train(paper.config, tmp_path, "a test")
    assert int(paper.last(tmp_path).step) == 4
    result = experiment.train(paper.config, tmp_path, "a test")
    (run,), (want,) = result.runs, paper.result.runs
    assert run.steps == STEPS
    measured = {"times": want.times, "peak_memory": want.peak_memory}
    assert dataclasses.replace(run, **measured) == want
    assert scalars(tmp_path) == scalars(paper.whole)
    assert len(scalars(tmp_path)) == STEPS + 2
    states = paper.last(tmp_path), paper.last(paper.whole)
    assert fingerprint(states[0]) == fingerprint(states[1])


def test_a_step_that_is_not_finite_is_left_out_and_counted(paper):
    run = paper.run
    state = run.programs.init(0)
    before = jax.device_get((state.params, state.stats, state.opt_state))
    reader = build_data.build_pipeline(paper.config, paper.data, 0)
    good = next(reader.train(0, 1))
    sound = good.inputs["audio"] * np.float32(np.nan)
    bad = good.replace(inputs={**good.inputs, "audio": sound})
    put = lambda batch: run.components.executor.put(batch, train=True)
    state, metrics = run.programs.train_step(state, put(bad))
    assert metrics["nonfinite/input/audio"] and metrics["nonfinite/loss/task"]
    assert jax.device_get(state.skipped_steps) == {"consecutive": 1, "total": 1}
    kept = jax.device_get((state.params, state.stats, state.opt_state))
    assert fingerprint(kept) == fingerprint(before)
    state, metrics = run.programs.train_step(state, put(good))
    assert np.isfinite(metrics["loss"])
    assert jax.device_get(state.skipped_steps) == {"consecutive": 0, "total": 1}
    assert fingerprint(jax.device_get(state.params)) != fingerprint(before[0])


def test_too_many_such_steps_end_the_run(paper, tmp_path, capfd):
    broken = dataclasses.replace(paper.data, augment=spoilt)
    key = RunKey(0, paper.config.seed, "")
    identity = experiment.Experiment(paper.config, tmp_path).identity(key, broken)
    with pytest.raises(DivergedError, match=r"3 consecutive steps"):
        paper.run.train(broken, identity, tmp_path, "a test", GracefulShutdown())
    assert "input/audio" in capfd.readouterr().err
    assert int(paper.last(tmp_path).skipped_steps["total"]) == 3


def test_the_screen_shows_what_a_blind_answer_scores(paper, capfd):
    experiment.train(paper.config, paper.whole, "a test")
    shown = capfd.readouterr().err
    select = paper.config.training.selection_metric
    assert f"test {select} on " in shown and "test accuracy on " in shown
    assert shown.count("  majority class: ") == 1
    name = paper.config.model.model.name
    assert shown.count(f"  {name} ") == 1 + (select != "accuracy")


def test_the_report_has_all_sections(paper):
    config = paper.config
    state, run = paper.run.programs.init(0), paper.run
    batch = build_data.build_pipeline(config, paper.data, 0).dummy_batch()
    answer = lambda b: run.components.model.apply(state.variables, b, train=False)
    aux = jax.eval_shape(answer, batch).aux
    weighs = any(name.startswith(WEIGHT_PREFIX) for name in aux)
    page = (paper.whole / "report.html").read_text("utf-8")
    for section in SECTIONS:
        assert f"<h2>{section}</h2>" in page, section
    summary = paper.result.summary.test
    assert ("mis" in summary) == (config.integration is not None)
    assert ("Multimodal Integration Score" in page) == ("mis" in summary)
    shares = paper.result.summary.modality_weights
    assert set(shares) == (set(config.model.modalities) if weighs else set())
    assert ("it is not what a modality contributes" in page) == weighs
    if weighs:
        assert sum(s.mean for s in shares.values()) == pytest.approx(1)
    assert all(np.isfinite(score.mean) for score in summary.values())


def test_every_run_is_diagnosed(paper):
    """Encoders, what the model makes of them, every term, and every modality."""
    (run,) = paper.result.runs
    found, modalities = run.diagnosis, paper.config.model.modalities
    assert found is not None
    assert found.streams.keys() >= set(modalities)
    assert all(0 <= fraction <= 1 for fraction in found.streams.values())
    terms = paper.config.losses
    assert list(found.terms) == (list(terms) if len(terms) > 1 else [])
    if len(terms) > 1:
        assert found.terms["task"].gradient == pytest.approx(1)
    for name, loss in terms.items():
        contrastive = loss.term.name in ("info_nce", "modality_contrast")
        if len(terms) > 1:
            assert (found.terms[name].chance is not None) == contrastive
        lines = [line for line in scalars(paper.whole) if line["kind"] == "train"]
        assert (f"loss/{name}/chance" in lines[0]["values"]) == contrastive
    assert set(found.without) == set(modalities)
    names = run.test.scores.keys()
    assert all(scores.keys() == names for scores in found.without.values())
    # The modality is masked, and nothing else: the scores differ from those with it.
    assert any(scores != run.test.scores for scores in found.without.values())
