"""Before JAX is used: the compilation cache, and the other processes."""

import socket
import stat
import subprocess
import sys

import jax
import pytest
from paths import ROOT

from mmfusion_jax.config.spec import DistributedSpec
from mmfusion_jax.runner import runtime

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
    runtime.initialize(DistributedSpec("", 1, 0), cache=False)
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
