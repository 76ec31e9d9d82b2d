"""Before JAX is used: the compilation cache, and the other processes."""

import socket
import stat
import subprocess
import sys

import jax
import pytest
from paths import ROOT

from mmfusion_jax.config.spec import DistributedSpec
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.runner import runtime
from mmfusion_jax.runner.cluster import started_together

PROGRAM = """
import sys
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 1)
from mmfusion_jax.config.spec import DistributedSpec
from mmfusion_jax.runner.runtime import initialize
initialize(DistributedSpec(f"localhost:{sys.argv[1]}", 2, int(sys.argv[2])))
print(jax.process_index(), jax.process_count(), jax.device_count())
"""


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """Where the cache belongs; the settings come back after the test."""
    names = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    yield tmp_path / "xla"
    for name, value in before.items():
        jax.config.update(name, value)


def cache_dir() -> str | None:
    return getattr(jax.config, "jax_compilation_cache_dir")  # noqa: B009


def test_the_cache_is_the_users_alone(folder):
    runtime.use_compilation_cache()
    assert cache_dir() == str(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_cache_that_others_can_write_is_not_used(folder, capsys):
    folder.mkdir()
    folder.chmod(0o777)
    runtime.use_compilation_cache()
    assert cache_dir() is None
    assert "writable by other users" in capsys.readouterr().err


def test_the_device_is_named_on_stderr(capsys):
    runtime.initialize(DistributedSpec(), cache=False)
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"device: {jax.device_count()} x cpu (")
    assert err.endswith(f" cores), jax {jax.__version__}\n")


def test_without_a_place_for_it_there_is_no_cache(folder, capsys):
    folder.touch()
    runtime.use_compilation_cache()
    assert cache_dir() is None
    assert "no compilation cache" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_find_each_other():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(port), str(number)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for number, process in enumerate(started):
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.split() == [str(number), "2", "2"]
        assert f"process {number} of 2: waiting" in err


@pytest.mark.parametrize(
    "variables, launcher, count",
    [
        ({"SLURM_STEP_NUM_TASKS": "4"}, "SLURM", 4),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI", 2),
        ({"PMI_SIZE": "3"}, "MPICH", 3),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "Cloud TPU", 2),
    ],
)
def test_processes_that_do_not_join_are_an_error(
    variables, launcher, count, monkeypatch, capsys
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=rf"C41.*{launcher} started {count} pro") as e:
        runtime.initialize(DistributedSpec(), cache=False)
    assert ("mode=auto" in e.value.fix) == (launcher != "MPICH")
    runtime.initialize(DistributedSpec(mode="off"), cache=False)
    runtime.initialize_one_process()
    assert "device: " in capsys.readouterr().err


def test_hosts_of_a_tpu_that_do_not_join_are_an_error(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(ConfigError, match="C41.*Cloud TPU started 4 processes"):
        runtime.initialize(DistributedSpec(), cache=False)


@pytest.mark.parametrize("name", ["SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"])
@pytest.mark.parametrize("value", ["1", "", "many"])
def test_a_process_of_its_own_is_one(name, value):
    assert started_together({name: value, "TPU_WORKER_HOSTNAMES": "one"}) == ("", 1)


def test_without_a_cluster_nothing_can_join(monkeypatch):
    def initialize(
        initialization_timeout, heartbeat_timeout_seconds, shutdown_timeout_seconds
    ):
        found.append(
            (
                initialization_timeout,
                heartbeat_timeout_seconds,
                shutdown_timeout_seconds,
            )
        )
        raise ValueError("coordinator_address should be defined.")

    found = []
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    spec = DistributedSpec(
        mode="auto", start_timeout=7, heartbeat_timeout=8, stop_timeout=9
    )
    with pytest.raises(ConfigError, match="C41.*no cluster"):
        runtime.initialize(spec, cache=False)
    assert found == [(7, 8, 9)]


def test_an_address_that_cannot_be_used_is_an_error(monkeypatch):
    def fail(*_, **__):
        raise jax.errors.JaxRuntimeError("Failed to start RPC server")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(ConfigError, match="C12.*process 0 cannot connect: Failed"):
        runtime.initialize_distributed(DistributedSpec("localhost:1234", 2, 0))


def test_a_coordinator_of_one_process_is_not_used(capsys):
    runtime.initialize(DistributedSpec("localhost:1234"), cache=False)
    assert "the coordinator is not used" in capsys.readouterr().err


def test_the_folder_of_the_cache_is_local(monkeypatch):
    monkeypatch.setenv("MMFUSION_CACHE", "gs://bucket/cache")
    with pytest.raises(ConfigError, match="C40.*MMFUSION_CACHE='gs:"):
        runtime.use_compilation_cache()
