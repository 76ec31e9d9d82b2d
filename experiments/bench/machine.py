"""Describes the machine of a measurement."""

import os
import platform
from pathlib import Path
from typing import Any

import jax


def machine() -> dict[str, Any]:
    """Returns the processor, its load, and the versions of Python and JAX."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
    }
