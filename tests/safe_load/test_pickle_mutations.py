"""Thousands of corrupted pickles: none crashes, hangs or raises another exception."""

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from paths import TESTS

PROGRAM = TESTS / "subprocess_pickle_mutations.py"
LARGE = pytest.param(400_000, marks=pytest.mark.slow)


def start(folder: Path, seed: int, count: int) -> subprocess.Popen:
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__"]
    command += [str(PROGRAM), str(folder), str(seed), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[1])}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, stdout=pipe, stderr=pipe, text=True
    )


@pytest.mark.parametrize("count", [20_000, LARGE])
def test_corrupted_pickles_are_read_or_rejected(tmp_path, count):
    parts = [start(tmp_path, seed, count // 2) for seed in (count, count + 1)]
    ends = collections.Counter()
    try:
        for seed, part in enumerate(parts, start=count):
            out, err = part.communicate(timeout=60 + count / 100)
            assert not part.returncode, f"{tmp_path / str(seed)}.pkl: {err[-2000:]}"
            ends.update(json.loads(out))
    finally:
        for part in parts:
            part.kill()
            part.communicate()
    assert ends.total() == count
    # The mutations cause every kind of rejection, and leave some files intact; no file
    # exceeds the memory limit.
    assert set(ends) == {"read", "D60", "D61", "D62", "D63", "D64"}
    assert min(ends["read"], ends["D60"], ends["D63"]) > count / 50
