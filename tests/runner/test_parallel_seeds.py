"""All seeds of a fold at once: the results of single runs, resumed bit for bit."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_dataset
from groups import in_ci
from ml_collections import ConfigDict
from tiny_dataset import config

from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import ConfigError, Interrupted
from mmfusion_jax.results.metrics_file import read_metrics
from mmfusion_jax.runner import experiment, parallel_seeds
from mmfusion_jax.runner.trainer import Trainer
from mmfusion_jax.training.signals import GracefulShutdown

SEEDS = (1234, 1235, 1236)


def asked(kind: str = "tokens", **changes) -> ConfigDict:
    """Three seeds of a run with augmentation; they stop early, at different epochs."""
    made = config(
        **{
            "seeds": 3,
            "train.parallel_seeds": "on",
            "train.patience": 2,
            "train.epochs": 8,
            "data.modality_dropout": {"video": 0.2},
            "optim.reduce_on_plateau.patience": 1,
        }
    )
    made.model.encoders.audio = dict(name="feature_tokens", hidden_dim=8)
    made.model.name = kind
    if kind == "cfn_sr":
        made.model.update(hidden_dim=8, num_layers=1, num_heads=2)
        made.pretrain_unimodal = ("video",)
    made.update_from_flattened_dict(changes)
    return made


def train(made: ConfigDict, workdir: Path, shutdown: GracefulShutdown | None = None):
    return experiment.train(resolve(made), workdir, "a test", shutdown)


@pytest.fixture(
    scope="module", params=in_ci(["late_fusion", "cfn_sr"], slow=["cfn_sr"])
)
def finished(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp(f"at_once_{request.param}")
    made = asked(request.param)
    return made, workdir, train(made, workdir)


def checkpoints(folder: Path) -> dict[str, dict]:
    """Step -> digests of its arrays."""
    return {
        path.parents[1].name: json.loads(path.read_bytes())["sha256"]
        for path in (folder / "checkpoints").glob("*/meta/metadata")
    }


def test_every_seed_has_the_result_of_a_single_run(finished, tmp_path):
    made, workdir, result = finished
    for run, seed in zip(result.runs, SEEDS, strict=True):
        single = made.copy_and_resolve_references()
        single.seed, single.seeds = seed, 1
        (want,) = train(single, tmp_path / str(seed)).runs
        assert (run.step, run.steps, run.ended) == (want.step, want.steps, want.ended)
        for name, split in (("test", want.test), ("last", want.last)):
            got = getattr(run, name).scores
            assert got == pytest.approx(split.scores, rel=1e-4, abs=1e-5)
        assert run.stages.keys() == want.stages.keys()
        folder = workdir / run.folder
        lines, others = read_metrics(folder), read_metrics(tmp_path / str(seed))
        assert [line.step for line in lines] == [line.step for line in others]
        losses = [
            [x.values.get("loss") for x in y if x.kind == "train"]
            for y in (lines, others)
        ]
        np.testing.assert_allclose(*losses, rtol=1e-4)
        assert checkpoints(folder).keys() == checkpoints(tmp_path / str(seed)).keys()
    if made.model.name == "late_fusion":
        assert len({run.steps for run in result.runs}) > 1, "all stop at one epoch"


def test_a_group_resumes_bit_for_bit(finished, tmp_path):
    made, workdir, result = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "result.json").unlink()
    for number, run in enumerate(result.runs):
        folder = copy / run.folder
        (folder / "run.json").unlink()
        if number == 1:  # as if it had been killed after the last save of another seed
            saved = sorted(map(int, checkpoints(folder)))
            shutil.rmtree(folder / "checkpoints" / str(saved[-1]))
    again = train(made, copy)
    for run, other in zip(result.runs, again.runs, strict=True):
        assert run.test == other.test and run.step == other.step
        assert checkpoints(workdir / run.folder) == checkpoints(copy / run.folder)


def test_a_signal_saves_all_seeds_and_the_group_resumes(tmp_path, finished):
    made, workdir, result = finished
    shutdown = GracefulShutdown()
    shutdown.signal = 15
    with pytest.raises(Interrupted):
        train(made, tmp_path, shutdown)
    train(made, tmp_path)
    for run in result.runs:
        assert checkpoints(workdir / run.folder) == checkpoints(tmp_path / run.folder)


def test_a_work_folder_is_evaluated_and_gets_more_seeds(finished, tmp_path):
    made, workdir, result = finished
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    for found, run in zip(
        experiment.evaluate(resolve(made), copy), result.runs, strict=True
    ):
        assert found.step == run.step
        assert found.splits["test"].scores == pytest.approx(run.test.scores, rel=1e-4)
    more = made.copy_and_resolve_references()
    more.seeds, more.train.parallel_seeds = 4, "off"
    grown = train(more, copy)
    assert grown.runs[:3] == result.runs and grown.runs[3].seed == 1237


@pytest.mark.parametrize(
    ("mode", "platform", "gib", "macs", "epochs", "printed"),
    [
        ("off", "gpu", 80.0, 1, 500, ""),
        ("on", "cpu", 1e-6, 10**9, 1, "5 seeds at once: parallel_seeds=on"),
        ("auto", "gpu", 80.0, 10**9, 1, "5 seeds at once: about 0.00 of 80.0 GiB"),
        ("auto", "gpu", 1e-6, 1, 500, "5 seeds in turn: at once they need about 0.00"),
        ("auto", "cpu", 80.0, 10**7, 500, "5 seeds in turn: 80 million MACs per batch"),
        ("auto", "cpu", 80.0, 10**3, 499, "5 seeds in turn: 1996 steps, on CPU too"),
        ("auto", "cpu", 80.0, 10**3, 500, "5 seeds at once: about"),
        ("auto", "cpu", 1e-6, 10**3, 500, "5 seeds in turn: at once they need"),
    ],
)
def test_what_trains_at_once(
    monkeypatch, capfd, mode, platform, gib, macs, epochs, printed
):
    made = config(**{"seeds": 5, "train.parallel_seeds": mode, "train.epochs": epochs})
    trainer = Trainer(resolve(made), tiny_dataset.tones())
    trainer.macs_per_example = macs
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(parallel_seeds, "device_memory", lambda: int(gib * 2**30))
    at_once = parallel_seeds.trains_at_once(trainer, 5)
    assert at_once == ("at once: " in printed)
    line = capfd.readouterr().err
    assert line.startswith(printed) and len(line.splitlines()) == (mode != "off")


def test_several_processes_train_in_turn(monkeypatch):
    trainer = lambda mode: Trainer(
        resolve(config(**{"train.parallel_seeds": mode})), tiny_dataset.tones()
    )
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        Trainer, "__init__", lambda self, spec, data: setattr(self, "spec", spec)
    )
    assert not parallel_seeds.trains_at_once(trainer("auto"), 5)
    with pytest.raises(ConfigError, match="C10.*one process, not 2"):
        parallel_seeds.trains_at_once(trainer("on"), 5)


def test_the_memory_of_a_step_is_estimated():
    """By hand: 3 states, and what the backward pass reads of one linear layer."""
    trainer = Trainer(resolve(config()), tiny_dataset.tones())
    large = Trainer(resolve(config(**{"data.batch_size": 16})), tiny_dataset.tones())
    state = sum(
        x.size * x.dtype.itemsize
        for x in jax.tree.leaves(trainer.programs.abstract_state)
    )
    estimates = [parallel_seeds.estimate_memory(x) for x in (trainer, large)]
    saved = [(estimate - 3 * state) / 2 for estimate in estimates]
    assert 8 * 6 * 4 <= saved[0] < 1e5  # the input at least
    assert 1.2 < saved[1] / saved[0] <= 2
