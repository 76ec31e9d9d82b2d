"""Two virtual CPU devices, a shared compilation cache, and the real data if any."""

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

# Compiling is most of the time of the tests, and XLA's optimizations are 40 % of it;
# programs as small as these run about as fast without. .ci/run sets this to 0 for the
# part of the tests that it repeats with other versions of JAX.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
QUICK = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
# XLA's older way to compile fused loops takes half the time. Newer releases of jaxlib
# do not have it, and end a process that asks for it.
OLDER = ("0.7.", "0.8.", "0.9.", "0.10.")
if QUICK and metadata.version("jaxlib").startswith(OLDER):
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_fusion_emitters=false".strip()
os.environ["JAX_PLATFORMS"] = "cpu"  # of the processes that tests start

import jax  # noqa: E402
import pytest  # noqa: E402
from paths import TESTS  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
CACHE = Path(
    os.environ.get(
        "MMFUSION_TEST_CACHE",
        Path(tempfile.gettempdir()) / f"mmfusion_jax_tests_{os.getuid()}",
    )
)
CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Number of processes of `pytest -n auto`; each needs up to 3 GB of memory."""
    return min(os.cpu_count() or 1, 4)


LONGEST = (
    "test_notebooks.py",
    "test_small_configs.py",
    "test_contract.py",
    "test_missing.py",
    "test_parallelism.py",
    "test_contributing.py",
    "test_second_derivatives.py",
    "test_losses.py",
    "test_kill.py",
)
"""Files that take longest, in the group `ci`; the first of them are begun first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first, so that no process waits for another at the end."""
    items.sort(key=lambda item: [*LONGEST, item.path.name].index(item.path.name))


@pytest.fixture(scope="module", autouse=True)
def programs_of_a_file():
    """Frees what a file compiled, when it is done.

    Every program holds some hundred mappings of memory. Linux allows a process 65,530
    of them, and one more ends it with a segmentation fault.
    """
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """A folder that tests may share, also between runs."""
    return CACHE


@pytest.fixture(scope="session")
def answer_of(cache_dir) -> Callable[..., Any]:
    """Runs a script of this folder in a process of its own; the JSON it prints last."""

    def run(script: str, *arguments: str) -> Any:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache_dir / "xla")},
            timeout=900,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data; tests that need it skip when it is not there."""
    folder = os.environ.get("MMFUSION_TEST_DATA")
    if not folder:
        pytest.skip("MMFUSION_TEST_DATA is not set: no real data on this machine")
    if not Path(folder).is_dir():
        pytest.skip(f"MMFUSION_TEST_DATA={folder} is not a folder")
    return Path(folder)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden arrays; its README describes how they were made."""
    return Path(__file__).with_name("golden")


@pytest.fixture(scope="session")
def shim(tmp_path_factory) -> Path:
    """The library that lets system calls on files fail; it requires gcc."""
    library = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    source = TESTS / "fault_shim.c"
    build = ["gcc", "-O2", "-shared", "-fPIC", source, "-o", library, "-ldl"]
    subprocess.run(build, check=True)
    return library
