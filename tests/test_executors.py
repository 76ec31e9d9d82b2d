"""jit and pmap on 1, 2 and 8 devices do the maths of one device."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIMITS = {"x64": 1e-12, "x32": 2e-5}


@pytest.fixture(scope="module", params=LIMITS)
def differences(request, cache_dir):
    script = Path(__file__).with_name("executors_main.py")
    done = subprocess.run(
        [sys.executable, str(script), request.param],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache_dir / "xla")},
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return LIMITS[request.param], json.loads(done.stdout.splitlines()[-1])


def test_every_executor_equals_one_device(differences):
    limit, found = differences
    apart = {k: v for k, v in found.items() if k != "dropout_pmap8" and v > limit}
    assert not apart


def test_devices_draw_their_own_dropout_under_pmap(differences):
    _, found = differences
    if "dropout_pmap8" in found:  # measured in one precision only
        assert found["dropout_pmap8"] > 1e-3
