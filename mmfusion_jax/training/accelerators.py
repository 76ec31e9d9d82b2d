"""Checks that JAX uses the machine's accelerator."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import jax

from mmfusion_jax.errors import MissingDependencyError, shorten, shown, shown_name

# Environment variables that TPU VMs and Colab set if there is a TPU. TPU_NAME is not
# one of them: people set it on the machine from which they control a TPU.
TPU_VARIABLES = ("TPU_ACCELERATOR_TYPE", "COLAB_TPU_1VM", "COLAB_TPU_ADDR")
GOOGLE = "0x1ae0"  # PCI vendor ID
CUDA_13_DRIVER = 580  # minimum driver version for CUDA 13
NO_GPU = ("", "-1", "NoDevFiles")  # values of CUDA_VISIBLE_DEVICES


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """An accelerator of this machine, whether or not JAX uses it.

    Attributes:
        name: Description, such as "a TPU".
        sign: File or environment variable that indicates it.
        platform: JAX's name for it.
        extra: Extra of this package that installs its plug-in.
        plugins: Distributions that may contain its plug-in.
        note: Reason for this extra; "" if it is the only one.
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
    """Returns the devices that JAX uses, such as "1 x TPU v5 lite" or "1 x cpu".

    JAX falls back to the CPU, with at most a warning, if the accelerator's plug-in is
    missing or does not match the installed jaxlib. Here that is an error unless the
    CPU was chosen, by `JAX_PLATFORMS=cpu` or JAX's option `jax_platforms`.

    Example:
        >>> import mmfusion_jax as mmf
        >>> mmf.describe_devices().endswith("cpu")
        True

    Args:
        root: Directory that contains /dev, /proc and /sys.
        environment: Environment variables.

    Raises:
        MissingDependencyError: The machine has an accelerator that JAX does not use, or
            JAX cannot initialize the platform it was configured to use.
    """
    found = attached(root, environment)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter if no platform is left
        raise _initialization_error(found, error) from error
    if found and devices[0].platform == "cpu" and not _cpu_was_chosen(found):
        raise MissingDependencyError(
            "E04",
            f"this machine has {shown_name(found.name)} ({found.sign}), "
            f"but JAX uses the CPU; installed: {_versions(found)}.",
            _install_hint(found),
        )
    return f"{len(devices)} x {shown_name(devices[0].device_kind)}"


def attached(root: Path, environment: Mapping[str, str]) -> Accelerator | None:
    """Returns the accelerator of a machine, a TPU or an NVIDIA GPU, or None.

    Args:
        root: Directory that contains /dev, /proc and /sys.
        environment: Environment variables.
    """
    if sign := next(_tpu_signs(root, environment), None):
        return Accelerator("a TPU", sign, "tpu", "tpu", ("libtpu",))
    if environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in NO_GPU:
        return None
    # Not /proc/driver/nvidia: containers without a GPU see it too.
    nodes = sorted(root.glob("dev/nvidia[0-9]*"))
    return _nvidia_gpu(root, nodes[0]) if nodes else None


def _nvidia_gpu(root: Path, node: Path) -> Accelerator:
    plugins = ("jax-cuda12-plugin", "jax-cuda13-plugin")
    extra, note = "cuda13", ""
    driver = _nvidia_driver(root)
    if driver is not None and driver < CUDA_13_DRIVER:
        extra, note = "cuda12", f"driver {shown_name(driver)} is too old for CUDA 13"
    elif plugins[0] in _installed(plugins):
        extra = "cuda12"
    sign = _absolute(node, root)
    return Accelerator("an NVIDIA GPU", sign, "gpu", extra, plugins, note)


def _tpu_signs(root: Path, environment: Mapping[str, str]) -> Iterator[str]:
    for name in TPU_VARIABLES:
        if value := environment.get(name):  # Colab sets one of them to "" elsewhere
            yield f"{name}={value}"
    if environment.get("PJRT_DEVICE") == "TPU":
        yield "PJRT_DEVICE=TPU"
    # Accelerators of other vendors are in the directory /dev/accel.
    for node in sorted(root.glob("dev/accel[0-9]*")):
        yield _absolute(node, root)
    # Any kind of device may be here, so the vendor has to match too.
    vendors = map(_text, root.glob("sys/bus/pci/devices/*/vendor"))
    if GOOGLE in map(str.strip, vendors):
        for node in sorted(root.glob("dev/vfio/[0-9]*")):
            yield _absolute(node, root)


def _nvidia_driver(root: Path) -> int | None:
    """Returns the major version of the driver, such as 550."""
    match = re.search(r" (\d+)\.\d+", _text(root / "proc/driver/nvidia/version"))
    return int(match[1]) if match else None


def _text(path: Path) -> str:
    """Returns the content of a system file; "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def _absolute(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"


def _cpu_was_chosen(found: Accelerator) -> bool:
    """Returns whether the CPU was chosen, even if JAX could use the accelerator."""
    platforms = getattr(jax.config, "jax_platforms") or ""  # noqa: B009
    if platforms.split(",")[0] == "cpu":
        return True
    try:
        return bool(jax.devices(found.platform))  # usable; the CPU is only preferred
    except RuntimeError:
        return False


def _initialization_error(
    found: Accelerator | None, error: Exception
) -> MissingDependencyError:
    """Error for a platform that JAX was configured to use, or has a plug-in for."""
    reason = shorten((str(error).splitlines() or ["no such device"])[0])
    platforms = getattr(jax.config, "jax_platforms")  # noqa: B009
    suffix = f" with jax_platforms={shown(platforms)}" if platforms else ""
    fix = (
        _install_hint(found)
        if found
        else "unset JAX_PLATFORMS, or set JAX_PLATFORMS=cpu"
    )
    return MissingDependencyError(
        "E04", f"JAX failed to initialize{suffix}: {reason}", fix
    )


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    """Returns the versions of the distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _versions(found: Accelerator) -> str:
    """Returns the installed versions of jaxlib and the plug-in."""
    line = f"jaxlib {shown_name(metadata.version('jaxlib'))}"
    plugins = [f"{k} {shown_name(v)}" for k, v in _installed(found.plugins).items()]
    if not plugins:
        return f"{line} without {' or '.join(found.plugins)}"
    return ", ".join([line, *plugins])


def _install_hint(found: Accelerator) -> str:
    """Returns the command that makes JAX use the accelerator."""
    command = ""
    # JAX fails to initialize with two plug-ins for one platform.
    extra = {"cuda12": "cuda13", "cuda13": "cuda12"}.get(found.extra)
    if extra and _installed((f"jax-{extra}-plugin",)):
        command = f"pip uninstall -y jax-{extra}-plugin jax-{extra}-pjrt && "
    suffix = f" ({found.note})" if found.note else ""
    return (
        f'{command}pip install "mmfusion_jax[{found.extra}]"{suffix}, then start '
        "Python again (on Colab: restart the runtime), or set JAX_PLATFORMS=cpu to use "
        "the CPU"
    )
