"""What a measurement on an accelerator depends on: device, driver, versions, commit."""

import importlib.metadata
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

PACKAGES = (
    *("jax", "jaxlib", "libtpu", "flax", "optax", "chex", "numpy", "torch"),
    *("jax-cuda12-plugin", "jax-cuda12-pjrt", "jax-cuda13-plugin", "jax-cuda13-pjrt"),
    *("jax-rocm7-plugin", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13"),
)

PEAKS = {
    "H200": {"bfloat16": 989, "tf32": 494, "float32": 67},
    "H100": {"bfloat16": 989, "tf32": 494, "float32": 67},
    "B200": {"bfloat16": 2250, "tf32": 1125, "float32": 75},
    "A100": {"bfloat16": 312, "tf32": 156, "float32": 19.5},
    "L4": {"bfloat16": 121, "tf32": 60, "float32": 30.3},
    "T4": {"float32": 8.1},
    "V100": {"float32": 15.7},
    "TPU v6": {"bfloat16": 918},
    "TPU v5 lite": {"bfloat16": 197},
    "TPU v5p": {"bfloat16": 459},
    "TPU v4": {"bfloat16": 275},
    "TPU v3": {"bfloat16": 61.5},
    "TPU v2": {"bfloat16": 22.5},
}
"""Part of the device kind -> TFLOP/s of dense products of one JAX device, by kind.

From the data sheets. The first that fits counts. H100 is the SXM version.
"""

PASSES = {"default": 1, "high": 3, "highest": 6}
"""Precision -> bfloat16 products of which a TPU makes a float32 one."""


def peak_flops(kind: str, dtype: str, precision: str) -> float | None:
    """Returns FLOP/s of one device; None if unknown.

    Args:
        kind: `device_kind` of JAX.
        dtype: "float32" or "bfloat16".
        precision: Of float32 products, "default", "high" or "highest": on NVIDIA the
            first two are TF32, where a device has it; on a TPU see `PASSES`.
    """
    words = kind.lower()
    for name, peaks in PEAKS.items():
        if name.startswith("TPU"):
            if name.lower() in words:
                passes = PASSES[precision] if dtype == "float32" else 1
                return peaks["bfloat16"] * 1e12 / passes
        # "L4" is also the beginning of "L40".
        elif f" {name.lower()} " in f" {words.replace('-', ' ')} ":
            return _nvidia_peak(peaks, dtype, precision)
    return None


def _nvidia_peak(
    peaks: Mapping[str, float], dtype: str, precision: str
) -> float | None:
    """Returns FLOP/s by type and precision; None where the device lacks the type."""
    if dtype == "float32" and precision != "highest" and "tf32" in peaks:
        dtype = "tf32"
    return peaks[dtype] * 1e12 if dtype in peaks else None


def header(tiny: bool) -> dict[str, Any]:
    """Returns the machine and the versions; "same" is what rows of a file share."""
    device = jax.devices()[0]
    return {
        "same": {
            "device": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
            "packages": _versions(),
            "commit": _run(
                "git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"
            ),
            "tiny": tiny,
        },
        "plugin": getattr(device.client, "platform_version", ""),
        "driver": _run(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
        ),
        "changed_files": _run(
            *("git", "-C", str(Path(__file__).parents[2]), "status", "--porcelain"),
            "--untracked-files=no",
        ).split("\n"),
    }


def memory_limit() -> int | None:
    """Returns the bytes of memory of a device that JAX may use; None if unknown."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def peak_bytes() -> int | None:
    """Returns the highest memory use of the device by this process; None if unknown."""
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def _versions() -> dict[str, str]:
    """Returns the versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _run(*command: str) -> str:
    """Returns the output of a program; "" if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
