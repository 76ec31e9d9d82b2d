"""The devices in use are named; an accelerator that lies idle is an error."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jax
import pytest
from paths import ROOT

from mmfusion_jax.cli.command import Command, run_command
from mmfusion_jax.errors import MissingDependencyError
from mmfusion_jax.training import accelerators
from mmfusion_jax.training.accelerators import (
    attached,
    describe_devices,
    device_lines,
    in_use_error,
)

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


@pytest.fixture
def backends(monkeypatch):
    """JAX has the CPU alone; says why it has no other platform."""
    cpu = jax.devices()

    def fail(reasons: dict[str, str]) -> None:
        def devices(platform: str = "cpu"):
            if platform == "cpu":
                return cpu[:1]
            if platform in reasons:
                raise RuntimeError(
                    f"Backend '{platform}' failed to initialize: {reasons[platform]}. "
                    "Available backends are ['cpu']"
                )
            raise RuntimeError(f"Unknown backend {platform}. Available are ['cpu']")

        monkeypatch.setattr(jax, "devices", devices)

    fail({})
    return fail


def test_the_line_of_a_command(machine, packages, undecided, backends, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5})
    line = f"device: cpu (3 cores), jax {jax.__version__}"
    assert device_lines(machine({}), {}) == [line]


@pytest.mark.parametrize(
    ("installed", "reasons", "words"),
    [
        (
            {"libtpu": "0.0.50"},
            {"tpu": "INTERNAL: no TPU"},
            "libtpu 0.0.50 is installed, but JAX uses the CPU: INTERNAL: no TPU; set "
            "JAX_PLATFORMS=cpu if the CPU is meant",
        ),
        (
            {"jax_cuda12_plugin": "0.7.2"},
            {"cuda": "hidden"},
            "jax-cuda12-plugin 0.7.2 is installed, but JAX uses the CPU: it does not "
            'match jaxlib 0.12.0; pip install "mmfusion_jax[cuda12]", or set '
            "JAX_PLATFORMS=cpu if the CPU is meant",
        ),
        (
            {"jax_cuda13_plugin": "0.12.0"},
            {},
            "jax-cuda13-plugin 0.12.0 is installed, but JAX uses the CPU: JAX found no "
            "device for it; set JAX_PLATFORMS=cpu if the CPU is meant",
        ),
        (
            {"jax_metal": "0.1.1"},
            {"METAL": "too\nold"},
            "jax-metal 0.1.1 is installed, but JAX uses the CPU: too old; set "
            "JAX_PLATFORMS=cpu if the CPU is meant",
        ),
    ],
)
def test_a_plug_in_that_is_not_used_is_a_warning(
    machine, packages, undecided, backends, installed, reasons, words
):
    packages(jaxlib="0.12.0", **installed)
    backends(reasons)
    root = machine({})
    assert device_lines(root, {})[1:] == [f"warning: {words}"]
    jax.config.update("jax_platforms", "cpu")  # as JAX_PLATFORMS=cpu does
    assert device_lines(root, {})[1:] == []


def test_a_plug_in_that_is_used_is_not_a_warning(
    machine, packages, undecided, backends, monkeypatch
):
    packages(jaxlib="0.12.0", libtpu="0.0.50")
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert len(device_lines(machine({}), {})) == 1


LOCKED = (
    "The TPU is already in use by process with pid 4321. Not attempting to load "
    "libtpu.so in this process.",
    "ABORTED: The TPU is already in use by another process probably owned by another "
    'user. Run "$ sudo lsof -w /dev/accel0" to figure out which process is using it.',
    "Internal error when accessing libtpu multi-process lockfile. Run "
    '"$ sudo rm /tmp/libtpu_lockfile".',
)


@pytest.mark.parametrize("sentence", LOCKED)
def test_the_process_that_holds_the_tpu_is_named(
    machine, packages, undecided, backends, sentence
):
    packages(jaxlib="0.12.0", libtpu="0.0.50")
    backends({"tpu": f"UNKNOWN: {sentence}"})
    root = machine({"proc/77/fd/x": ""})
    (root / "proc/77/fd/3").symlink_to("/dev/null")
    unknown = (
        []
        if "4321" in sentence
        else ["another user has left", "sudo rm /tmp/libtpu_lockfile"]
    )
    for environment in ({"TPU_ACCELERATOR_TYPE": "v5e-1"}, {}):
        with pytest.raises(MissingDependencyError, match="another process holds") as e:
            device_lines(root, environment)
        assert e.value.code == "E07" and "JAX_PLATFORMS=cpu" in e.value.fix
        assert all(words in str(e.value) for words in unknown)
    (root / "proc/77/fd/4").symlink_to("/dev/vfio/0")
    pid = "77" if unknown else "4321"
    with pytest.raises(MissingDependencyError, match=rf"TPU \(process {pid}\)") as e:
        device_lines(root, {})
    assert f"kill {pid};" in e.value.fix


@pytest.mark.parametrize("sentence", LOCKED)
def test_a_platform_that_was_chosen_may_be_in_use(machine, monkeypatch, sentence):
    def fails():
        raise RuntimeError(f"Unable to initialize backend 'tpu': {sentence}")

    monkeypatch.setattr(jax, "devices", fails)
    with pytest.raises(MissingDependencyError, match="E07"):
        describe_devices(machine({}), {})
    assert in_use_error("Unable to initialize backend 'tpu': no device") is None


def test_a_command_that_starts_jax_itself_names_the_process(capsys, tmp_path):
    def late(_):
        raise RuntimeError(LOCKED[0])

    command = Command("late", "Uses JAX late.", late, needs_config=False)
    assert run_command(command, [f"--workdir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert "error[E07] another process holds the TPU (process 4321)." in err


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
