"""Files of the repository as pages: where they are, and what links to them become."""

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
GENERATED = "generated"
"""Folder below `docs` of the pages that a build writes."""

_FENCE = re.compile(r" *(```+|~~~+)")
_LINK = re.compile(r"(\]\()([^)\s#]+)?(#[^)\s]*)?(\))")
_BADGE = re.compile(r"\[!\[([^\]]*)\]\(https?:[^)]*\)\](?=\()")
_ELSEWHERE = re.compile(r"[a-z]+:", re.IGNORECASE)


def pages() -> dict[str, str]:
    """Returns path in the repository -> document, for files outside of `docs`."""
    found = {
        "README.md": "index",
        "CONTRIBUTING.md": f"{GENERATED}/contributing",
        "CHANGELOG.md": f"{GENERATED}/changelog",
    }
    for path in sorted(ROOT.glob("experiments/*/README.md")):
        name = path.parent.name
        found[f"experiments/{name}/README.md"] = f"{GENERATED}/experiments/{name}"
    for path in sorted(ROOT.glob("experiments/*/*.md")):
        if path.name != "README.md":
            name = f"{path.parent.name}_{path.stem}"
            found[path.relative_to(ROOT).as_posix()] = f"{GENERATED}/experiments/{name}"
    for path in sorted(ROOT.glob("notebooks/*.ipynb")):
        found[f"notebooks/{path.name}"] = f"{GENERATED}/notebooks/{path.stem}"
    return found


def with_links(text: str, source: str, document: str, url: str) -> str:
    """Returns Markdown whose relative links work in a page of the site.

    A link to a file that has a page becomes a link to the page, an image stays one, and
    a link to any other file becomes one to the repository. A badge, whose image would
    be loaded from the network, becomes its text.

    Args:
        text: Markdown.
        source: Path of the file that has the text, relative to the repository.
        document: Name of the page that the text becomes a part of.
        url: Address of the repository.

    Raises:
        ValueError: A link to a file that does not exist.
    """
    known = pages()

    def changed(match: re.Match[str]) -> str:
        target, anchor = match[2], match[3] or ""
        if target is None or _ELSEWHERE.match(target):
            return match[0]
        path = os.path.normpath(PurePosixPath(source).parent / target)
        if not (ROOT / path).exists():
            raise ValueError(f"{source} has a link to {target}, which does not exist.")
        return f"{match[1]}{_address(path, known, document, url)}{anchor}{match[4]}"

    link = lambda line: _LINK.sub(changed, _BADGE.sub(r"[\1]", line))
    return _outside_of_code(text, link)


def _address(path: str, known: dict[str, str], document: str, url: str) -> str:
    if (page := known.get(path)) is not None:
        suffix = PurePosixPath(path).suffix
        path = f"docs/{page}{'.md' if page == 'index' else suffix}"
    elif not path.startswith("docs/"):
        kind = "tree" if (ROOT / path).is_dir() else "blob"
        return f"{url}/{kind}/main/{path}"
    return os.path.relpath(path, PurePosixPath("docs", document).parent)


def _outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """Applies `change` to every line that is not in a code block."""
    return "\n".join(
        line if is_code else change(line) for line, is_code in _lines(text)
    )


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yields every line, and whether it is code or the border of a code block."""
    fence = ""
    for line in text.split("\n"):
        found = _FENCE.match(line)
        if fence:
            yield line, True
            fence = "" if line.strip() == fence else fence
        elif found:
            yield line, True
            fence = found[1]
        else:
            yield line, line.startswith("    ")


def sections(text: str) -> dict[str, str]:
    """Returns heading of the second or third level -> text up to the next heading."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line, is_code in _lines(text):
        heading = None if is_code else re.fullmatch(r"#{1,3} (.+)", line)
        if heading:
            lines = found.setdefault(heading[1], [])
        else:
            lines.append(line)
    return {heading: "\n".join(lines) for heading, lines in found.items()}
