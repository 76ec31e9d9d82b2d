"""Processes with a device each train what one process with two devices trains."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
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


FIRST_PORT, PORTS = 61440, 4096  # JAX's port of a SLURM job is FIRST_PORT + id % PORTS


def free_port() -> int:
    """A free port among those of SLURM jobs."""
    for port in range(FIRST_PORT + os.getpid() % PORTS, FIRST_PORT + PORTS):
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind(("localhost", port))
            return port
    raise OSError("no free port")


def start(
    workdir: Path,
    processes: int,
    cache: Path,
    *flags: str,
    slurm: bool = False,
    late: float = 0,
) -> list[subprocess.Popen]:
    """Starts the processes of a run, the last one `late` seconds after the others."""
    port = free_port()
    script = str(TESTS / "subprocess_run.py")
    words = [sys.executable, script, str(workdir), "" if slurm else str(port)]
    started = []
    for rank in range(processes):
        if rank == processes - 1:
            time.sleep(late)
        variables = {
            "SLURM_JOB_ID": port - FIRST_PORT,
            "SLURM_STEP_NODELIST": "localhost",
            "SLURM_STEP_NUM_NODES": 1,
            "SLURM_STEP_NUM_TASKS": processes,
            "SLURM_NTASKS": processes,
            "SLURM_PROCID": rank,
            "SLURM_LOCALID": rank,
        }
        more = {name: str(value) for name, value in variables.items()} if slurm else {}
        started.append(
            subprocess.Popen(
                [*words, str(processes), str(rank), *flags],
                env={**os.environ, "MMFUSION_CACHE": str(cache), **more},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(processes: list[subprocess.Popen]) -> list[str]:
    """What the processes print; all must succeed."""
    printed = []
    for process in processes:
        printed.append(process.communicate(timeout=300)[1])
        assert process.returncode == 0, printed[-1]
    return printed


def assert_equal_runs(folder: Path, one: str, other: str) -> None:
    one, other = (
        json.loads((folder / n / "result.json").read_text("utf-8"))["runs"][0]
        for n in (one, other)
    )
    assert other["step"] == one["step"]
    assert other["test"]["scores"] == pytest.approx(one["test"]["scores"], rel=1e-5)


@pytest.mark.ci
def test_two_processes_of_a_cluster_equal_one(tmp_path, cache_dir):
    (tmp_path / "config.py").write_text(CONFIG, "utf-8")
    finish(start(tmp_path, 1, cache_dir / "processes"))
    first, _ = finish(start(tmp_path, 2, cache_dir / "processes", slurm=True))
    assert "process 0 of 2" in first
    assert_equal_runs(tmp_path, "1", "2")


@pytest.mark.parametrize(
    "parallel",
    [
        pytest.param("shard_map", marks=pytest.mark.ci),
        pytest.param("pmap", marks=pytest.mark.slow),
    ],
)
def test_two_processes_that_run_the_step_of_their_rows_equal_one(
    parallel, tmp_path, cache_dir
):
    (tmp_path / "config.py").write_text(CONFIG, "utf-8")
    flag = f"--config.parallel={parallel}"
    for processes in (1, 2):
        finish(start(tmp_path, processes, cache_dir / "processes", flag))
    assert_equal_runs(tmp_path, "1", "2")


@pytest.mark.slow
def test_four_processes_of_which_one_is_late_equal_one(tmp_path, cache_dir):
    (tmp_path / "config.py").write_text(CONFIG, "utf-8")
    finish(start(tmp_path, 1, cache_dir / "processes"))
    finish(start(tmp_path, 4, cache_dir / "processes", late=8))
    assert_equal_runs(tmp_path, "1", "4")


@pytest.mark.slow
def test_a_process_that_is_too_late_ends_the_others(tmp_path, cache_dir):
    (tmp_path / "config.py").write_text(CONFIG, "utf-8")
    flags = "--config.distributed.start_timeout=5"
    first, last = start(tmp_path, 2, cache_dir / "processes", flags, late=40)
    _, printed = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "process 0 of 2: waiting up to 5 s for the others" in printed
    last.kill()
    last.communicate()
    assert not (tmp_path / "2").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_others_and_the_run_resumes(tmp_path, cache_dir):
    (tmp_path / "config.py").write_text(CONFIG, "utf-8")
    cache = cache_dir / "processes"
    flags = "--config.train.epochs=60", "--config.distributed.heartbeat_timeout=5"
    finish(start(tmp_path, 1, cache, flags[0]))
    processes = start(tmp_path, 2, cache, *flags)
    checkpoints = tmp_path / "2" / "checkpoints"
    give_up = time.monotonic() + 120
    while not any(path.name.isdecimal() for path in checkpoints.glob("*")):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    processes[1].kill()
    begun = time.monotonic()
    processes[1].communicate()
    processes[0].communicate(timeout=120)
    assert processes[0].returncode != 0
    assert time.monotonic() - begun < 60
    first, _ = finish(start(tmp_path, 2, cache, *flags))
    assert "resuming" in first
    assert_equal_runs(tmp_path, "1", "2")


MEETING = """
import sys, time, jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
from mmfusion_jax.config.spec import DistributedSpec
from mmfusion_jax.errors import CheckpointError
from mmfusion_jax.runner.runtime import initialize_distributed
from mmfusion_jax.training.checkpoint.storage import meet
port, rank = sys.argv[1], int(sys.argv[2])
initialize_distributed(DistributedSpec(f"localhost:{port}", 2, rank))
meet("save 1", 60)
time.sleep(12 * rank)
try:
    meet("save 2", 3)
except CheckpointError as error:
    print(error.code, str(error).splitlines()[0])
sys.stdout.flush()
import os; os._exit(0)
"""


@pytest.mark.slow
def test_a_process_that_does_not_come_to_a_save_is_an_error():
    port = str(free_port())
    words = [sys.executable, "-c", MEETING, port]
    first, last = (
        subprocess.Popen(
            [*words, str(rank)], stdout=subprocess.PIPE, cwd=TESTS.parent, text=True
        )
        for rank in range(2)
    )
    out, _ = first.communicate(timeout=120)
    assert "K11" in out and "save 2: not all of 2 processes came within 3 s" in out
    last.kill()
    last.communicate()
