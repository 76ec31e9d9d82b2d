"""Work folders know their data and config, have one writer, and keep checkpoints."""

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny_dataset
from groups import in_ci
from tiny_dataset import config

from mmfusion_jax.commands import loss_gradients
from mmfusion_jax.commands.compare import compare_runs
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.data.pipeline import Pipeline
from mmfusion_jax.errors import CheckpointError, ConfigError, MissingDependencyError
from mmfusion_jax.inference.predictor import load
from mmfusion_jax.results.config_file import read_config
from mmfusion_jax.results.model_result import DeviceSpan, read_run
from mmfusion_jax.results.predictions_file import read_predictions
from mmfusion_jax.results.predictor_file import read_predictor
from mmfusion_jax.results.run_identity import (
    config_differences,
    config_sha256,
    sha256_json,
)
from mmfusion_jax.runner import experiment, trainer
from mmfusion_jax.runner.predictor import outline_of
from mmfusion_jax.runner.trainer import Trainer
from mmfusion_jax.runner.workdir import unusable
from mmfusion_jax.runner.workdir_lock import HOLDER_FILE, LOCK_FILE, locked
from mmfusion_jax.training.checkpoint.manager import CheckpointManager
from mmfusion_jax.training.checkpoint.storage import CheckpointStorage
from mmfusion_jax.training.parallelism import Executor


def train(workdir: Path, **changes):
    return experiment.train(resolve(config(**changes)), workdir, "a test")


def evaluate(workdir: Path, **changes):
    return experiment.evaluate(resolve(config(**changes)), workdir)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, and its result."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return workdir, train(workdir)


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    return shutil.copytree(finished[0], tmp_path / "copy")


def steps(workdir: Path) -> list[int]:
    """The steps on disk."""
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*"))


def interrupt(workdir: Path, keep: int = 8) -> None:
    """Removes the results and the newest checkpoints, as if a kill had come before."""
    for name in ("result.json", "run.json", "predictions.json"):
        (workdir / name).unlink()
    for step in steps(workdir):
        if step > keep:
            shutil.rmtree(workdir / "checkpoints" / str(step))


def louder(monkeypatch) -> None:
    """Changes one value of one test example."""
    read = tiny_dataset.Tones.__getitem__

    def changed(self, index):
        example = read(self, index)
        if self.seed == 1 and index == 4:
            example["inputs"]["video"][0, 0] += 1
        return example

    monkeypatch.setattr(tiny_dataset.Tones, "__getitem__", changed)


def renamed(monkeypatch) -> None:
    """Changes the name of a class, and no label."""
    monkeypatch.setattr(tiny_dataset, "CLASSES", ("low", "middle", "loud"))


CHANGES = {
    louder: "content of split 'test'",
    renamed: "classes of label 'label': class 2 is 'high', now 'loud'",
}
USES = {
    "again": train,
    "resumed": train,
    "seeds added": lambda workdir: train(workdir, seeds=2),
    "evaluated": evaluate,
    "gradients": lambda workdir: loss_gradients.compute(resolve(config()), workdir, 1),
}


@pytest.mark.parametrize("change", in_ci(CHANGES, renamed))
@pytest.mark.parametrize("use", in_ci(USES, "again", "evaluated"))
def test_other_data_are_refused(copy, monkeypatch, use, change):
    if use == "resumed":
        interrupt(copy, keep=16)
    before = steps(copy)
    change(monkeypatch)
    with pytest.raises(CheckpointError, match=f"K07.*: {CHANGES[change]}\\.\n"):
        USES[use](copy)
    assert steps(copy) == before
    monkeypatch.undo()  # nothing was changed, the recorded number of seeds included
    assert train(copy).runs


@pytest.mark.ci
def test_runs_of_other_data_are_not_compared(finished, tmp_path, monkeypatch):
    other = tmp_path / "other"
    with monkeypatch.context() as patch:
        louder(patch)
        train(other, **{"train.epochs": 1})
    with pytest.raises(
        ConfigError, match="C38.*the data differ; content of split 'test'"
    ):
        compare_runs([str(finished[0]), str(other)])


