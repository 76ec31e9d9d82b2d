"""Generates the .ipynb of every notebook, and inserts the address of the repository.

    python notebooks/build.py

The source of a notebook is a .py file with cells; the .ipynb beside it, without
outputs, is the one that Colab opens. The address of the repository is defined in
pyproject.toml only: this command writes it into the notebooks and the badges of the
README.
"""

import re
import tomllib
from pathlib import Path

import jupytext
import nbformat

ROOT = Path(__file__).parent.parent
NAMES = ("quickstart", "loss_gradients")
COLAB = "https://colab.research.google.com/github/"
# As Colab writes it: V5E1 is the runtime with one chip of a TPU v5e.
METADATA = {
    "accelerator": "TPU",
    "kernelspec": {"display_name": "Python 3", "name": "python3"},
    "language_info": {"name": "python"},
}


def contents(root: Path = ROOT) -> dict[Path, str]:
    """Returns the content of each file that this command writes."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    address = project["urls"]["Repository"]
    made = {}
    for name in NAMES:
        script = root / "notebooks" / f"{name}.py"
        made[script] = addressed(script.read_text("utf-8"), address)
        made[script.with_suffix(".ipynb")] = as_ipynb(name, made[script])
    readme = root / "README.md"
    made[readme] = badged(readme.read_text("utf-8"), address)
    return made


def addressed(text: str, address: str) -> str:
    """Returns a notebook with the address that it installs from."""
    line = f'ADDRESS = "{address}"'
    text, count = re.subn(r"^ADDRESS = .*$", line, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"expected one line 'ADDRESS = ...', found {count}")
    return text


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
