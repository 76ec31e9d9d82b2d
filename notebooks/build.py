"""Generates the .ipynb of every notebook, and inserts the address of the repository.

    python notebooks/build.py

The source of a notebook is a .py file with cells; the .ipynb beside it, without
outputs, is the one that Colab opens. Its first code cell is install_cell.py, which
this command puts in the place of a comment in the .py file. The address of the
repository and the oldest supported versions are defined in pyproject.toml only: this
command writes them into that cell, and the address into the badges of the notebooks and
of the README.
"""

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jupytext
import nbformat

ROOT = Path(__file__).parent.parent
COLAB = "https://colab.research.google.com/github/"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
EXTRA_MODULES = {"demo": "espeakng_loader", "media": "av"}
"""Extra -> a module that only this extra installs on Colab."""

KEPT = ("jax", "flax", "optax", "orbax-checkpoint", "chex", "numpy")
"""Packages that must not be replaced without the plug-in of the accelerator."""

# As Colab writes it: V5E1 is the runtime with one chip of a TPU v5e.
METADATA = {
    "accelerator": "TPU",
    "kernelspec": {"display_name": "Python 3", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclasses.dataclass(frozen=True)
class Setup:
    """What the first cell of a notebook prepares.

    Attributes:
        extras: Extras of the library.
        cpu_devices: Number of virtual devices on a machine without an accelerator.
    """

    extras: tuple[str, ...] = ("demo",)
    cpu_devices: int = 1


NOTEBOOKS = {
    "quickstart": Setup(cpu_devices=8),
    "loss_gradients": Setup(),
    "own_clips": Setup(extras=("demo", "media")),
    "own_fusion": Setup(),
}


def contents(root: Path = ROOT) -> dict[Path, str]:
    """Returns the content of each file that this command writes."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    address = project["urls"]["Repository"]
    made = {}
    for name, setup in NOTEBOOKS.items():
        script = root / "notebooks" / f"{name}.py"
        text = with_badge(script.read_text("utf-8"), name, address)
        made[script] = text
        complete = with_first_cell(text, first_cell(setup, project, root))
        made[script.with_suffix(".ipynb")] = as_ipynb(name, complete)
    readme = root / "README.md"
    made[readme] = badged(readme.read_text("utf-8"), address)
    return made


def first_cell(setup: Setup, project: Mapping[str, Any], root: Path = ROOT) -> str:
    """Returns install_cell.py with the values of a notebook."""
    values = {
        "ADDRESS": project["urls"]["Repository"],
        "MODULES": {extra: EXTRA_MODULES[extra] for extra in setup.extras},
        "OLDEST": oldest_versions(project["dependencies"]),
        "CPU_DEVICES": setup.cpu_devices,
    }
    text = (root / "notebooks" / "install_cell.py").read_text("utf-8")
    for name, value in values.items():
        line = f"{name} = {json.dumps(value, indent=4 if name == 'OLDEST' else None)}"
        line = line.replace('"\n}', '",\n}')
        text, count = re.subn(rf"^{name} = .*$", line, text, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"expected one line '{name} = ...', found {count}")
    return text


def oldest_versions(dependencies: list[str]) -> dict[str, str]:
    """Returns the lower bounds of the packages in `KEPT`."""
    bounds = {}
    for line in dependencies:
        name, bound, rest = line.partition(">=")
        if bound and name in KEPT:
            bounds[name] = rest.partition(",")[0]
    return {name: bounds[name] for name in KEPT}


def with_first_cell(text: str, cell: str) -> str:
    """Returns a notebook with its first code cell replaced."""
    text, count = re.subn(
        r"(?<=^# %%\n).*?(?=^# %%)",
        lambda _: f"{cell}\n",
        text,
        count=1,
        flags=re.MULTILINE | re.DOTALL,
    )
    if count != 1:
        raise ValueError("the notebook does not have a code cell")
    return text


def with_badge(text: str, name: str, address: str) -> str:
    """Returns a notebook that begins with its title and a badge."""
    repository = address.removeprefix("https://github.com/")
    link = f"{COLAB}{repository}/blob/main/notebooks/{name}.ipynb"
    start, title, *rest = text.split("\n")
    if rest[1].startswith("# [![Open in Colab]"):
        rest = rest[2:]
    return "\n".join(
        [start, title, "#", f"# [![Open in Colab]({BADGE})]({link})", *rest]
    )


def badged(text: str, address: str) -> str:
    """Returns the README with badges that open the notebooks in Colab."""
    repository = address.removeprefix("https://github.com/")
    return re.sub(rf"{re.escape(COLAB)}[^/]+/[^/]+/", f"{COLAB}{repository}/", text)


def as_ipynb(name: str, text: str) -> str:
    """Returns the .ipynb of a notebook; it depends on the text only."""
    read = jupytext.reads(text, fmt="py:percent")
    cells = []
    for number, cell in enumerate(read.cells):
        new = {
            "code": nbformat.v4.new_code_cell,
            "markdown": nbformat.v4.new_markdown_cell,
        }[cell.cell_type]
        cells.append(new(cell.source, id=f"{name}-{number:02}"))
    first = next(cell for cell in cells if cell.cell_type == "code")
    # Colab and the documentation fold the cell, as nobody needs to read it first.
    first.metadata.update({"cellView": "form", "tags": ["hide-input"]})
    colab = {"gpuType": "V5E1", "name": f"{name}.ipynb", "provenance": []}
    notebook = nbformat.v4.new_notebook(
        cells=cells, metadata=METADATA | {"colab": colab}, nbformat_minor=5
    )
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    for path, text in contents().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
