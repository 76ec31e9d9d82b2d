"""However the sandboxed process ends, the result is one clear message."""

import os
import pickle
import time
from types import NoneType
from typing import Any

import pytest
from paths import TESTS
from sandbox_jobs import Answer

from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.sandbox import memory_for, run_sandboxed

LIMITS = {"memory_gb": 0.2, "cpu_seconds": 60, "timeout": 120}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    here = TESTS
    monkeypatch.setenv("PYTHONPATH", f"{here}{os.pathsep}{here.parent}")


def sandboxed(
    name: str, result_type: Any = NoneType, *, limits: dict | None = None, **arguments
) -> Any:
    limits = {**LIMITS, **(limits or {})}
    return run_sandboxed(f"sandbox_jobs:{name}", arguments, result_type, **limits)


def test_the_result_comes_from_another_process():
    got = sandboxed("answer", Answer, word="ok")
    assert got == Answer("ok", got.pid) and got.pid != os.getpid()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("[]", "Expected `object`"),
        ('{"result": {"word": 3, "pid": 1}}', r"Expected `str`.*\$.word"),
        ('{"result": {"word": "\\u001b[31m"}}', "missing required field `pid`"),
        ('{"user_error": ["DataError", "D41", "message", "fix"]}', "user_error"),
        (
            '{"user_error": {"name": "", "code": "\\n", "message": "", "fix": ""}}',
            r"matching regex.*\$.user_error.code",
        ),
        ('{"bug": 3}', r"Expected `str`.*\$.bug"),
    ],
)
def test_a_response_that_a_file_has_written_is_checked(content, problem):
    with pytest.raises(DataError, match=rf"no valid response \(.*{problem}") as caught:
        sandboxed("respond", Answer, content=content)
    assert caught.value.code == "D67" and len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("fill", {}, "D65", "import exceeded the memory limit of 0.2 GB"),
        ("end", {"number": 9}, "D67", "SIGKILL; possibly out of memory"),
        ("end", {"number": 11}, "D67", "was killed by signal SIGSEGV"),
        ("leave", {}, "D67", "returned no valid response"),
        (
            "answer",
            {"word": "ok"},
            "D67",
            r"valid response \(Expected `null`, got `obj",
        ),
        ("complain", {}, "D41", "no header"),
    ],
)
def test_every_failure_has_its_message(name, arguments, code, message):
    with pytest.raises(DataError, match=message) as caught:
        sandboxed(name, **arguments)
    assert caught.value.code == code and caught.value.fix


def test_the_size_of_written_files_is_limited(tmp_path):
    with pytest.raises(
        DataError, match="exceeded the file size limit of 0.2 GB"
    ) as caught:
        sandboxed("write", folder=str(tmp_path))
    assert caught.value.code == "D68"
    assert (tmp_path / "large").stat().st_size <= 200_000_000


def test_cpu_time_is_limited():
    with pytest.raises(DataError, match="CPU time limit of 1 s") as caught:
        sandboxed("spin", limits={"cpu_seconds": 1})
    assert caught.value.code == "D66" and "--max_cpu_seconds" in caught.value.fix


def test_wall_clock_time_is_limited():
    began = time.monotonic()
    with pytest.raises(DataError, match="time limit of 2 s") as caught:
        sandboxed("hang", limits={"timeout": 2})
    assert caught.value.code == "D66" and "--timeout" in caught.value.fix
    assert time.monotonic() - began < 30


def test_a_bug_stays_a_bug():
    with pytest.raises(RuntimeError, match="ZeroDivisionError: by zero"):
        sandboxed("fail")


def test_messages_are_short():
    message = "\x1b[31mred\u202e \t\nnext " + "x" * 100_000
    with pytest.raises(DataError) as caught:
        sandboxed("complain", message=message)
    assert str(caught.value).startswith("error[D41] \\x1b[31mred\\u202e \\t\nnext xxx")
    assert len(str(caught.value)) < 5000


def test_pickles_are_read_in_the_sandbox(tmp_path):
    file = tmp_path / "file.pkl"
    file.write_bytes(pickle.dumps({"train": 1, "test": 2}))
    assert sandboxed("names", list[str], file=str(file)) == ["test", "train"]
    file.write_bytes(pickle.dumps(os.system))
    with pytest.raises(DataError, match="is a program object") as caught:
        sandboxed("names", file=str(file))
    assert caught.value.code == "D61"


def test_a_pickle_that_expands_is_stopped_at_the_memory_limit(tmp_path):
    file = tmp_path / "file.pkl"
    file.write_bytes(b"](" + b"]" * 20_000_000 + b"e.")  # 20 MB that become gigabytes
    with pytest.raises(DataError, match="exceeded the memory limit") as caught:
        sandboxed("names", file=str(file))
    assert caught.value.code == "D65" and "--max_memory_gb" in caught.value.fix


def test_the_memory_limit_grows_with_the_file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert memory_for(file) == 2
    os.truncate(file, 10**9)
    assert memory_for(file) == 4
