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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = ROOT / "notebooks"
NAMES = sorted({path.stem for path in NOTEBOOKS.glob("*.py")} - {"build"})
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ADDRESS = PROJECT["urls"]["Repository"]
# matplotlib before 3.10.7 calls names that a newer pyparsing calls old.
OLD_MATPLOTLIB = [
    f"-Wignore::DeprecationWarning:{module}"
    for module in ("matplotlib._fontconfig_pattern", "matplotlib._mathtext")
]


def run(name: str, folder: Path, cache_dir: Path, devices: int) -> str:
    """What a notebook prints, cut to a few steps."""
    source = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
    short, count = re.subn(r"^STEPS = \d+$", "STEPS = 4", source, flags=re.MULTILINE)
    assert count == 1
    script = folder / f"{name}_{devices}.py"
    script.write_text(short, encoding="utf-8")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache_dir / "xla"),
        # Most of the time goes into compilation; this takes off a third of it.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "MMFUSION_CACHE": str(cache_dir / "digits"),
        "MPLBACKEND": "agg",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", *OLD_MATPLOTLIB, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(name: str) -> list[nbformat.NotebookNode]:
    """The cells of an ipynb, as it is in the repository."""
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", nbformat.NO_CONVERT).cells


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


@pytest.mark.parametrize("name", NAMES)
def test_a_badge_opens_the_notebook_of_the_repository(name):
    place = ADDRESS.removeprefix("https://github.com/")
    page = f"github/{place}/blob/main/notebooks/{name}.ipynb"
    badge = "https://colab.research.google.com/assets/colab-badge.svg"
    link = f"[![Open in Colab]({badge})](https://colab.research.google.com/{page})"
    assert link in (ROOT / "README.md").read_text("utf-8")


def test_another_address_is_written_everywhere(build, tmp_path):
    for path in build.contents():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(path, copy)
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    other = text.replace(ADDRESS, "https://github.com/someone/other")
    (tmp_path / "pyproject.toml").write_text(other, "utf-8")
    for text in build.contents(tmp_path).values():
        assert "github.com/someone/other" in text or "github/someone/other/" in text
        assert ADDRESS.removeprefix("https://github.com/") not in text


def commands_of_the_first_cell(
    monkeypatch, name: str, *, missing: bool, code: int = 0
) -> list[list[str]]:
    """What the first cell would run, where the library is there or missing."""
    commands = []

    def pip(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, code, "", "no network")

    monkeypatch.setattr(subprocess, "run", pip)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None if missing else 1)
    first = next(cell.source for cell in cells(name) if cell.cell_type == "code")
    exec(first, {})
    return commands


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_installs_what_is_missing(monkeypatch, name):
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    wanted = f"mmfusion_jax[demo] @ git+{ADDRESS}"
    assert commands_of_the_first_cell(monkeypatch, name, missing=False) == []
    ran = commands_of_the_first_cell(monkeypatch, name, missing=True)
    assert ran == [[*pip, wanted]]
    with pytest.raises(RuntimeError, match="no network"):
        commands_of_the_first_cell(monkeypatch, name, missing=True, code=1)


@pytest.mark.ci
def test_quickstart_is_the_same_on_one_device_and_on_eight(tmp_path, cache_dir):
    with ThreadPoolExecutor() as both:
        told = list(
            both.map(lambda n: run("quickstart", tmp_path, cache_dir, n), (1, 8))
        )
    assert told[0].startswith("1 x cpu\n") and told[1].startswith("8 x cpu\n")
    losses = [re.search(r"loss ([\d.]+) -> ([\d.]+)", text) for text in told]
    one, eight = ([float(x) for x in found.groups()] for found in losses if found)
    assert one == pytest.approx(eight, abs=2e-3)
    assert "both" in told[0]


@pytest.mark.ci
def test_loss_gradients(tmp_path, cache_dir):
    told = run("loss_gradients", tmp_path, cache_dir, 1)
    assert told.startswith("1 x cpu\n")
    assert "reaches:" in told and "head" not in told.split("reaches:")[1].split("\n")[0]
    assert re.search(r"^consistency +[+-]", told, re.MULTILINE)
