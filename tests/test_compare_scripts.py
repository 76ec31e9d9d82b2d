"""The scripts that compare runs with regression read the config of a work folder."""

import subprocess
import sys
from pathlib import Path

import pytest

from mmfusion_jax.results.config_file import WorkdirConfig, write_config

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
KEEPS = """
import sys

import compare

compare.read_runs = lambda workdir: {0: {0: None}}
compare.mean_std = lambda runs: {}
compare.compare = lambda runs, folder, keep: keep
sys.argv = ["compare.py", "data", sys.argv[1]]
compare.main()
"""


@pytest.mark.parametrize("experiment", ["mmmo", "mosi_utterances"])
def test_a_folder_that_is_no_work_folder_is_named(experiment, tmp_path):
    script = EXPERIMENTS / experiment / "compare.py"
    words = [sys.executable, script, "data", tmp_path]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{tmp_path} is not the workdir of a training" in done.stderr


def test_the_clips_of_a_run_are_read_from_its_config(tmp_path):
    config = {"data": {"keep_clips_without_text": "as in the run"}}
    write_config(tmp_path, WorkdirConfig(1, config))
    words = [sys.executable, "-c", KEEPS, tmp_path]
    folder = EXPERIMENTS / "mmmo"
    found = subprocess.check_output(words, cwd=folder, text=True)
    assert '"paired": "as in the run"' in found
