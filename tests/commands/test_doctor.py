"""`doctor`: what it prints, what it calls a problem, and its self-test."""

import json
import shutil
import subprocess
import sys
from importlib import metadata

import jax
import pytest

from mmfusion_jax.__main__ import run
from mmfusion_jax.commands import doctor
from mmfusion_jax.errors import MissingDependencyError
from mmfusion_jax.runner import self_test
from mmfusion_jax.training import accelerators

NOWHERE = "/proc/none/cache"
"""A folder that nobody can create, also not root."""


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MMFUSION_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_prints_versions_devices_and_folders(cache, capsys):
    cache.mkdir()
    (cache / "program").write_bytes(b"0" * 2_000_000)
    assert run(["doctor", "--no_self_test"]) == 0
    out = capsys.readouterr().out
    assert f"jax {jax.__version__}, jaxlib " in out
    assert f"device: {jax.device_count()} x cpu (" in out
    assert f"cache: {cache}, 2.0 MB, 0 datasets, " in out
    assert out.endswith("no problems found\n")
    assert "self-test" not in out  # it was not run


def test_json_is_one_object(capsys):
    assert run(["doctor", "--no_self_test", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["versions"]["jax"] == jax.__version__ and found["problems"] == []
    assert found["self_test"] is None and found["temporary"]["writable"] is True


def test_a_cache_that_cannot_be_written_is_a_problem(monkeypatch, capsys):
    monkeypatch.setenv("MMFUSION_CACHE", NOWHERE)
    assert run(["doctor", "--no_self_test"]) == 2
    out = capsys.readouterr().out
    assert (
        f"error[E03] the cache {NOWHERE} cannot be written to.\n  fix: set MMF" in out
    )
    assert out.endswith("problems: 1\n")


def test_a_tpu_that_another_process_holds_is_a_problem(monkeypatch, capsys):
    def locked():
        sentence = "The TPU is already in use by process with pid 7."
        raise accelerators.in_use_error(sentence) or AssertionError

    monkeypatch.setattr(accelerators, "device_lines", locked)
    assert run(["doctor", "--no_self_test"]) == 2
    assert "error[E07] another process holds the TPU (process 7)." in (
        capsys.readouterr().out
    )


def test_warnings_are_not_problems(monkeypatch, capsys):
    lines = ["device: cpu (2 cores), jax 1", "warning: libtpu 1 is installed, but"]
    monkeypatch.setattr(accelerators, "device_lines", lambda: lines)
    monkeypatch.setattr(doctor, "MIN_FREE", 10**18)
    assert run(["doctor", "--no_self_test"]) == 0
    out = capsys.readouterr().out
    assert "device: cpu (2 cores), jax 1\n" in out
    assert "warning: libtpu 1 is installed, but\n" in out
    assert out.count("warning: only ") == 4  # three folders, and the memory


def test_a_missing_extra_has_its_command(monkeypatch, capsys):
    required = [
        "jax>=0.7",
        "flatbuffers; extra == 'export'",
        'numpy>=2; extra == "media"',
        "pytest; extra == 'dev'",
        "jax[tpu]; extra == 'tpu'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda _: required)
    installed = lambda name: "" if name == "flatbuffers" else "1.0"
    monkeypatch.setattr(doctor, "_version", installed)
    assert run(["doctor", "--no_self_test"]) == 0
    out = capsys.readouterr().out
    line = 'extra export: missing flatbuffers; pip install "mmfusion_jax[export]"\n'
    assert f"{line}extra media: installed\n" in out
    assert "extra dev" not in out and "extra tpu" not in out


def test_a_self_test_that_fails_is_a_problem(monkeypatch, capsys):
    def fails(folder):
        assert folder.is_dir()
        raise MissingDependencyError("E08", "self-test: it differs.", "free disk space")

    monkeypatch.setattr(self_test, "run_self_test", fails)
    assert run(["doctor"]) == 2
    out = capsys.readouterr().out
    assert (
        "error[E08] self-test: it differs.\n  fix: free disk space\nproblems: 1" in out
    )


def test_a_training_that_ends_too_early_is_named_with_its_last_line(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(self_test, "MODULE", "mmfusion_jax.no_such_module")
    with pytest.raises(MissingDependencyError, match=r"E08.*no_such_module") as caught:
        self_test.run_self_test(tmp_path)
    assert "has no checkpoint that it could resume from" in str(caught.value)


@pytest.mark.ci
def test_connections_are_refused_and_counted():
    program = """
import socket
from mmfusion_jax.runner.self_test import refuse_network
refuse_network()
a, b = socket.socketpair()
a.sendall(b"x")
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for call in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: datagram.sendto(b"x", ("1.1.1.1", 9)),
    lambda: socket.getaddrinfo("example.org", 80),
):
    try:
        call()
    except OSError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.splitlines() == 3 * [self_test.BLOCKED], done.stderr
    assert done.stderr.count(self_test.BLOCKED) == 3


@pytest.mark.ci
def test_the_self_test(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", NOWHERE)  # nothing may be written there
    found = self_test.run_self_test(tmp_path)
    assert 0 < found.killed_after < found.steps == 3 * self_test.EPOCHS
    assert found.arrays > 20 and found.network_attempts == 0
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    log = (tmp_path / "killed.log").read_text()
    assert "resuming from step" in log and "device" not in log
    # It would notice another prediction, or a checkpoint of other arrays.
    path = killed / "predictions.json"
    right = path.read_bytes()
    path.write_bytes(right + b" ")
    with pytest.raises(MissingDependencyError, match=r"differs.*: predictions\.json"):
        self_test._compare(whole, killed)
    path.write_bytes(right)
    last = killed / "checkpoints" / str(found.steps)
    assert last.is_dir()
    shutil.rmtree(last)
    with pytest.raises(MissingDependencyError, match=rf"differs.*step {found.steps}: "):
        self_test._compare(whole, killed)
