"""Pages made of files of the repository: experiments, notebooks, CONTRIBUTING.

They are written to `docs/generated`, with links that work there. Links of the other
pages are written so that they work in a checkout, and are changed while a page is read.
"""

import json
import re
from pathlib import Path

from repository_files import DOCS, GENERATED, ROOT, pages, with_links
from sphinx.application import Sphinx


def write(path: Path, text: str) -> None:
    """Writes a file unless it has this content, so that Sphinx keeps what it read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")


def _notebook(text: str, source: str, document: str, url: str) -> str:
    """Returns a notebook whose links work in the site."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            lines = with_links("".join(cell["source"]), source, document, url)
            cell["source"] = lines.splitlines(keepends=True)
    return json.dumps(notebook, indent=1)


def _write_pages(app: Sphinx) -> None:
    url = app.config.repository_url
    wanted = set()
    for source, document in pages().items():
        if document == "index":
            continue
        path = ROOT / source
        change = _notebook if path.suffix == ".ipynb" else with_links
        text = change(path.read_text("utf-8"), source, document, url)
        target = DOCS / f"{document}{path.suffix}"
        write(target, text)
        wanted.add(target)
    for folder in ("experiments", "notebooks"):
        for path in (DOCS / GENERATED / folder).glob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()


def _change_links(app: Sphinx, document: str, content: list[str]) -> None:
    if document.startswith(f"{GENERATED}/"):
        return
    source = f"docs/{document}.md"
    text = with_links(content[0], source, document, app.config.repository_url)
    if document == "errors":  # errors.html#b00
        text = re.sub(r"^## ([A-Z]\d\d): ", r"(\1)=\n\g<0>", text, flags=re.MULTILINE)
    content[0] = text


def setup(app: Sphinx) -> dict[str, bool]:
    """Registers the extension."""
    app.add_config_value("repository_url", "", "env")
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _change_links)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
