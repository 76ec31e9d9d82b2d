"""Imports go down the layers, and flax.linen stays in four packages."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import mmfusion_jax

ROOT = Path(mmfusion_jax.__file__).parent
LAYERS = (
    {"errors", "option_types"},
    {"types", "lazy"},
    {"paths", "results", "user_code"},
    {"error_codes", "ops", "metrics", "safe_load"},
    {"layers", "losses", "data", "weights"},
    {"datasets", "encoders", "fusion", "tasks"},
    {"models", "training"},
    {"config", "analysis"},
    {"cli", "report", "testing"},
    {"runner"},
    {"inference"},
    {"commands"},
    {"__init__", "api", "main", "bench", "__main__"},
)
ENTRY_POINTS = LAYERS[-1]
LINEN = {"layers", "encoders", "fusion", "models"}
FILES = sorted(ROOT.rglob("*.py"))


def package(path: Path) -> str:
    """The folder or module directly below the root that holds `path`."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def layer(name: str) -> int:
    return next(i for i, packages in enumerate(LAYERS) if name in packages)


def imports(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def named(path: Path) -> list[str]:
    """Modules of this package that strings of a file name, such as those of tables."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words = node.value.split(":")[0].split(".")
            if words[0] == "mmfusion_jax" and len(words) > 1 and " " not in node.value:
                found.append(node.value)
    return found


@pytest.mark.versions
def test_every_module_can_be_imported():
    found = pkgutil.walk_packages(mmfusion_jax.__path__, "mmfusion_jax.")
    for module in found:
        importlib.import_module(module.name)


def test_every_file_has_a_layer():
    assert {package(path) for path in FILES} == set().union(*LAYERS)


def test_imports_go_down():
    wrong = []
    for path in FILES:
        here = package(path)
        for name in imports(path):
            if not name.startswith("mmfusion_jax."):
                continue
            there = name.split(".")[1]
            there = "__init__" if there.startswith("__version__") else there
            entries = {here, there} <= ENTRY_POINTS  # one program, in three files
            if there != here and not entries and layer(there) >= layer(here):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


def test_strings_name_modules_of_lower_layers():
    wrong = []
    for path in FILES:
        here = package(path)
        for name in named(path):
            there = name.split(":")[0].split(".")[1]
            entry = here in ENTRY_POINTS | {"commands", "runner"}
            if there != here and not entry and layer(there) >= layer(here):
                wrong.append(f"{path.relative_to(ROOT)} names {name}")
    assert not wrong


def test_no_module_reads_source_text():
    """A file path or a syntax tree is an import that the other tests cannot see."""
    wrong = []
    modules = {path.relative_to(ROOT).as_posix() for path in FILES}
    for path in FILES:
        tree = ast.parse(path.read_text("utf-8"))
        strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)}
        wrong += [
            f"{path.relative_to(ROOT)}: {s}" for s in strings & modules if "/" in s
        ]
        if {"ast", "inspect.getsource", "tokenize"} & set(imports(path)):
            wrong.append(f"{path.relative_to(ROOT)} reads source text")
    assert not wrong


def test_linen_stays_in_its_packages():
    wrong = [
        str(path.relative_to(ROOT))
        for path in FILES
        if package(path) not in LINEN
        and any(name.startswith("flax.linen") for name in imports(path))
    ]
    assert not wrong


def test_data_and_commands_start_without_jax():
    light = ["errors", "main", "bench", "__main__", "commands/data_files"]
    light += ["commands/compare", "commands/doctor"]
    light += ["cli/command", "cli/flags", "config/load", "config/validate"]
    light += ["config/registry", "data/__init__"]
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
        for path in FILES
        for word in banned
        if word in path.read_text("utf-8")
    ]
    assert not found


def test_what_is_traced_does_not_ask_for_the_platform():
    """A step is lowered for chips that are not there: they choose the forms."""
    traced = {"ops", "layers", "losses", "encoders", "fusion", "models"}
    steps = {"step.py", "batch_gradient.py", "state.py", "optimizer.py"}
    asked = [
        path.relative_to(ROOT)
        for path in FILES
        if package(path) in traced or path.name in steps
        if {"default_backend", "devices"}
        & {getattr(node, "attr", "") for node in ast.walk(ast.parse(path.read_text()))}
    ]
    assert not asked