@pytest.mark.ci
def test_a_result_of_another_folder_is_refused(copy, tmp_path):
    other = tmp_path / "other"
    train(other, **{"train.epochs": 1})
    shutil.copy(other / "run.json", copy / "run.json")
    match = r"C09.*run.json has config_sha256=.* but this run has"
    with pytest.raises(ConfigError, match=match):
        compare_runs([str(copy), str(other)])
    (copy / "result.json").unlink()
    with pytest.raises(ConfigError, match=match):
        train(copy)
    shutil.copy(other / "result.json", copy / "result.json")
    with pytest.raises(ConfigError, match=r"result.json.*train.epochs=1.*has 4"):
        train(copy)


@pytest.mark.ci
@pytest.mark.parametrize("kept", ["checkpoints", "result.json"])
def test_without_config_json_the_other_files_decide(copy, kept):
    interrupt(copy) if kept == "checkpoints" else shutil.rmtree(copy / "checkpoints")
    (copy / "config.json").unlink()
    with pytest.raises(
        ConfigError, match="C09.*learning_rate=0.01, but this run has 1"
    ):
        train(copy, **{"optim.learning_rate": 1.0})
    with pytest.raises(ConfigError, match="C09.*seed=1234, but this run has 5"):
        evaluate(copy, seed=5)
    assert train(copy).runs[0].seed == 1234
    if kept == "checkpoints":
        assert read_config(copy) is not None


@pytest.mark.ci
def test_checkpoints_of_another_seed_or_version_are_refused(copy, finished):
    train(copy, seeds=2)
    folder = copy / "fold_0" / "seed_1235" / "checkpoints"
    shutil.rmtree(folder)
    shutil.copytree(copy / "checkpoints", folder)
    for name in ("result.json", "fold_0/seed_1235/run.json"):
        (copy / name).unlink()
    with pytest.raises(ConfigError, match="C09.*seed=1234, but this run has 1235"):
        train(copy, seeds=2)
    shutil.rmtree(folder)
    with CheckpointManager(folder, log=print) as older:  # without an identity
        older.save(4, {"x": np.ones(2)}, {"progress": {}}, wait=True)
    with pytest.raises(CheckpointError, match="K06.*step 4 does not record its data"):
        train(copy, seeds=2)


