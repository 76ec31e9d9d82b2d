"""Two libraries in turn, and what their figures depend on."""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import torch


def alternate(
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    rounds: int,
    in_a_row: int = 1,
) -> dict[str, dict[str, list[float]]]:
    """Seconds of every call by library, after one round that does not count.

    "wall" is the time that passed, "cpu" what all cores spent. Short calls come several
    in a row, of which the first does not count: threads of the other library may still
    wait for work in loops then.
    """
    functions = {"jax": ours, "torch": theirs}
    seconds = {library: {"wall": [], "cpu": []} for library in functions}
    for turn in range(rounds + 1):
        for library, function in functions.items():
            for call in range(in_a_row):
                wall, cpu = time.perf_counter(), time.process_time()
                function()
                if turn and (call or in_a_row == 1):
                    seconds[library]["wall"].append(time.perf_counter() - wall)
                    seconds[library]["cpu"].append(time.process_time() - cpu)
    return seconds


def pairs(seconds: dict[str, dict[str, list[float]]]) -> dict[str, str]:
    """What `alternate` found, "ours / PyTorch" by the name of the figure."""
    figures = {
        "wall, least": ("wall", min),
        "wall, median": ("wall", statistics.median),
        "cores, least": ("cpu", min),
        "cores, median": ("cpu", statistics.median),
    }
    return {
        name: " / ".join(f"{of(seconds[k][clock]):.3g}" for k in ("jax", "torch"))
        for name, (clock, of) in figures.items()
    }


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "jax": jax.__version__,
        "torch": torch.__version__,
    }
