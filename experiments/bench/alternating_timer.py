"""Times two libraries in interleaved rounds."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import machine as describe_machine


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
    """Returns what `describe_machine` does, and the version of PyTorch."""
    return {**describe_machine(), "torch": torch.__version__}
