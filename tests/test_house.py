"""Imports go down the floors, and flax.linen stays in its four rooms."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import mmfusion_jax

ROOT = Path(mmfusion_jax.__file__).parent
FLOORS = (
    {"types", "errors", "choices"},
    {"ops"},
    {"layers"},
    {"encoders", "fusion", "losses", "metrics", "data", "weights"},
    {"models", "tasks"},
    {"train"},
    {"analysis"},
    {
        "build",
        "build_optimiser",
        "model_swap",
        "lookup",
        "provenance",
        "report",
        "config_check",
        "config_file",
        "arguments",
    },
    {
        "run",
        "work_folder",
        "experiment",
        "inspection",
        "dissection",
        "measurement",
        "startup",
        "cli",
        "doctor",
    },
    {"main", "bench", "__init__"},
    {"__main__"},
)
LINEN = {"layers", "encoders", "fusion", "models"}


def room(path: Path) -> str:
    if path == ROOT / "__main__.py":  # all commands
        return "__main__"
    if path.name == "__main__.py":  # a command, wherever it is
        return "main"
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def floor(name: str) -> int:
    return next(i for i, rooms in enumerate(FLOORS) if name in rooms)


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@pytest.mark.versions
def test_every_module_can_be_imported():
    found = pkgutil.walk_packages(mmfusion_jax.__path__, "mmfusion_jax.")
    for module in found:
        importlib.import_module(module.name)


def test_every_file_has_a_floor():
    rooms = {room(path) for path in ROOT.rglob("*.py")}
    assert rooms <= set().union(*FLOORS)


def test_imports_go_down():
    wrong = []
    for path in ROOT.rglob("*.py"):
        here = room(path)
        for name in imports(path):
            if not name.startswith("mmfusion_jax."):
                continue
            there = name.split(".")[1]
            same_room = there == here or floor(there) == floor(here) in (0, 7, 8)
            if not same_room and floor(there) >= floor(here):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_linen_stays_in_its_rooms():
    wrong = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if room(path) not in LINEN
        and any(name.startswith("flax.linen") for name in imports(path))
    ]
    assert not wrong


def test_data_and_commands_start_without_jax():
    light = ("errors", "choices", "cli", "config_check", "config_file", "main")
    light += ("data/__init__", "data/__main__")
    for name in light:
        path = ROOT / f"{name}.py"
        tree = ast.parse(path.read_text("utf-8"))
        top = [n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)]
        names = [getattr(n, "module", None) or n.names[0].name for n in top]
        assert not [n for n in names if n.split(".")[0] in ("jax", "flax")], name


def test_no_machine_paths_and_no_unsafe_calls():
    banned = ("/work/", "/tmp/", "../shared", "pickle.load", "allow_pickle=True")
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in ROOT.rglob("*.py")
        for word in banned
        if word in path.read_text("utf-8")
    ]
    assert not found
