"""Public names: the lists, what they import, and that static analysis knows them."""

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from public_names import PACKAGES, public

import mmfusion_jax as mmf
from mmfusion_jax import datasets, encoders, losses, metrics, models
from mmfusion_jax.data.augment.registry import AUGMENTATIONS
from mmfusion_jax.data.registry import DATASETS


def imported(code: str) -> set[str]:
    """Top-level packages that a new process has imported after some code."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def test_importing_the_package_imports_no_array_library():
    arrays = {"jax", "flax", "numpy", "optax"}
    lists = "\n".join(f"import {package}; dir({package})" for package in PACKAGES)
    assert not imported("import sys, mmfusion_jax\nprint(*sys.modules)") & arrays
    assert not imported(f"import sys\n{lists}\nprint(*sys.modules)") & arrays


def test_help_does_not_import_jax():
    code = (
        "import sys\nsys.argv = ['mmfusion_jax', '--help']\n"
        "from mmfusion_jax.__main__ import run\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\nprint(*sys.modules)"
    )
    assert not imported(code) & {"jax", "flax", "optax", "matplotlib"}


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_exists(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(public(package))
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        assert vars(module)[name] is value  # found once, then an attribute
        path = public(package)[name]
        source, _, attribute = path.partition(":")
        found = importlib.import_module(source)
        assert value is (getattr(found, attribute) if attribute else found)


@pytest.mark.parametrize("package", PACKAGES)
def test_type_checkers_see_the_same_names(package):
    """The imports under TYPE_CHECKING are the public names, from the same modules."""
    module = importlib.import_module(package)
    tree = ast.parse(Path(inspect.getfile(module)).read_text("utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names:
            assert alias.asname, f"'as {alias.name}' marks it as public"
            is_module = f"{node.module}.{alias.name}" in public(package).values()
            joint = "." if is_module else ":"
            seen[alias.asname] = f"{node.module}{joint}{alias.name}"
    assert seen == public(package)


def test_the_tables_of_short_names_are_public():
    tables = {
        encoders: (encoders.ENCODERS,),
        losses: (losses.LOSSES,),
        metrics: (metrics.METRICS, metrics.METRIC_FAMILIES),
        models: (models.MODELS,),
        mmf.data: (AUGMENTATIONS,),
    }
    for module, paths in tables.items():
        for path in (path for table in paths for path in table.values()):
            assert module.PUBLIC[path.partition(":")[2]] == path
    assert datasets.PUBLIC == DATASETS


@pytest.mark.parametrize("package", PACKAGES)
def test_dir_has_the_public_names_only(package):
    shown = {n for n in dir(importlib.import_module(package)) if n[:2] != "__"}
    assert shown == set(public(package))


def test_an_unknown_name_suggests_the_closest_one():
    with pytest.raises(AttributeError, match="'BERT'; did you mean 'Bert'"):
        mmf.encoders.BERT  # noqa: B018  # pyright: ignore
    with pytest.raises(AttributeError, match="'AudioConf'; did you mean 'AudioConv'"):
        mmf.encoders.AudioConf  # noqa: B018  # pyright: ignore
    with pytest.raises(AttributeError, match="'encoder'; did you mean 'encoders'"):
        mmf.encoder  # noqa: B018  # pyright: ignore
    assert not hasattr(mmf, "__wrapped__")


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_hides_a_public_name(package):
    """Importing a module sets an attribute of its package, such as `train`."""
    module = importlib.import_module(package)
    modules = {entry.name for entry in pkgutil.iter_modules(module_path(module))}
    own = {name for name, path in public(package).items() if ":" not in path}
    assert not modules & (set(public(package)) | {"train", "evaluate"}) - own


def module_path(module) -> list[str]:
    """Folders of a package; none for a module."""
    return list(getattr(module, "__path__", ()))


def test_submodules_can_still_be_imported():
    from mmfusion_jax.encoders import audio_conv  # not a public name

    assert audio_conv.AudioConv is mmf.encoders.AudioConv


@pytest.mark.ci
def test_pyright_resolves_the_public_names():
    """Known names have their types, and unknown names are errors."""
    file = Path(__file__).parent / "type_checks" / "public_names.py"
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(done.stdout)["generalDiagnostics"]
    lines = file.read_text("utf-8").splitlines()
    wrong = {i for i, line in enumerate(lines) if line.endswith("# unknown")}
    assert len(wrong) == 3
    assert {entry["range"]["start"]["line"] for entry in report} == wrong, report
