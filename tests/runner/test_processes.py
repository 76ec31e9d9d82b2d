"""Two processes with a device each train what one process with two devices trains."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from paths import TESTS

pytestmark = pytest.mark.versions

CONFIG = """
from mmfusion_jax.config.base import base_config

def get_config(data=""):
    config = base_config()
    config.seed = 1
    config.data.update(dict(name="tiny_dataset:tones", label="label", batch_size=8))
    encoder = dict(name="feature_tokens", hidden_dim=8, features_per_token=1)
    config.model = dict(name="unimodal", encoders=dict(video=encoder))
    config.losses = dict(task=dict(name="cross_entropy", weight=1.0))
    config.optim.learning_rate = 1e-2
    config.train.update(dict(epochs=2, log_every=2))
    return config
"""


def start(workdir: Path, processes: int, cache: Path) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    script = str(TESTS / "subprocess_run.py")
    words = [sys.executable, script, str(workdir), port, str(processes)]
    return [
        subprocess.Popen(
            [*words, str(rank)],
            env={**os.environ, "MMFUSION_CACHE": str(cache)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


@pytest.mark.ci
def test_two_processes_equal_one(tmp_path, cache_dir):
    (tmp_path / "config.py").write_text(CONFIG, "utf-8")
    for processes in (1, 2):
        for process in start(tmp_path, processes, cache_dir / "processes"):
            _, said = process.communicate(timeout=300)
            assert process.returncode == 0, said
    one, two = (
        json.loads((tmp_path / n / "result.json").read_text("utf-8"))["runs"][0]
        for n in "12"
    )
    assert two["step"] == one["step"]
    assert two["test"]["scores"] == pytest.approx(one["test"]["scores"], rel=1e-5)
