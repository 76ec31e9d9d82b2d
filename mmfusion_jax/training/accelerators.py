"""Checks that JAX uses the machine's accelerator, and names the devices."""

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

PLUGINS = {
    "libtpu": ("tpu", "tpu"),
    "jax-cuda12-plugin": ("cuda", "cuda12"),
    "jax-cuda13-plugin": ("cuda", "cuda13"),
    "jax-rocm60-plugin": ("rocm", ""),
    "jax-rocm7-plugin": ("rocm", ""),
    "jax-metal": ("METAL", ""),
    "intel-extension-for-openxla": ("xpu", ""),
}
"""Distribution of a plug-in -> JAX's name for its platform, and the extra of this
package that installs it; "" if there is none."""

IN_USE = re.compile("TPU is already in use|libtpu.*lock ?file", re.IGNORECASE)
"""Sentences of libtpu that mean that another process holds the TPU."""

LOCK_FILE = "tmp/libtpu_lockfile"
"""File that libtpu locks, relative to the root."""

HOLDS = re.compile(rf"/dev/(accel|vfio/)\d+|/{LOCK_FILE}")
"""Files that a process which uses a TPU has open."""


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

    Commands print them as `device_lines` does.

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
            that another process holds, or JAX cannot initialize the platform it was
            configured to use.
    """
    found = attached(root, environment)
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as error:  # the latter if no platform is left
        raise _initialization_error(found, error, root) from error
    if found and devices[0].platform == "cpu" and not _cpu_was_chosen(found):
        plugins = _installed(found.plugins)
        reason = _reason(PLUGINS[found.plugins[0]][0]) if plugins else ""
        if error := in_use_error(reason, root):
            raise error
        suffix = f": {reason}" if reason else ""
        raise MissingDependencyError(
            "E04",
            f"this machine has {shown_name(found.name)} ({found.sign}), "
            f"but JAX uses the CPU{suffix}; installed: {_versions(found)}.",
            _install_hint(found),
        )
    return f"{len(devices)} x {shown_name(devices[0].device_kind)}"


def device_lines(
    root: Path = Path("/"), environment: Mapping[str, str] = os.environ
) -> list[str]:
    """Returns what a command prints about the devices that it runs on.

    The first line names the devices and the version of JAX, such as "device: cpu (2
    cores), jax 0.10.2". The others are warnings about plug-ins of accelerators that are
    installed and not used; there are none if `JAX_PLATFORMS` is set.

    Args:
        root: Directory that contains /dev, /proc and /sys.
        environment: Environment variables.

    Raises:
        MissingDependencyError: As `describe_devices` does.
    """
    listed = describe_devices(root, environment).removeprefix("1 x ")
    suffix = f" ({_num_cores():d} cores)" if jax.default_backend() == "cpu" else ""
    line = f"device: {listed}{suffix}, jax {shown_name(jax.__version__)}"
    return [line, *_unused_plugins(root)]


def in_use_error(reason: str, root: Path = Path("/")) -> MissingDependencyError | None:
    """Returns the error for a TPU that another process holds; None for other reasons.

    Args:
        reason: Message of JAX or libtpu.
        root: Directory that contains /proc.
    """
    if not IN_USE.search(reason):
        return None
    match = re.search(r"process with pid (\d+)", reason)
    pid = match[1] if match else next(_holders(root), "")
    if pid:
        return MissingDependencyError(
            "E07",
            f"another process holds the TPU (process {shown_name(pid)}).",
            f"end it, such as a second notebook: kill {shown_name(pid)}; or set "
            "JAX_PLATFORMS=cpu to use the CPU",
        )
    return MissingDependencyError(
        "E07",
        f"another process holds the TPU, or another user has left /{LOCK_FILE}.",
        f"sudo lsof -w /dev/accel* /dev/vfio/* /{LOCK_FILE} lists processes to end; if "
        f"there are none: sudo rm /{LOCK_FILE}; or set JAX_PLATFORMS=cpu to use the "
        "CPU",
    )


def _holders(root: Path) -> Iterator[str]:
    """Yields the processes that have a TPU or the lock file of libtpu open."""
    # Those of other users cannot be read, and are not found.
    for link in root.glob("proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if HOLDS.fullmatch(target) and link.parts[-3] != str(os.getpid()):
            yield link.parts[-3]


def _num_cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _unused_plugins(root: Path) -> Iterator[str]:
    """Yields a warning for every plug-in that is installed and not used.

    Raises:
        MissingDependencyError: Another process holds the TPU.
    """
    # jax_platforms is JAX_PLATFORMS, or set by the program.
    if getattr(jax.config, "jax_platforms") or jax.default_backend() != "cpu":  # noqa: B009
        return
    jaxlib = metadata.version("jaxlib")
    for name, version in _installed(tuple(PLUGINS)).items():
        platform, extra = PLUGINS[name]
        reason, suffix = _reason(platform) or "JAX found no device for it", ""
        if error := in_use_error(reason, root):
            raise error
        # libtpu has versions of its own; the others are released with jaxlib.
        if platform in ("cuda", "rocm") and _release(version) != _release(jaxlib):
            reason = f"it does not match jaxlib {shown_name(jaxlib)}"
            suffix = f'pip install "mmfusion_jax[{extra}]", or ' if extra else ""
        yield (
            f"warning: {shown_name(name)} {shown_name(version)} is installed, but JAX "
            f"uses the CPU: {reason}; {suffix}set JAX_PLATFORMS=cpu if the CPU is meant"
        )


def _release(version: str) -> str:
    """Returns the numbers at the beginning of a version."""
    match = re.match(r"\d+(\.\d+)*", version)
    return match[0] if match else version


def _reason(platform: str) -> str:
    """Returns why JAX could not initialize a platform; "" if it did not try."""
    try:
        jax.devices(platform)
    except (RuntimeError, AssertionError) as error:
        message = str(error)
        # "Unknown backend" only repeats that the platform is not there.
        if "failed to initialize" not in message:
            return ""
        reason = message.partition("failed to initialize:")[2] or message
        # JAX adds the list of backends, and sometimes advice on JAX_PLATFORMS.
        reason = re.split(r"\(set JAX_PLATFORMS|Available backend", reason)[0]
        return shorten(" ".join(reason.split()).rstrip(" ."))
    return ""


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
    found: Accelerator | None, error: Exception, root: Path
) -> MissingDependencyError:
    """Error for a platform that JAX was configured to use, or has a plug-in for."""
    if in_use := in_use_error(str(error), root):
        return in_use
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
