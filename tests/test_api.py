"""Training and evaluation from Python do what the commands do."""

import dataclasses
import signal
import sys
import threading
from pathlib import Path

import pytest
from tiny_dataset import config

import mmfusion_jax as mmf
from mmfusion_jax.api import evaluate, train
from mmfusion_jax.cli.command import run_command
from mmfusion_jax.errors import CheckpointError, ConfigError, DivergedError, Interrupted
from mmfusion_jax.main import COMMAND
from mmfusion_jax.results.experiment_result import read_result
from mmfusion_jax.training.signals import GracefulShutdown

SHORT = {"train.epochs": 2, "optim.learning_rate": 0.02}


@pytest.fixture
def config_file(tmp_path, monkeypatch):
    """The name of a config file in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.py").write_text(
        "import tiny_dataset\n\n\ndef get_config(label='label'):\n"
        "    return tiny_dataset.config(**{'data.label': label})\n"
    )
    return "tiny.py"


def test_a_string_trains_as_the_command_does(config_file, tmp_path, capfd):
    result = train(config_file, "runs/a", SHORT)
    words = [f"--config.{name}={value}" for name, value in SHORT.items()]
    assert run_command(COMMAND, [f"--config={config_file}", *words]) == 0
    other = read_result(tmp_path / "runs" / "tiny")
    assert other is not None
    same = ("summary", "config", "metrics", "baseline", "data", "protocol")
    for name in same:
        assert getattr(result, name) == getattr(other, name), name
    assert read_result(tmp_path / "runs" / "a") == result
    assert result.command == (
        "python -m mmfusion_jax.main --config=tiny.py --config.train.epochs=2 "
        "--config.optim.learning_rate=0.02 --workdir=runs/a"
    )
    assert "epoch 2, step 8/8" in capfd.readouterr().err
    (run,) = evaluate(config_file, "runs/a", SHORT)
    assert run.splits["test"].scores == pytest.approx(result.runs[0].test.scores)


def test_a_result_prints_as_the_final_table(config_file, capfd):
    result = train(config_file, "runs/a", SHORT)
    assert str(result) == repr(result)
    lines = str(result).splitlines()
    assert lines[0] == "test accuracy on tones (made up), protocol validation, n = 9:"
    assert lines[1].startswith("  majority class: “low” 0.333")
    assert all(line in capfd.readouterr().err for line in lines[:1])


def test_a_config_is_trained_and_stays_as_it_is(tmp_path):
    asked = config(**{"train.epochs": 1})
    before = asked.to_json()
    result = train(asked, tmp_path / "run", {"seeds": 2})
    assert asked.to_json() == before
    assert len(result.runs) == 2 and result.config["train"]["epochs"] == 1
    assert result.command.startswith("mmfusion_jax.train(config, workdir=")


def test_it_reads_no_command_line_and_does_not_exit(config_file, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["python", "--config=nothing", "--mode=x"])
    with pytest.raises(ConfigError, match="C02.*has no 'epoch' in config.train"):
        train(config_file, "runs/a", {"train.epoch": 2})
    with pytest.raises(ConfigError, match="C11"):
        train(config_file, "runs/a", {"train.epochs": "many"})
    with pytest.raises(ConfigError, match="C04.*does not exist"):
        train("no_such_config")
    with pytest.raises(ConfigError, match="C01.*workdir is required"):
        train(config())
    with pytest.raises(ConfigError, match="C01.*type int, not a string"):
        train(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(CheckpointError, match="K01"):
        evaluate(config_file, "runs/empty")


def test_scores_that_are_not_defined_are_an_error(tmp_path):
    asked = config(**{"train.epochs": 1, "data.endless": (3, 7)})
    with pytest.raises(DivergedError, match=r"N02.*2 of 9"):
        train(asked, tmp_path)
    assert read_result(tmp_path) is not None, "it is written first"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"workdir": 3}, "workdir=3 is an object of type int, not a path"),
        ({"overrides": ["train.epochs=1"]}, "not a mapping"),
        ({"overrides": {"config.train.epochs": 1}}, "'train.epochs'"),
    ],
)
def test_wrong_arguments_are_one_error(arguments, words, tmp_path):
    arguments = {"workdir": tmp_path, **arguments}
    for call in (mmf.train, mmf.evaluate):
        with pytest.raises(mmf.ConfigError, match=words):
            call("cfn_sr", **arguments)


def test_ctrl_c_saves_and_raises(tmp_path, monkeypatch):
    asked = config(**{"train.epochs": 3})

    class Early(GracefulShutdown):
        def __enter__(self):
            super().__enter__()
            signal.raise_signal(signal.SIGINT)
            return self

    monkeypatch.setattr("mmfusion_jax.api.GracefulShutdown", Early)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="step 1"):
        train(asked, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    monkeypatch.undo()
    assert train(asked, tmp_path).runs[0].steps == 12


def test_the_second_ctrl_c_raises_in_python():
    with pytest.raises(KeyboardInterrupt), GracefulShutdown(exits=False) as shutdown:
        signal.raise_signal(signal.SIGINT)
        assert shutdown.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_it_runs_in_a_thread(tmp_path):
    results = []
    run = lambda: results.append(train(config(**{"train.epochs": 1}), tmp_path))
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    (result,) = results
    assert dataclasses.is_dataclass(result) and len(result.runs) == 1


@pytest.mark.parametrize("address", ["gs://bucket/x", Path("s3://bucket/x")])
def test_an_address_is_an_error(address, config_file, tmp_path):
    calls = {
        "workdir": lambda: train(config_file, address, SHORT),
        "path": lambda: mmf.load(address),
        "run": lambda: mmf.export(address, "out"),
        "out": lambda: mmf.export("runs/a", address),
    }
    before = sorted(tmp_path.iterdir())
    for name, call in calls.items():
        with pytest.raises(ConfigError, match=f"C40. {name}='"):
            call()
    with pytest.raises(ConfigError, match="C40. workdir='"):
        evaluate(config_file, address)
    assert sorted(tmp_path.iterdir()) == before
