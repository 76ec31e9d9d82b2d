"""Which devices JAX uses, and an error where it leaves an accelerator idle."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import jax

from mmfusion_jax.errors import MissingDependencyError

# Variables of the environment that TPU VMs and Colab set where there is a TPU. TPU_NAME
# is not one of them: people set it on the machine from which they control a TPU.
TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "COLAB_TPU_1VM", "COLAB_TPU_ADDR")
GOOGLE = "0x1ae0"  # the PCI vendor
CUDA_13_DRIVER = 580  # the first driver that runs it
NO_GPU = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """An accelerator of this machine, whether JAX uses it or not.

    Attributes:
        name: in words, such as "a TPU".
        sign: the file or the variable of the environment that tells of it.
        platform: JAX's name of it.
        extra: the extra of this package that brings its plug-in.
        plugins: the distributions that may hold its plug-in.
        note: why it is this extra; "" if there is no other.
    """

    name: str
    sign: str
    platform: str
    extra: str
    plugins: tuple[str, ...]
    note: str = ""


def describe_devices(
    root: Path = Path("/"), environment: Mapping[str, str] = os.environ
) -> str:
    """The devices that JAX computes on, such as "1 x TPU v5 lite" or "1 x cpu".

    JAX falls back to the CPU, with a warning at most, where the plug-in of the
    accelerator is missing or does not fit the installed jaxlib. Here that is an error,
    unless the CPU was chosen: by `JAX_PLATFORMS=cpu`, or JAX's setting `jax_platforms`.

    Args:
        root: the folder in which /dev, /proc and /sys are.
        environment: the variables of the environment.

    Raises:
        ExtraError: the machine has an accelerator that JAX does not use, or JAX cannot
            start the platform that it was told to use.
    """
    found = attached(root, environment)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter where none is left
        raise _does_not_start(found, error) from error
    if found and devices[0].platform == "cpu" and not _is_meant(found):
        raise MissingDependencyError(
            "E04",
            f"this machine has {found.name} ({found.sign}), but JAX uses the CPU; "
            f"installed: {_versions(found)}.",
            _cure(found),
        )
    return f"{len(devices)} x {devices[0].device_kind}"


def attached(root: Path, environment: Mapping[str, str]) -> Accelerator | None:
    """The accelerator of a machine: a TPU or an NVIDIA GPU.

    Args:
        root: the folder in which /dev, /proc and /sys are.
        environment: the variables of the environment.
    """
    if sign := next(_signs_of_a_tpu(root, environment), None):
        return Accelerator("a TPU", sign, "tpu", "tpu", ("libtpu",))
    if environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in NO_GPU:
        return None
    # Not /proc/driver/nvidia: containers see it that were given no GPU.
    nodes = sorted(root.glob("dev/nvidia[0-9]*"))
    return _nvidia_gpu(root, nodes[0]) if nodes else None


def _nvidia_gpu(root: Path, node: Path) -> Accelerator:
    plugins = ("jax-cuda12-plugin", "jax-cuda13-plugin")
    extra, note = "cuda13", ""
    driver = _nvidia_driver(root)
    if driver is not None and driver < CUDA_13_DRIVER:
        extra, note = "cuda12", f"driver {driver} is too old for CUDA 13"
    elif plugins[0] in _installed(plugins):
        extra = "cuda12"
    sign = _absolute(node, root)
    return Accelerator("an NVIDIA GPU", sign, "gpu", extra, plugins, note)


def _signs_of_a_tpu(root: Path, environment: Mapping[str, str]) -> Iterator[str]:
    for name in TPU_VARIABLES:
        if value := environment.get(name):  # Colab sets one of them to "" elsewhere
            yield f"{name}={value}"
    if environment.get("PJRT_DEVICE") == "TPU":
        yield "PJRT_DEVICE=TPU"
    # Other makers' accelerators are in the folder /dev/accel.
    for node in sorted(root.glob("dev/accel[0-9]*")):
        yield _absolute(node, root)
    # Any kind of device may be here, so a TPU needs the vendor too.
    vendors = map(_text, root.glob("sys/bus/pci/devices/*/vendor"))
    if GOOGLE in map(str.strip, vendors):
        for node in sorted(root.glob("dev/vfio/[0-9]*")):
            yield _absolute(node, root)


def _nvidia_driver(root: Path) -> int | None:
    """The first number of the version, such as 550."""
    match = re.search(r" (\d+)\.\d+", _text(root / "proc/driver/nvidia/version"))
    return int(match[1]) if match else None


def _text(path: Path) -> str:
    """The text of a file of the system; "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _absolute(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"


def _is_meant(found: Accelerator) -> bool:
    """Whether the CPU was chosen, where JAX could or could not use the accelerator."""
    platforms = getattr(jax.config, "jax_platforms") or ""  # noqa: B009
    if platforms.split(",")[0] == "cpu":
        return True
    try:
        return bool(jax.devices(found.platform))  # it can; the CPU is only preferred
    except RuntimeError:
        return False


def _does_not_start(
    found: Accelerator | None, error: Exception
) -> MissingDependencyError:
    """The error for a platform that JAX was told to use, or has a plug-in for."""
    reason = (str(error).splitlines() or ["there is no such device"])[0]
    told = getattr(jax.config, "jax_platforms")  # noqa: B009
    asked = f" as jax_platforms={told!r} asks" if told else ""
    fix = _cure(found) if found else "unset JAX_PLATFORMS, or JAX_PLATFORMS=cpu"
    return MissingDependencyError("E04", f"JAX does not start{asked}: {reason}", fix)


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    """The versions of those distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _versions(found: Accelerator) -> str:
    """What is installed of JAX and the plug-in."""
    jaxlib = f"jaxlib {metadata.version('jaxlib')}"
    plugins = [f"{k} {v}" for k, v in _installed(found.plugins).items()]
    if not plugins:
        return f"{jaxlib} without {' or '.join(found.plugins)}"
    return ", ".join([jaxlib, *plugins])


def _cure(found: Accelerator) -> str:
    """What to type, so that JAX uses the accelerator."""
    first = ""
    # Two plug-ins for one platform do not start.
    other = {"cuda12": "cuda13", "cuda13": "cuda12"}.get(found.extra)
    if other and _installed((f"jax-{other}-plugin",)):
        first = f"pip uninstall -y jax-{other}-plugin jax-{other}-pjrt && "
    why = f" ({found.note})" if found.note else ""
    return (
        f'{first}pip install "mmfusion_jax[{found.extra}]"{why}, then start Python '
        "again (on Colab: restart the runtime); JAX_PLATFORMS=cpu chooses the CPU"
    )
