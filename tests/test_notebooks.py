"""The notebooks run as they stand, with fewer steps, on one device and on eight.

Their ipynb, what these install, and the badges that open them are current.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import jax
import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
SHORT = {"STEPS": 4, "EPOCHS": 1, "ITERATIONS": 2}
"""Constant of a notebook -> its value in a short run."""

EXTRAS = {name: "demo,media" if name == "own_clips" else "demo" for name in NAMES}


def execute(name: str, folder: Path, cache_dir: Path, short: bool, **variables) -> str:
    """Executes an ipynb in a kernel, and returns what it prints.

    Args:
        name: Name of the notebook.
        folder: Folder in which it runs.
        cache_dir: Folder of the compilation cache and of the digits.
        short: Cut it to a few steps.
        variables: Further environment variables.
    """
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", nbformat.NO_CONVERT)
    count = 0
    for cell in notebook.cells if short else ():
        pattern = rf"^({'|'.join(SHORT)}) = \d+\b"
        fewer = lambda match: f"{match[1]} = {SHORT[match[1]]}"
        cell.source, found = re.subn(pattern, fewer, cell.source, flags=re.MULTILINE)
        count += found
    assert bool(count) == short
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache_dir / "xla"),
        # Most of the time of a short run is compilation; this takes off a third of it.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(short)),
        "MMFUSION_CACHE": str(cache_dir / "digits"),
        **variables,
    }
    context = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=1200, resources=context)
    client.execute(env=environment)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    kinds = [output.output_type for output in outputs]
    # A display is a figure; an execute_result is the repr of an object.
    assert set(kinds) == {"stream", "display_data"}, kinds
    assert all("image/png" in x.data for x in outputs if "data" in x)
    text = "".join(output.text for output in outputs if "text" in output)
    # tqdm warns where ipywidgets, which Colab has, is not installed.
    assert "Warning" not in text.replace("TqdmWarning", ""), text
    return text


def cells(name: str) -> list[nbformat.NotebookNode]:
    """The cells of an ipynb, as it is in the repository."""
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", nbformat.NO_CONVERT).cells


def first_cell(name: str) -> str:
    """The source of the first code cell of an ipynb."""
    return next(cell.source for cell in cells(name) if cell.cell_type == "code")


@pytest.fixture(scope="module")
def build():
    """The command that makes the ipynb files."""
    spec = importlib.util.spec_from_file_location(
        "build_notebooks", NOTEBOOKS / "build.py"
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_marked(name):
    text = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert "/work" not in text and len(re.findall("^# %%", text, re.MULTILINE)) > 6


def test_the_files_are_what_the_command_makes(build):
    made = build.contents()
    assert sorted(path.stem for path in made if path.suffix == ".ipynb") == NAMES
    for path, text in made.items():
        # Otherwise: python notebooks/build.py
        assert path.read_text("utf-8") == text, path.name


@pytest.mark.parametrize("name", NAMES)
def test_an_ipynb_is_valid(name):
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert notebook.metadata.colab.name == f"{name}.ipynb"
    numbers = [cell.id for cell in notebook.cells]
    assert len(set(numbers)) == len(numbers)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first.metadata == {"cellView": "form", "tags": ["hide-input"]}


@pytest.mark.parametrize("name", NAMES)
def test_a_badge_opens_the_notebook_of_the_repository(name):
    place = ADDRESS.removeprefix("https://github.com/")
    page = f"github/{place}/blob/main/notebooks/{name}.ipynb"
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    link = f"[![Open in Colab]({badge})](https://colab.research.google.com/{page})"
    assert link in (ROOT / "README.md").read_text("utf-8")
    assert cells(name)[0].source.splitlines()[2] == link


def test_another_address_is_written_everywhere(build, tmp_path):
    for path in build.contents():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    shutil.copy(NOTEBOOKS / "install_cell.py", tmp_path / "notebooks")
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    other = text.replace(ADDRESS, "https://github.com/someone/other")
    (tmp_path / "pyproject.toml").write_text(other, "utf-8")
    for text in build.contents(tmp_path).values():
        assert "github.com/someone/other" in text or "github/someone/other/" in text
        assert ADDRESS.removeprefix("https://github.com/") not in text


COLAB = {
    "jax": "0.7.2",
    "jaxlib": "0.7.2",
    "flax": "0.11.2",
    "optax": "0.2.8",
    "orbax-checkpoint": "0.12.4",
    "chex": "0.1.90",
    "numpy": "2.1.3",
}
"""What Colab had in August 2026."""

NEWER = COLAB | {"jax": "0.12.0.1", "jaxlib": "0.12.0.1"}
CUDA_12, CUDA_13 = "jax-cuda12-plugin", "jax-cuda13-plugin"


@pytest.fixture
def functions(monkeypatch):
    """The functions of the first cell, which runs where the library is installed."""
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    found: dict = {}
    exec(first_cell("loss_gradients"), found)
    return SimpleNamespace(**found)


@pytest.mark.parametrize(
    ("accelerator", "versions", "driver", "extras"),
    [
        ("", COLAB, "", "demo"),
        ("", {}, "", "demo"),
        # A plug-in without its accelerator is not replaced.
        ("", NEWER | {CUDA_12: "0.7.2"}, "", "demo"),
        ("TPU", COLAB | {"libtpu": "0.0.21.1"}, "", "demo"),
        ("TPU", {}, "", "demo,tpu"),
        ("TPU", COLAB, "", "demo,tpu"),
        ("TPU", COLAB | {"jax": "0.5.2", "libtpu": "0.0.10"}, "", "demo,tpu"),
        ("GPU", COLAB | {CUDA_12: "0.7.2"}, "", "demo"),
        ("GPU", NEWER | {CUDA_13: "0.12.0.1"}, "", "demo"),
        ("GPU", NEWER | {CUDA_12: "0.7.2"}, "", "demo,cuda12"),
        ("GPU", COLAB | {"flax": "0.9", CUDA_12: "0.7.2"}, "580.1", "demo,cuda12"),
        ("GPU", COLAB | {"numpy": "1.26.4", CUDA_13: "0.7.2"}, "", "demo,cuda13"),
        ("GPU", COLAB, "550.54.15", "demo,cuda12"),
        ("GPU", {}, "580.65.06", "demo,cuda13"),
        ("GPU", {}, "", "demo,cuda13"),
    ],
)
def test_the_extras_are_those_of_the_hardware(
    functions, tmp_path, accelerator, versions, driver, extras
):
    if driver:
        file = tmp_path / "proc/driver/nvidia/version"
        file.parent.mkdir(parents=True)
        file.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver}  x")
    assert functions.choose_extras(accelerator, versions, tmp_path) == extras


@pytest.mark.parametrize(
    ("files", "variables", "accelerator"),
    [
        ({}, {}, ""),
        ({}, {"COLAB_TPU_ADDR": "", "TPU_NAME": "mine"}, ""),
        ({}, {"COLAB_TPU_1VM": "1"}, "TPU"),
        ({}, {"TPU_ACCELERATOR_TYPE": "v5litepod-1"}, "TPU"),
        ({"dev/accel0": ""}, {}, "TPU"),
        ({"dev/vfio/0": "", "sys/bus/pci/devices/a/vendor": "0x1ae0\n"}, {}, "TPU"),
        ({"dev/vfio/0": "", "sys/bus/pci/devices/a/vendor": "0x10de\n"}, {}, ""),
        ({"dev/nvidia0": ""}, {}, "GPU"),
        ({"dev/nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": "0"}, "GPU"),
        ({"dev/nvidia0": ""}, {"CUDA_VISIBLE_DEVICES": "-1"}, ""),
        ({"dev/nvidiactl": ""}, {}, ""),
    ],
)
def test_an_accelerator_is_found(functions, tmp_path, files, variables, accelerator):
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert functions.find_accelerator(tmp_path, variables) == accelerator


@pytest.fixture
def colab(monkeypatch):
    """Runs the first cell of a notebook in a fake runtime of Colab.

    Its result is the command for pip and the extras.
    """
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "2")
    jax.devices()  # finds its plug-ins before the packages are fake ones

    def run(name, before=COLAB, after=COLAB, missing=("mmfusion_jax",), code=0):
        versions, commands = [before], []

        def pip(command, **options):
            commands.append(command)
            versions.append(after)
            return subprocess.CompletedProcess(command, code, "", "no network")

        def distributions():
            named = lambda x: {"Name": x.replace("-", "_")}
            pairs = versions[-1].items()
            return [SimpleNamespace(metadata=named(k), version=v) for k, v in pairs]

        packages = {name: [name] for name in (*COLAB, "new", "unused")}
        monkeypatch.setattr(subprocess, "run", pip)
        monkeypatch.setattr(importlib.util, "find_spec", lambda x: x not in missing)
        monkeypatch.setattr(metadata, "distributions", distributions)
        monkeypatch.setattr(metadata, "packages_distributions", lambda: packages)
        exec(first_cell(name), {})
        return commands

    return run


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_installs_what_is_missing(colab, name, capsys):
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    wanted = f"mmfusion_jax[{EXTRAS[name]}] @ git+{ADDRESS}"
    assert colab(name, missing=()) == []
    assert colab(name) == [[*pip, wanted]]
    assert colab(name, missing=["av"]) == ([[*pip, wanted]] if "," in wanted else [])
    assert capsys.readouterr().out == "2 x cpu\n" * 3
    with pytest.raises(RuntimeError, match=r"pip could not install .*\nno network"):
        colab(name, code=1)


def test_packages_replaced_in_use_need_a_restart(colab):
    after = COLAB | {"numpy": "2.5.5"}
    with pytest.raises(RuntimeError, match=r"numpy 2\.1\.3 by 2\.5\.5.* Restart sess"):
        colab("quickstart", after=after)
    with pytest.raises(RuntimeError, match=r"Restart needed: pip replaced jax 0\.7\.2"):
        colab("quickstart", after=NEWER)
    # A new package is not in use, and an old one that nobody imported is not either.
    before, after = {"unused": "1"}, {"unused": "2", "new": "1"}
    assert colab("quickstart", before=COLAB | before, after=COLAB | after)


def test_an_accelerator_that_is_not_used_is_one_error(colab, monkeypatch, capsys):
    monkeypatch.setenv("COLAB_TPU_1VM", "1")
    present = COLAB | {"libtpu": "0.0.21.1"}
    assert colab("own_clips", before=present, missing=()) == []
    assert capsys.readouterr().out == "2 x cpu\n"  # JAX_PLATFORMS=cpu asks for it
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(RuntimeError) as raised:
        colab("own_clips", before=present, missing=())
    assert "a TPU, but JAX uses the CPU (installed: jax 0.7.2," in str(raised.value)
    assert "libtpu 0.0.21.1)" in str(raised.value)
    cure = f'%pip install "mmfusion_jax[demo,media,tpu] @ git+{ADDRESS}"'
    assert cure in str(raised.value) and "Restart session" in str(raised.value)
    assert capsys.readouterr().out == ""


def test_an_accelerator_that_is_used(colab, monkeypatch, capsys):
    monkeypatch.setenv("COLAB_TPU_1VM", "1")
    monkeypatch.delenv("JAX_PLATFORMS")
    chip = SimpleNamespace(platform="tpu", device_kind="TPU v5 lite")
    monkeypatch.setattr(jax, "devices", lambda: [chip])
    assert colab("quickstart", before=COLAB | {"libtpu": "0.0.21.1"}, missing=()) == []
    assert capsys.readouterr().out == "1 x TPU v5 lite\n"


def test_jax_that_does_not_start_is_one_error(colab, monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'tpu'\nmore")

    monkeypatch.setenv("COLAB_TPU_1VM", "1")
    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(
        RuntimeError, match="JAX does not start: Unable to init.*'tpu' "
    ):
        colab("quickstart", before=COLAB | {"libtpu": "0.0.21.1"}, missing=())


@pytest.mark.parametrize(
    ("variables", "devices"),
    [({}, "8"), ({"XLA_FLAGS": "--a=host_platform_device"}, None)],
)
def test_quickstart_makes_virtual_devices(colab, monkeypatch, variables, devices):
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES")
    colab("loss_gradients", missing=())
    assert "JAX_NUM_CPU_DEVICES" not in os.environ
    colab("quickstart", missing=())
    assert os.environ.pop("JAX_NUM_CPU_DEVICES", None) == devices


@pytest.mark.ci
def test_quickstart_is_the_same_on_one_device_and_on_eight(tmp_path, cache_dir):
    text = execute("quickstart", tmp_path, cache_dir, short=True)
    assert text.startswith("8 x cpu\n") and "losses on 8 of 8 devices" in text
    found = re.search(r"largest difference: ([\d.e-]+)", text)
    assert found and float(found[1]) < 2e-3
    assert re.search(r"^  both +0\.\d{3}$", text, re.MULTILINE)


@pytest.mark.ci
def test_loss_gradients(tmp_path, cache_dir):
    text = execute("loss_gradients", tmp_path, cache_dir, short=True)
    assert text.startswith("1 x cpu\n")
    assert "reaches:" in text and "head" not in text.split("reaches:")[1].split("\n")[0]
    assert re.search(r"^consistency +([+-][01]\.\d\d ){3}\+1\.00$", text, re.MULTILINE)
    assert re.search(r"^consistency +[+-][\d.]+ +[+-][\d.]+$", text, re.MULTILINE)


@pytest.mark.ci
def test_own_clips(tmp_path, cache_dir):
    text = execute("own_clips", tmp_path, cache_dir, short=True)
    assert "90 clips in clips" in text and "speakers: 10: " in text
    assert "problem:" not in text
    assert re.search(r"^new\.mp4: \w+, missing: nothing$", text, re.MULTILINE)
    assert re.search(r"^new_silent\.mp4: \w+, missing: audio$", text, re.MULTILINE)


@pytest.mark.ci
def test_own_fusion(tmp_path, cache_dir):
    text = execute("own_fusion", tmp_path, cache_dir, short=True)
    assert "GatedExchange: position 4 of 'audio' of example 1 is masked, but " in text
    assert "MaskedExchange: 15 properties hold" in text
    assert "Difference to own_block" in text and "late_fusion" in text


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_as_they_stand(name, devices, tmp_path, cache_dir):
    flags = f"--xla_force_host_platform_device_count={devices}"
    text = execute(name, tmp_path, cache_dir, short=False, XLA_FLAGS=flags)
    assert text.startswith(f"{devices} x cpu\n")
