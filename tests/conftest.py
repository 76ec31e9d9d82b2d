"""Two virtual CPU devices, a shared compilation cache, and the real data if any."""

import os
import tempfile
from pathlib import Path

import jax
import pytest

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
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def cache_dir() -> Path:
    """A folder that tests may share, also between runs."""
    return CACHE


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
def golden(real_data) -> Path:
    """The folder of golden arrays, beside the real data."""
    folder = real_data.parent / "golden"
    if not folder.is_dir():
        pytest.skip(f"no golden arrays in {folder}")
    return folder
