"""Worker processes: a bad file fails alone, and workers die with their parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from paths import ROOT, TESTS
from worker_jobs import act

from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.data.storage.worker_pool import Failure, map_in_processes

# The checkout under test, which need not be the one that is installed.
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS)))}
CRASHED = Failure("the decoder crashed or exceeded 2 s", retry=True)


@pytest.mark.parametrize("workers", [0, 2])
def test_results_and_failures_are_in_order(workers):
    jobs = ["a", "data", "b", "bug", "c"]
    got = list(map_in_processes(act, jobs, workers=workers))
    assert got[::2] == ["A", "B", "C"]
    assert got[1] == Failure("cut short")
    assert isinstance(got[3], Failure)
    reason, _, line = got[3].reason.partition(" (")
    assert reason == "ZeroDivisionError: division by zero"
    assert "worker_jobs.py, line " in line


def test_a_worker_that_dies_or_hangs_fails_alone():
    jobs = ["a", "die", "b", "c", "hang", "d", "e"]
    began = time.monotonic()
    got = list(map_in_processes(act, jobs, workers=2, timeout=2))
    assert got == ["A", CRASHED, "B", "C", CRASHED, "D", "E"]
    assert time.monotonic() - began < 300  # the sleeper would take 600


def test_stopping_early_ends_the_workers():
    results = map_in_processes(act, ["pid"] * 9, workers=1)
    worker = int(next(results))
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)


PARENT = """
import sys
from worker_jobs import act
from mmfusion_jax.data.storage.worker_pool import map_in_processes

if __name__ == "__main__":
    results = map_in_processes(act, ["pid", "hang"], workers=1)
    print(next(results), flush=True)
    next(results)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux only")
def test_workers_die_with_their_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, env=HERE
    )
    assert parent.stdout
    worker = int(parent.stdout.readline())
    parent.stdout.close()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    status = Path(f"/proc/{worker}/status")
    assert not status.exists() or "zombie" in status.read_text()


UNGUARDED = """
from worker_jobs import act
from mmfusion_jax.data.storage.worker_pool import map_in_processes

print("started", *map_in_processes(act, ["a", "b"], workers=2))
"""


def test_a_script_without_a_main_guard(tmp_path):
    """A worker does not import the script, which would run it once more."""
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    here = {**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}"}
    command = [sys.executable, str(script)]
    done = subprocess.run(command, env=here, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("started A B\n", 0), done.stderr


def test_progress_yields_all_items_and_prints_lines(capsys):
    assert list(track(iter("abc"), 3, "preparing")) == ["a", "b", "c"]
    assert capsys.readouterr().err == "preparing: 3 of 3\n"
