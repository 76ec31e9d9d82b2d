"""The devices in use are named; an accelerator that lies idle is an error."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import pytest
from paths import ROOT

from mmfusion_jax.errors import MissingDependencyError
from mmfusion_jax.training import accelerators
from mmfusion_jax.training.accelerators import attached, describe_devices

PROC = "proc/driver/nvidia/version"
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}.54.15  Tue Mar  5 2026"
PCI = "sys/bus/pci/devices/0000:00:05.0/vendor"


@pytest.fixture
def machine(tmp_path):
    """Makes the folders of a machine from its files and their content."""

    def make(files: dict[str, str]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


@pytest.fixture
def packages(monkeypatch):
    """Says what is installed in place of what is."""

    def install(**versions: str) -> None:
        def version(name: str) -> str:
            if name.replace("-", "_") in versions:
                return versions[name.replace("-", "_")]
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(accelerators.metadata, "version", version)

    install(jaxlib="0.12.0")
    return install


@pytest.fixture
def undecided():
    """Nobody has chosen a platform, as the tests do for themselves."""
    before = getattr(jax.config, "jax_platforms")  # noqa: B009
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", before)


@pytest.mark.parametrize(
    ("environment", "files", "sign"),
    [
        ({"TPU_ACCELERATOR_TYPE": "v5e-1"}, {}, "TPU_ACCELERATOR_TYPE=v5e-1"),
        ({"COLAB_TPU_1VM": "1"}, {}, "COLAB_TPU_1VM=1"),
        ({"COLAB_TPU_ADDR": "10.0.0.2:8470"}, {}, "COLAB_TPU_ADDR=10.0.0.2:8470"),
        ({"PJRT_DEVICE": "TPU"}, {}, "PJRT_DEVICE=TPU"),
        ({}, {"dev/accel1": "", "dev/accel0": ""}, "/dev/accel0"),
        ({}, {"dev/vfio/0": "", PCI: "0x1ae0\n"}, "/dev/vfio/0"),
    ],
)
def test_a_tpu_is_seen(machine, environment, files, sign):
    found = attached(machine(files), environment)
    assert found and (found.name, found.sign, found.extra) == ("a TPU", sign, "tpu")


@pytest.mark.parametrize(
    ("environment", "files"),
    [
        ({}, {}),
        ({"COLAB_TPU_1VM": ""}, {}),  # Colab without a TPU
        ({"TPU_NAME": "node"}, {}),  # the TPU is another machine
        ({"PJRT_DEVICE": "CPU"}, {}),
        ({}, {"dev/accel/accel0": ""}),  # another maker's
        ({}, {"dev/vfio/vfio": "", PCI: "0x1ae0\n"}),  # no device
        ({}, {"dev/vfio/12": "", PCI: "0x8086\n"}),
        ({}, {PROC: DRIVER.format(580)}),  # a container that was given no GPU
        ({}, {"dev/nvidiactl": ""}),
        ({"CUDA_VISIBLE_DEVICES": ""}, {"dev/nvidia0": ""}),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, {"dev/nvidia0": ""}),
    ],
)
def test_no_accelerator_is_seen(machine, environment, files):
    assert attached(machine(files), environment) is None


@pytest.mark.parametrize(
    ("driver", "installed", "extra", "note"),
    [
        (DRIVER.format(580), {}, "cuda13", ""),
        (DRIVER.format(550), {}, "cuda12", "driver 550 is too old for CUDA 13"),
        (DRIVER.format(580), {"jax_cuda12_plugin": "0.7.2"}, "cuda12", ""),
        (DRIVER.format(580), {"jax_cuda13_plugin": "0.7.2"}, "cuda13", ""),
        (None, {}, "cuda13", ""),
    ],
)
def test_the_extra_of_a_gpu_fits_its_driver(
    machine, packages, driver, installed, extra, note
):
    packages(**installed)
    files = {"dev/nvidia3": ""} | ({PROC: driver} if driver else {})
    found = attached(machine(files), {"CUDA_VISIBLE_DEVICES": "0"})
    assert found and (found.name, found.sign) == ("an NVIDIA GPU", "/dev/nvidia3")
    assert (found.extra, found.note) == (extra, note)


def test_the_devices_are_counted_and_named(machine, undecided):
    assert describe_devices(machine({}), {}) == f"{jax.device_count()} x cpu"


def test_an_idle_tpu_is_an_error_with_a_fix(machine, packages, undecided):
    with pytest.raises(MissingDependencyError) as caught:
        describe_devices(machine({}), {"TPU_ACCELERATOR_TYPE": "v5e-1"})
    assert str(caught.value) == (
        "error[E04] this machine has a TPU (TPU_ACCELERATOR_TYPE=v5e-1), but JAX uses "
        "the CPU; installed: jaxlib 0.12.0 without libtpu.\n"
        '  fix: pip install "mmfusion_jax[tpu]", then start Python again (on Colab: '
        "restart the runtime), or set JAX_PLATFORMS=cpu to use the CPU"
    )


def test_a_plug_in_that_does_not_fit_is_named(machine, packages, undecided):
    packages(jaxlib="0.12.0", jax_cuda12_plugin="0.7.2")
    root = machine({"dev/nvidia0": "", PROC: DRIVER.format(550)})
    with pytest.raises(
        MissingDependencyError, match=r"0\.12\.0, jax-cuda12-plugin 0\.7\.2"
    ) as caught:
        describe_devices(root, {})
    assert caught.value.fix.startswith(
        'pip install "mmfusion_jax[cuda12]" (driver 550 is too old for CUDA 13), then'
    )


def test_two_plug_ins_for_one_gpu_are_not_left(machine, packages, undecided):
    packages(jaxlib="0.12.0", jax_cuda13_plugin="0.12.0")
    with pytest.raises(MissingDependencyError) as caught:
        describe_devices(machine({"dev/nvidia0": "", PROC: DRIVER.format(550)}), {})
    assert caught.value.fix.startswith(
        "pip uninstall -y jax-cuda13-plugin jax-cuda13-pjrt && "
        'pip install "mmfusion_jax[cuda12]"'
    )


@pytest.mark.parametrize("platforms", ["cpu", "cpu,cuda"])  # the first is preferred
def test_whoever_chose_the_cpu_gets_it(machine, undecided, platforms):
    jax.config.update("jax_platforms", platforms)
    assert describe_devices(machine({"dev/nvidia0": ""}), {}).endswith(" x cpu")


def test_a_usable_accelerator_may_stay_unused(machine, undecided, monkeypatch):
    cpu = jax.devices()
    monkeypatch.setattr(jax, "devices", lambda platform=None: cpu)
    root = machine({"dev/nvidia0": ""})
    assert describe_devices(root, {}).endswith(" x cpu")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no backend 'tpu': in use by pid 7\nmore"), "in use by pid 7"),
        (AssertionError(), "no such device"),
    ],
)
def test_a_platform_that_fails_to_initialize_is_an_error(
    machine, monkeypatch, packages, error, reason
):
    def fails():
        raise error

    monkeypatch.setattr(jax, "devices", fails)
    with pytest.raises(
        MissingDependencyError, match=f"E04.*failed to initialize.*: .*{reason}\n"
    ) as caught:
        describe_devices(machine({}), {})
    assert caught.value.fix == "unset JAX_PLATFORMS, or set JAX_PLATFORMS=cpu"
    with pytest.raises(MissingDependencyError, match=reason) as caught:
        describe_devices(machine({}), {"COLAB_TPU_1VM": "1"})
    assert caught.value.fix.startswith('pip install "mmfusion_jax[tpu]"')


def test_commands_check_the_devices_first():
    words = ["--config=configs/cfn_sr.py", "--mode=inspect"]
    done = subprocess.run(
        [sys.executable, "-m", "mmfusion_jax.main", *words],
        env=os.environ | {"JAX_PLATFORMS": "rocm"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2 and not done.stdout
    error = "error[E04] JAX failed to initialize with jax_platforms='rocm'"
    assert error in done.stderr
    fix = "  fix: unset JAX_PLATFORMS, or set JAX_PLATFORMS=cpu\n"
    assert done.stderr.endswith(fix)
