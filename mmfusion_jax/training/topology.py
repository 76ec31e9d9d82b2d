"""Chips that a step can be compiled for on a machine without them."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from mmfusion_jax.errors import (
    ConfigError,
    MissingDependencyError,
    join_names,
    shorten,
    shown,
    shown_name,
)

GB, GIB, TERA = 10**9, 2**30, 10**12


@dataclasses.dataclass(frozen=True)
class Chip:
    """Peak figures of one chip.

    Attributes:
        platform: JAX's name for lowering, "tpu" or "cuda".
        flops: Products and sums of a dense bfloat16 product, per second.
        float32_flops: Those of a dense float32 product at the precision "highest".
        memory: HBM that a program can use, in bytes.
        bandwidth: Of the HBM, bytes per second.
        interconnect: Bytes per second to other chips, both directions together.
    """

    platform: str
    flops: float
    float32_flops: float
    memory: float
    bandwidth: float
    interconnect: float


# TPU: https://docs.cloud.google.com/tpu/docs/v5e, v5p and v6e; the memory is what
# libtpu names when a program needs more; a float32 product is six bfloat16 ones.
# NVIDIA: data sheets of H100 SXM and A100 SXM 80 GB, without sparsity; the interconnect
# is NVLink.
CHIPS = {
    "v5e": Chip("tpu", 197 * TERA, 197 / 6 * TERA, 15.75 * GIB, 819 * GB, 400 * GB),
    "v5p": Chip("tpu", 459 * TERA, 459 / 6 * TERA, 95.74 * GIB, 2765 * GB, 1200 * GB),
    "v6e": Chip("tpu", 918 * TERA, 918 / 6 * TERA, 31.25 * GIB, 1640 * GB, 800 * GB),
    "a100": Chip("cuda", 312 * TERA, 19.5 * TERA, 80 * GB, 2039 * GB, 600 * GB),
    "h100": Chip("cuda", 989 * TERA, 67 * TERA, 80 * GB, 3350 * GB, 900 * GB),
}
"""Name -> chip."""

PLANE = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
CUBE = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4")
TOPOLOGIES = (
    *(f"{chip}:{shape}" for chip in ("v5e", "v6e") for shape in PLANE),
    *(f"v5p:{shape}" for shape in CUBE),
    "a100",
    "h100",
    "cuda",
)
"""What a step can be compiled for; for the last three it is lowered only."""

ENVIRONMENT = {
    # Otherwise libtpu asks the metadata server of a TPU VM, and waits for it.
    "TPU_SKIP_MDS_QUERY": "1",
    # Otherwise a second process that compiles fails on libtpu's lock file.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # Otherwise libtpu prints warnings that it does not find the hosts of a TPU.
    "TPU_HOST_BOUNDS": "1,1,1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}
"""Environment variables of libtpu on a machine without a TPU."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips to compile for.

    Attributes:
        name: Such as "v5e:2x2".
        platform: JAX's name for lowering, "tpu" or "cuda".
        chip: Figures of one chip; None if only the platform is known.
        devices: Devices of JAX's compiler; () if the step is lowered only.
    """

    name: str
    platform: str
    chip: Chip | None
    devices: tuple[Any, ...]

    @property
    def count(self) -> int:
        """Number of chips."""
        return len(self.devices) or 1


def check_topology(name: str) -> None:
    """Raises ConfigError unless `name` is one of `TOPOLOGIES`."""
    if name not in TOPOLOGIES:
        raise ConfigError(
            "C03",
            f"--compile_for={shown(name)} is not a known topology.",
            f"one of {join_names(TOPOLOGIES)}",
        )


def find_topology(name: str) -> Topology:
    """Returns the chips of a name such as "v5e:2x2", for the compiler.

    Args:
        name: One of `TOPOLOGIES`.

    Raises:
        ConfigError: The name is unknown, also to the installed compiler.
        MissingDependencyError: libtpu, which contains the compiler, is not installed or
            does not start.
    """
    check_topology(name)
    kind, _, shape = name.partition(":")
    chip = CHIPS.get(kind)
    if not shape:
        return Topology(name, "cuda", chip, ())
    from jax.experimental import topologies

    # The layout of the chips of a host is part of the topology; libtpu assumes 2x2.
    one = {"chips_per_host_bounds": [1, 1, 1]} if shape == "1x1" else {}
    with _environment():
        try:
            found = topologies.get_topology_desc(
                topology_name=name, platform="tpu", **one
            )
        except (RuntimeError, NotImplementedError) as error:
            raise _no_topology(name, error) from error
    return Topology(name, "tpu", chip, tuple(found.devices))


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Sets the variables of libtpu that are not set, while it is loaded."""
    own = {k: v for k, v in ENVIRONMENT.items() if k not in os.environ}
    os.environ.update(own)
    try:
        yield
    finally:
        for name in own:
            os.environ.pop(name, None)


def _no_topology(name: str, error: Exception) -> ConfigError | MissingDependencyError:
    """Returns the error for a topology that the compiler does not have."""
    if "INVALID_ARGUMENT" in str(error):
        return ConfigError(
            "C03",
            f"--compile_for={shown(name)}: the installed libtpu does not know it: "
            f"{shorten(error)}",
            f"another one of {join_names(TOPOLOGIES)}",
        )
    pinned = pinned_libtpu()
    try:
        state = f"libtpu {shown_name(metadata.version('libtpu'))} does not start"
    except metadata.PackageNotFoundError:
        state = "it is not installed"
    return MissingDependencyError(
        "E01",
        f"compiling for {shown_name(name)} requires {shown_name(pinned)}, the compiler "
        f"that jax {shown_name(metadata.version('jax'))} asks for; {shorten(state)}: "
        f"{shorten(error)}",
        f'pip install "mmfusion_jax[tpu]", or pip install "{shown_name(pinned)}"',
    )


def pinned_libtpu() -> str:
    """Returns the requirement of the installed jax, such as "libtpu==0.0.50.*"."""
    for line in metadata.requires("jax") or ():
        if match := re.match(r"libtpu\b[^;]*", line):
            return match[0].replace(" ", "")
    return "libtpu"
