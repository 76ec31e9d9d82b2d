"""Gradients of the loss terms during training: a record that changes nothing."""

import json
from pathlib import Path

import pytest
import tiny_dataset
from ml_collections import ConfigDict

from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import ConfigError, Interrupted
from mmfusion_jax.results.metrics_file import MetricsLine, read_metrics
from mmfusion_jax.runner import experiment
from mmfusion_jax.runner.trainer import Trainer
from mmfusion_jax.training.signals import GracefulShutdown

EVERY = 3
"""Not a divisor of the steps of an epoch, of which there are four."""


def asked(**changes) -> ConfigDict:
    """A model of two modalities with three loss terms, and an epoch of four steps."""
    made = tiny_dataset.config(**{"train.epochs": 3, "train.save_every": 5})
    made.model.name = "concat_fc"
    # Devices under pmap draw their own dropout.
    made.model.update(hidden_dims=(4,), dropout=0.0, hidden_dropout=0.0)
    made.model.encoders.audio = dict(name="feature_tokens", hidden_dim=4)
    for encoder in made.model.encoders.values():
        encoder.dropout = 0.0
    made.losses.contrast = dict(name="test_gradient_stats:Spread", weight=0.5)
    made.train.gradient_stats_every = EVERY
    made.update_from_flattened_dict(changes)
    return made


class Spread:
    """Predictions of all classes should be equal: it conflicts with the task."""

    def __call__(self, outputs, batch):
        y = outputs.prediction
        return ((y - y.mean(axis=-1, keepdims=True)) ** 2).mean(axis=-1)


def train(made: ConfigDict, workdir: Path):
    return experiment.train(resolve(made), workdir, "a test")


def records(folder: Path) -> list[MetricsLine]:
    return [line for line in read_metrics(folder) if line.kind == "gradients"]


def checkpoints(folder: Path) -> dict[str, dict]:
    """Step -> digests of its arrays."""
    return {
        path.parents[1].name: json.loads(path.read_bytes())["sha256"]
        for path in (folder / "checkpoints").glob("*/meta/metadata")
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("gradients")
    train(asked(), workdir)
    return workdir


def test_every_kth_step_is_recorded_and_the_parameters_are_the_same(finished, tmp_path):
    found = records(finished)
    assert [line.step for line in found] == [3, 6, 9, 12]
    assert [line.epoch for line in found] == [0.75, 1.5, 2.25, 3.0]
    for line in found:
        assert line.values["gradient_norm/encoders_audio/contrast"] > 0
        shares = [line.values[f"gradient_share/head/{k}"] for k in ("task", "contrast")]
        assert sum(shares) == pytest.approx(1)
        assert -1 <= line.values["gradient_cosine/all/contrast/task"] <= 1
    steps = [line.step for line in read_metrics(finished)]
    assert steps == sorted(steps)
    train(asked(**{"train.gradient_stats_every": 0}), tmp_path)
    assert records(tmp_path) == []
    assert checkpoints(tmp_path) == checkpoints(finished)


class AfterFourSteps(GracefulShutdown):
    """A signal that arrives during the fifth step."""

    steps = 0

    @property
    def signal(self) -> int | None:
        self.steps += 1
        return 15 if self.steps > 4 else None

    @signal.setter
    def signal(self, number: int | None) -> None:
        pass


def test_a_resumed_run_records_the_same(finished, tmp_path):
    with pytest.raises(Interrupted):
        experiment.train(resolve(asked()), tmp_path, "a test", AfterFourSteps())
    assert [line.step for line in records(tmp_path)] == [3]
    train(asked(), tmp_path)
    assert records(tmp_path) == records(finished)
    assert checkpoints(tmp_path)["12"] == checkpoints(finished)["12"]


@pytest.mark.ci
@pytest.mark.parametrize(
    "changes",
    [
        {"parallel": "pmap"},
        {"parallel": "shard_map"},
        {"seeds": 2, "train.parallel_seeds": "on"},
        {"data.folds": 2, "data.fold": "all"},
    ],
)
def test_every_executor_records_the_same(finished, tmp_path, changes):
    result = train(asked(**changes), tmp_path)
    for run in result.runs:
        lines = records(tmp_path / run.folder)
        assert [line.step for line in lines] == [3, 6, 9, 12]
    # The first run is that of the fixture.
    lines = records(tmp_path / result.runs[0].folder)
    for line, want in zip(lines, records(finished), strict=True):
        assert line.values == pytest.approx(want.values, rel=1e-3, abs=1e-4)


@pytest.mark.ci
def test_gradients_are_combined_as_the_config_names(tmp_path):
    found = {}
    for name in ("none", "pcgrad", "norm"):
        changes = {"optim.gradient_balance": name, "train.gradient_stats_every": 1}
        train(asked(**changes, **{"train.epochs": 1}), tmp_path / name)
        found[name] = (records(tmp_path / name), checkpoints(tmp_path / name))
    # The terms conflict, and the records are those of the gradients before.
    cosine = "gradient_conflict/all/contrast/task"
    assert any(line.values[cosine] for line in found["none"][0])
    assert all(found[name][0][0] == found["none"][0][0] for name in found)
    assert len({str(digests) for _, digests in found.values()}) == 3


def test_norms_relative_to_a_task_without_a_weight_are_refused():
    made = asked(**{"optim.gradient_balance": "norm", "losses.task.weight": 0.0})
    with pytest.raises(ConfigError, match="C10.*gradient_balance='norm'"):
        Trainer(resolve(made), tiny_dataset.tones())
