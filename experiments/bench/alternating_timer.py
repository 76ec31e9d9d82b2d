"""Times two libraries in interleaved rounds."""

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
    jax_call: Callable[[], Any],
    torch_call: Callable[[], Any],
    rounds: int,
    calls_per_round: int = 1,
) -> dict[str, dict[str, list[float]]]:
    """Returns the seconds of every call, by library; the first round is discarded.

    "wall" is the wall-clock time, "cpu" the CPU time of all cores. Short calls are made
    several times per round and the first one is discarded: the threads of the other
    library may still be busy-waiting.

    Args:
        jax_call: Function that uses JAX.
        torch_call: Function that uses PyTorch.
        rounds: Number of measured rounds.
        calls_per_round: Consecutive calls in a round.
    """
    functions = {"jax": jax_call, "torch": torch_call}
    seconds = {library: {"wall": [], "cpu": []} for library in functions}
    for number in range(rounds + 1):
        for library, function in functions.items():
            for call in range(calls_per_round):
                wall, cpu = time.perf_counter(), time.process_time()
                function()
                if number and (call or calls_per_round == 1):
                    seconds[library]["wall"].append(time.perf_counter() - wall)
                    seconds[library]["cpu"].append(time.process_time() - cpu)
    return seconds


def format_pairs(seconds: dict[str, dict[str, list[float]]]) -> dict[str, str]:
    """Returns the result of `alternate` as "JAX / PyTorch", by column name."""
    figures = {
        "wall, minimum": ("wall", min),
        "wall, median": ("wall", statistics.median),
        "all cores, minimum": ("cpu", min),
        "all cores, median": ("cpu", statistics.median),
    }
    return {
        name: " / ".join(f"{reduce(seconds[k][clock]):.3g}" for k in ("jax", "torch"))
        for name, (clock, reduce) in figures.items()
    }


def machine() -> dict[str, Any]:
    """Returns the processor, its load and the versions of the libraries."""
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
