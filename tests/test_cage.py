"""Whatever becomes of the process in the cage, one clear message comes of it."""

import os
import pickle
import time
from pathlib import Path

import pytest

from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.sandbox import memory_for, run_sandboxed

LIMITS = {"memory_gb": 0.2, "cpu_seconds": 60, "timeout": 120}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    here = Path(__file__).parent
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")


def caged(name: str, *, limits: dict | None = None, **arguments):
    return run_sandboxed(f"cage_jobs:{name}", arguments, **{**LIMITS, **(limits or {})})


def test_the_result_comes_from_another_process():
    got = caged("answer", word="ok")
    assert got["word"] == "ok" and got["pid"] != os.getpid()


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("fill", {}, "D65", "import is too large for the import limit of 0.2 GB"),
        ("end", {"number": 9}, "D67", "SIGKILL; perhaps the machine has no memory"),
        ("end", {"number": 11}, "D67", "was ended by the signal SIGSEGV"),
        ("leave", {}, "D67", "without a valid answer"),
        ("complain", {}, "D41", "no header"),
    ],
)
def test_every_end_has_its_message(name, arguments, code, message):
    with pytest.raises(DataError, match=message) as caught:
        caged(name, **arguments)
    assert caught.value.code == code and caught.value.fix


def test_files_it_writes_are_bounded(tmp_path):
    with pytest.raises(DataError, match="wrote a file of more than 0.2 GB") as caught:
        caged("write", folder=str(tmp_path))
    assert caught.value.code == "D68"
    assert (tmp_path / "large").stat().st_size <= 200_000_000


def test_time_of_the_processor_is_bounded():
    with pytest.raises(DataError, match="more than 1 s of the processor") as caught:
        caged("spin", limits={"cpu_seconds": 1})
    assert caught.value.code == "D66" and "--cpu_seconds" in caught.value.fix


def test_time_on_the_clock_is_bounded():
    began = time.monotonic()
    with pytest.raises(DataError, match="longer than 2 s") as caught:
        caged("hang", limits={"timeout": 2})
    assert caught.value.code == "D66" and "--timeout" in caught.value.fix
    assert time.monotonic() - began < 30


def test_a_bug_stays_a_bug():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: by zero"):
        caged("fail")


def test_pickles_are_read_in_the_cage(tmp_path):
    file = tmp_path / "file.pkl"
    file.write_bytes(pickle.dumps({"train": 1, "test": 2}))
    assert caged("names", file=str(file)) == ["test", "train"]
    file.write_bytes(pickle.dumps(os.system))
    with pytest.raises(DataError, match="is a program object") as caught:
        caged("names", file=str(file))
    assert caught.value.code == "D61"


def test_a_pickle_that_swells_ends_at_the_limit(tmp_path):
    file = tmp_path / "file.pkl"
    file.write_bytes(b"](" + b"]" * 20_000_000 + b"e.")  # 20 MB that become gigabytes
    with pytest.raises(DataError, match="too large for the import limit") as caught:
        caged("names", file=str(file))
    assert caught.value.code == "D65" and "--memory_gb" in caught.value.fix


def test_memory_grows_with_the_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert memory_for(file) == 2
    os.truncate(file, 10**9)
    assert memory_for(file) == 4
