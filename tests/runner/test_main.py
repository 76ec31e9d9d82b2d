"""The command from end to end: train, evaluate, inspect, and what stdout holds."""

import functools
import json

import pytest
import tiny_dataset

from mmfusion_jax import main
from mmfusion_jax.cli.command import run_command

pytestmark = pytest.mark.versions

CONFIG = """
from mmfusion_jax.config.base import base_config

def get_config(kind: str = "tones"):
    config = base_config()
    config.seed = 1
    config.data.update(dict(name="tiny_dataset:tones", label="label", batch_size=6))
    encoder = dict(name="feature_tokens", hidden_dim=8)
    config.model = dict(name="unimodal", encoders=dict(video=encoder))
    config.losses = dict(task=dict(name="cross_entropy", weight=1.0))
    config.optim.learning_rate = 0.02
    config.train.update(dict(epochs=3, log_every=2))
    return config
"""


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs the command with more words; its exit code, stdout and stderr."""
    monkeypatch.setattr("mmfusion_jax.runner.runtime.initialize", lambda spec: None)
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
    stored = json.loads((tmp_path / "run" / "result.json").read_text())
    assert stored == {"format_version": 2, **result}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h1>unimodal on tones (made up): run</h1>" in page
    assert "The test split has 9 examples" in page and "n = 9" in page
    assert "valid" in err and "; train loss " in err
    assert "note: the test split has 9 examples: one of them is 11.1 points" in err

    code, out, err = call()
    assert (code, out) == (0, "")
    assert "finished experiment" in err

    code, out, err = call("--mode=evaluate")
    assert code == 0, err
    test = result["runs"][0]["test"]["scores"]["accuracy"]
    rows = [line.split() for line in out.splitlines()]
    assert rows[0][:4] == ["fold", "0,", "seed", "1,"]
    assert rows[1:3] == [["train", "valid", "test"], ["examples", "30", "9", "9"]]
    (row,) = [row for row in rows if row[0] == "accuracy"]
    assert row[-1] == f"{test:.3f}"

    code, out, err = call("--config.train.epochs=4")
    assert code == 2
    assert "config.train.epochs=3, but this run has 4" in err


def test_scores_that_are_not_defined_end_every_command(call, tmp_path, monkeypatch):
    broken = functools.partial(tiny_dataset.tones, endless=(3, 7))
    monkeypatch.setattr(tiny_dataset, "tones", broken)
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


def test_computes_loss_gradients_of_a_trained_run(call, tmp_path):
    losses = "--config.losses.task.weight=0.5"
    with_curvature = ("--mode=loss_gradients", losses, "--batches=2", "--curvature")
    code, _, err = call("--mode=loss_gradients", losses)
    assert code == 5 and "K01" in err, "nothing is trained yet"
    assert call(losses)[0] == 0
    code, out, err = call("--mode=loss_gradients", losses, "--batches=2", "--json")
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
    assert "Curvature" not in page and found["curvature"] is None
    code, out, _ = call(*with_curvature)
    assert code == 0 and "encoders_video" in out
    found = json.loads((tmp_path / "run" / "gradients.json").read_text())
    module = found["curvature"]["encoders_video"]
    assert found["curvature"].keys() == found["modules"].keys()
    assert module["eigenvalues"]["task"] and module["sharpness"][0][0]
    page = (tmp_path / "run" / "gradients.html").read_text()
    assert "magnitude of the largest eigenvalue" in page
