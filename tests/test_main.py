"""The command from end to end: train, evaluate, inspect, and what stdout holds."""

import functools
import json

import pytest
import tiny

from mmfusion_jax import main
from mmfusion_jax.cli.command import run_command
from mmfusion_jax.config import build

pytestmark = pytest.mark.versions

CONFIG = """
from ml_collections import ConfigDict

def get_config(kind: str = "tones"):
    return ConfigDict(dict(
        seed=1, seeds=1, protocol="honest", parallel="jit", compute_dtype="float32",
        data=dict(name="clips", label="label", fold="0", folds=1, batch_size=6,
                  threads=1),
        model=dict(name="unimodal", encoders=dict(
            video=dict(name="feature_tokens", width=8))),
        losses=dict(task=dict(name="cross_entropy", weight=1.0)),
        optim=dict(name="adam", learning_rate=0.02, schedule=dict(name="constant"),
                   clip_norm=0.0, weight_decay=0.0, accumulate=1),
        train=dict(epochs=3, select="accuracy", patience=0, log_every=2,
                   save_every=0, max_bad_steps=3),
        warm_start=(),
        distributed=dict(coordinator="", num_processes=1, process_id=0),
    ))
"""


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command with more words; its exit code, stdout and stderr."""
    monkeypatch.setattr(build, "DATASETS", {"clips": tiny.tones})
    monkeypatch.setattr(build, "OUTLINES", {})
    monkeypatch.setattr("mmfusion_jax.runner.runtime.start", lambda config: None)
    path = tmp_path / "tones.py"
    path.write_text(CONFIG)
    words = [f"--config={path}", f"--workdir={tmp_path / 'run'}"]

    def run(*more: str) -> tuple[int, str, str]:
        code = run_command(main.COMMAND, [*words, *more])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_trains_evaluates_and_says_when_it_is_done(call, tmp_path):
    code, out, err = call("--json")
    assert code == 0, err
    result = json.loads(out)
    assert result == json.loads((tmp_path / "run" / "result.json").read_text())
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>unimodal on tones (made up)</h1>" in page
    assert "valid" in err

    code, out, err = call()
    assert (code, out) == (0, "")
    assert "is finished" in err

    code, out, err = call("--mode=evaluate")
    assert code == 0, err
    test = result["runs"][0]["test"]["accuracy"]
    (line,) = [line for line in out.splitlines() if " test: " in line]
    assert f"accuracy {test:.3f}" in line

    code, out, err = call("--config.train.epochs=4")
    assert code == 2
    assert "config.train.epochs=3, not 4" in err


def test_scores_that_are_not_defined_end_every_command(call, tmp_path, monkeypatch):
    broken = functools.partial(tiny.tones, endless=(3, 7))
    monkeypatch.setattr(build, "DATASETS", {"clips": broken})
    for words in ((), (), ("--mode=evaluate",), ("--json",)):  # the second: finished
        code, out, err = call("--config.train.epochs=2", *words)
        assert code == 4, err
        assert "error[N02] fold 0, seed 1, test: the predictions of 2 of 9" in err
        shown = out if words else err
        assert (
            '"accuracy": null' in out if "--json" in words else "not defined" in shown
        )
    assert "not defined" in (tmp_path / "run" / "report.html").read_text()


def test_inspects_without_leaving_anything(call, tmp_path):
    code, out, err = call("--mode=inspect", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["parameters"]["total"] > 0
    assert not (tmp_path / "run").exists()
    code, out, _ = call("--mode=inspect")
    assert code == 0
    assert "encoders_video" in out


def test_nothing_to_evaluate_is_an_error(call):
    code, out, err = call("--mode=evaluate")
    assert code == 5
    assert out == ""
    assert err.startswith("error[K")


def test_analyses_a_trained_run(call, tmp_path):
    losses = "--config.losses.task.weight=0.5"
    code, _, err = call("--mode=analyse", losses)
    assert code == 5 and "K01" in err, "nothing is trained yet"
    assert call(losses)[0] == 0
    code, out, err = call("--mode=analyse", losses, "--batches=2", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["batches"] == 2
    assert found["terms"]["task"]["weight"] == 0.5
    module = found["modules"]["encoders_video"]
    assert module["norms"]["task"]["mean"] > 0
    assert module["cosines"] == [[pytest.approx(1)]]
    assert json.loads((tmp_path / "run" / "gradients.json").read_text())
    page = (tmp_path / "run" / "gradients.html").read_text()
    assert "<h1>Gradients of unimodal on tones (made up)</h1>" in page
    code, out, _ = call("--mode=analyse", losses, "--batches=2")
    assert code == 0 and "encoders_video" in out
