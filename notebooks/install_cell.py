# @title Install the library, and check the device { display-mode: "form" }
# Generated from install_cell.py, and the same in all notebooks. Packages that are
# recent enough are kept: Colab's JAX matches the plug-in of Colab's accelerator.
import importlib.util
import os
import re
import subprocess
import sys
import warnings
from importlib import metadata
from pathlib import Path

ADDRESS = ""
# Virtual devices on a machine without an accelerator.
CPU_DEVICES = 1
# Extra -> a module that it installs.
MODULES = {}
# Package -> the oldest version that the library supports.
OLDEST = {}
# Accelerator -> package with a plug-in for it -> extra that installs this package.
PLUGINS = {
    "TPU": {"libtpu": "tpu"},
    "GPU": {"jax-cuda12-plugin": "cuda12", "jax-cuda13-plugin": "cuda13"},
}


def read(path):
    """Returns the text of a system file; "" if it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


def find_accelerator(root=Path("/"), environment=os.environ):
    """Returns "TPU", "GPU" or "", by the devices and variables of the system."""
    names = ("TPU_ACCELERATOR_TYPE", "COLAB_TPU_1VM", "COLAB_TPU_ADDR")
    nodes = [*root.glob("dev/accel[0-9]*")]
    vendors = [read(path).strip() for path in root.glob("sys/bus/pci/devices/*/vendor")]
    if "0x1ae0" in vendors:  # Google
        nodes += root.glob("dev/vfio/[0-9]*")
    if nodes or any(environment.get(name) for name in names):
        return "TPU"
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
    return "GPU" if any(root.glob("dev/nvidia[0-9]*")) and not hidden else ""


def installed_versions():
    """Returns package -> version."""
    found = ((one.metadata["Name"], one.version) for one in metadata.distributions())
    return {re.sub("[-_.]+", "-", name).lower(): x for name, x in found if name}


def numbers(version):
    """Returns the first three numbers of a version."""
    return tuple(map(int, re.findall(r"\d+", version)[:3]))


def plugin_extra(accelerator, versions, root=Path("/")):
    """Returns the extra for an accelerator: of the plug-in found, or of the driver."""
    for plugin, extra in PLUGINS[accelerator].items():
        if plugin in versions:
            return extra
    if accelerator == "TPU":
        return "tpu"
    driver = re.search(r" (\d+)\.\d+", read(root / "proc/driver/nvidia/version"))
    return "cuda12" if driver and int(driver[1]) < 580 else "cuda13"


def choose_extras(accelerator, versions, root=Path("/")):
    """Returns the extras to install, such as "demo" or "demo,tpu"."""
    extras = [*MODULES]
    if accelerator:
        plugins = [name for name in PLUGINS[accelerator] if name in versions]
        serves = bool(plugins) and all(
            name in versions and numbers(versions[name]) >= numbers(oldest)
            for name, oldest in OLDEST.items()
        )
        if serves and accelerator == "GPU":  # libtpu has version numbers of its own
            jaxlib = versions.get("jaxlib", "")
            serves = numbers(versions[plugins[0]]) == numbers(jaxlib)
        if not serves:
            extras.append(plugin_extra(accelerator, versions, root))
    return ",".join(extras)


def replaced_in_use(before, after, modules=sys.modules):
    """Returns the packages that were replaced after this kernel had imported them."""
    packages = metadata.packages_distributions()
    used = {
        re.sub("[-_.]+", "-", package).lower()
        for module in {name.partition(".")[0] for name in [*modules]}
        for package in packages.get(module, ())
    }
    return [
        f"{name} {version} by {after.get(name, 'nothing')}"
        for name, version in sorted(before.items())
        if name in used and after.get(name) != version
    ]


def install(extras):
    """Installs the library; an error if this kernel has to be restarted."""
    before = installed_versions()
    wanted = f"mmfusion_jax[{extras}] @ git+{ADDRESS}"
    command = [sys.executable, "-m", "pip", "install", "-q", wanted]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"pip could not install {wanted}:\n{done.stderr}")
    importlib.invalidate_caches()
    if replaced := replaced_in_use(before, installed_versions()):
        raise RuntimeError(
            f"Restart needed: pip replaced {', '.join(replaced)}, and this kernel has "
            "the old version in memory. Choose Runtime > Restart session (Jupyter: "
            "Kernel > Restart), then run all cells again."
        )


def check_device(accelerator, versions):
    """Prints the devices; an error if JAX does not use the accelerator."""
    import jax

    with warnings.catch_warnings():  # what JAX only warns of is an error below
        warnings.simplefilter("ignore")
        try:
            devices = jax.devices()
            problem = "JAX uses the CPU"
        except RuntimeError as error:
            devices = []
            problem = f"JAX does not start: {str(error).splitlines()[0]}"
    on_purpose = os.environ.get("JAX_PLATFORMS", "").startswith("cpu")
    if devices and (devices[0].platform != "cpu" or not accelerator or on_purpose):
        print(f"{len(devices)} x {devices[0].device_kind}")
        return
    kept = ("jax", "jaxlib", *PLUGINS.get(accelerator, ()))
    found = ", ".join(f"{name} {versions[name]}" for name in kept if name in versions)
    extras = [*MODULES]
    if accelerator:
        extras.append(plugin_extra(accelerator, versions))
    raise RuntimeError(
        f"{f'This machine has a {accelerator}, but ' if accelerator else ''}{problem} "
        f"(installed: {found}). Run this in a new cell:\n\n"
        f'    %pip install "mmfusion_jax[{",".join(extras)}] @ git+{ADDRESS}"\n\n'
        "then choose Runtime > Restart session (Jupyter: Kernel > Restart), and run "
        "all cells again. To use the CPU: set JAX_PLATFORMS=cpu before Python starts."
    )


if CPU_DEVICES > 1 and "host_platform_device" not in os.environ.get("XLA_FLAGS", ""):
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(CPU_DEVICES))
accelerator = find_accelerator()
if any(not importlib.util.find_spec(x) for x in ("mmfusion_jax", *MODULES.values())):
    install(choose_extras(accelerator, installed_versions()))
check_device(accelerator, installed_versions())