@pytest.mark.ci
def test_a_second_writer_is_told_who_writes(copy, finished):
    script = (
        "import sys, time; from pathlib import Path\n"
        "from mmfusion_jax.runner.workdir_lock import locked\n"
        "with locked(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    interrupt(copy)
    before = steps(copy)
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(copy)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout and other.stdout.readline() == "locked\n"
        with pytest.raises(
            CheckpointError, match=f"K08.*process {other.pid} on"
        ) as info:
            train(copy)
        since = json.loads((copy / HOLDER_FILE).read_text())["since"]
        assert since in str(info.value) and steps(copy) == before
        assert evaluate(copy)[0].splits  # reading requires no lock
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert train(copy).runs[0].test == finished[1].runs[0].test
    with locked(copy), pytest.raises(CheckpointError, match="K08"), locked(copy):
        pass
    assert (copy / LOCK_FILE).exists()


def test_a_finished_folder_is_read_without_a_lock(copy, finished):
    with locked(copy):
        assert train(copy) == finished[1]


def refuse(monkeypatch, *refused: int) -> None:
    """Lets the saves of some steps fail."""
    write = CheckpointStorage.write

    def full(self, step, *rest):
        if step in refused:
            self.fault = step, "No space left on device"
            return False
        return write(self, step, *rest)

    monkeypatch.setattr(CheckpointStorage, "write", full)


RISING = {"seed": 4, "train.epochs": 6}
"""Accuracy on validation: .11, .33, .67, .89, 1, 1; step 20 is selected."""


@pytest.fixture(scope="module")
def rising(tmp_path_factory):
    """A run whose scores rise until the last step but one, and its result."""
    workdir = tmp_path_factory.mktemp("rising") / "run"
    (run,) = train(workdir, **RISING).runs
    assert (run.step, run.steps) == (20, 24)
    return workdir, run


@pytest.mark.ci
@pytest.mark.parametrize("failed", [4, 20])
def test_a_run_ends_when_its_best_step_is_lost(tmp_path, rising, monkeypatch, failed):
    with monkeypatch.context() as patch:
        refuse(patch, failed)
        if failed == 4:  # a later step is better
            assert train(tmp_path, **RISING).runs[0].test == rising[1].test
            return
        with pytest.raises(
            CheckpointError, match=r"K03.*step 20.*disk: 12, 16\."
        ) as info:
            train(tmp_path, **RISING)
    assert "it resumes from step 16" in info.value.fix
    assert read_run(tmp_path) is None and steps(tmp_path) == [12, 16]
    (run,) = train(tmp_path, **RISING).runs
    assert (run.step, run.test) == (20, rising[1].test)


@pytest.mark.ci
def test_a_last_step_that_cannot_be_saved_is_not_a_result(tmp_path, monkeypatch):
    options = {"data.valid": False, "train.epochs": 2}
    with monkeypatch.context() as patch:
        refuse(patch, 8)
        with pytest.raises(CheckpointError, match=r"K03.*step 8, .*on disk: 4\."):
            train(tmp_path, **options)
    assert read_run(tmp_path) is None
    assert train(tmp_path, **options).runs[0].step == 8


@pytest.mark.ci
def test_a_missing_best_step_is_trained_again(rising, tmp_path, capfd):
    folder = shutil.copytree(rising[0], tmp_path / "copy")
    with CheckpointManager(folder / "checkpoints", log=print) as checkpoints:
        assert checkpoints.steps == [20, 24]
    shutil.rmtree(folder / "checkpoints" / "20")
    with pytest.raises(CheckpointError, match="K01.*is of step 20, but .* step 24"):
        evaluate(folder, **RISING)
    with pytest.raises(CheckpointError, match="K01.*is of step 20, but .* step 24"):
        load(folder, packages=("tiny_dataset",))
    interrupt(folder, keep=24)
    with pytest.raises(CheckpointError, match="K01.*step 20, the best one of .* 24"):
        train(folder, **RISING)
    # With an earlier step, training resumes from it.
    other = tmp_path / "other"
    train(other, **{**RISING, "train.epochs": 4})
    edit_epochs(other)
    for step in (12, 16):
        source = other / "checkpoints" / str(step)
        shutil.copytree(source, folder / "checkpoints" / str(step))
    (run,) = train(folder, **RISING).runs
    assert (run.step, run.test) == (20, rising[1].test)
    assert "missing: resuming from step 16, deleting later" in capfd.readouterr().err


def edit_epochs(workdir: Path) -> None:
    """Makes the checkpoints of a shorter run those of one with six epochs."""
    for path in workdir.glob("checkpoints/*/meta/metadata"):
        record = json.loads(path.read_text())
        del record["record_sha256"]
        record["meta"]["config"]["train"]["epochs"] = 6
        sha256 = config_sha256(record["meta"]["config"])
        record["meta"]["run"]["config_sha256"] = sha256
        record["record_sha256"] = sha256_json(record)
        path.write_text(json.dumps(record))


def test_a_run_without_its_checkpoints_does_not_start_again(copy):
    interrupt(copy, keep=0)
    with pytest.raises(CheckpointError, match="K01.*step 16 was saved, but") as info:
        train(copy)
    assert f"delete {copy}" in info.value.fix
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(CheckpointError, match="K01.*step 16 was saved, but"):
        train(copy)


@pytest.mark.ci
def test_other_devices_are_recorded(copy, monkeypatch, capfd):
    interrupt(copy, keep=12)
    span = DeviceSpan(0, jax.devices()[0].device_kind, 2)
    assert read_run(copy) is None
    monkeypatch.setattr(Executor, "count", property(lambda self: 2))
    monkeypatch.setattr(trainer.jax, "device_count", lambda: 8)
    (run,) = train(copy).runs
    assert run.devices == [span, DeviceSpan(12, span.kind, 8)]
    said = capfd.readouterr().err
    assert f"resuming on 8 x {span.kind}; step 0 to 12 were trained on 2 x" in said


@pytest.mark.ci
def test_a_begun_run_is_not_advised_another_batch_size(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(Executor, "count", property(lambda self: 3))
    with pytest.raises(ConfigError, match="C05") as info:
        train(tmp_path / "new")
    assert "--config.data.batch_size=6" in info.value.fix
    (copy / "result.json").unlink()
    for use in (train, evaluate):
        with pytest.raises(ConfigError, match="C05.*3 devices") as info:
            use(copy)
        assert "batch_size=6" not in info.value.fix and "workdir" in info.value.fix


def test_a_field_that_an_earlier_version_did_not_have_is_at_its_earlier_value():
    new = resolve(config()).source
    old = json.loads(json.dumps(new))
    del old["optim"]["gradient_balance"], old["train"]["gradient_stats_every"]
    del old["matmul_precision"]
    assert config_sha256(old) == config_sha256(new)
    assert config_differences(old, new) == {}
    changed = resolve(config(**{"optim.gradient_balance": "pcgrad"})).source
    assert config_sha256(old) != config_sha256(changed)
    assert config_differences(old, changed) == {
        "optim.gradient_balance": ("none", "pcgrad")
    }


def test_paths_that_cannot_be_workdirs(tmp_path, monkeypatch):
    file, loop, broken = (tmp_path / name for name in ("file", "loop", "broken"))
    file.write_text("x")
    loop.symlink_to(loop)
    broken.symlink_to(tmp_path / "nowhere")
    for path, problem in {
        file: "it is a file, not a folder",
        file / "x": f"{file} is a file, not a folder",
        loop: "it is a symbolic link to itself",
        broken: "it is a broken symbolic link",
        Path("/dev/null"): "it is a device, not a folder",
        Path("/dev/null/x"): "/dev/null is a device, not a folder",
        Path("/proc/x"): "it cannot be created there",
        tmp_path / ("n" * 300): "its name is too long",
    }.items():
        for use in (train, evaluate):
            if use is evaluate and path == Path("/proc/x"):
                continue  # there is nothing to evaluate
            with pytest.raises(MissingDependencyError, match="E06.*cannot be") as info:
                use(path)
            assert problem in str(info.value) and info.value.fix
            assert str(path)[:50] in str(info.value)
    for number in (errno.EROFS, errno.EACCES, errno.ENOSPC):
        assert "E06" in str(unusable(tmp_path, OSError(number, "x")))


@pytest.mark.ci
def test_a_model_is_used_without_its_data(copy, finished, monkeypatch):
    monkeypatch.setattr(tiny_dataset, "tones", lambda **_: pytest.fail("data read"))
    info = read_predictor(copy)
    want = read_predictions(copy)
    (run,) = finished[1].runs
    assert info is not None and want is not None
    assert info.identity == run.identity and info.task.classes == [
        "low",
        "middle",
        "high",
    ]
    spec = resolve(config())
    made = Trainer(spec, outline_of(info))
    state = made.best_state(copy)
    test = {"train": tiny_dataset.Tones(1, 0), "test": tiny_dataset.Tones(9, 1)}
    data = outline_of(info)
    pipeline = Pipeline(
        type(data)(data.name, data.title, test, data.classes), batch_size=8
    )
    variables = {**state.variables, "prior": np.array(info.prior, np.float32)}
    batch = next(made.eval_batches(pipeline, "test"))
    outputs = made.components.model.apply(
        {name: x for name, x in variables.items() if name != "prior"},
        batch,
        train=False,
    )
    np.testing.assert_allclose(outputs.prediction, want.prediction[:8], rtol=1e-5)
    assert info.prior == pytest.approx([np.log(1 / 3)] * 3)
