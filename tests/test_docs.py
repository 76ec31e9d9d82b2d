"""The documentation: its links, what its pages quote, and the build of the site."""

import html.parser
import importlib
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT, docs_files
from public_names import PACKAGES, public

from mmfusion_jax.error_codes import ERROR_CODES

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *docs_files(".md"),
    *sorted(ROOT.glob("experiments/*/*.md")),
    *sorted(ROOT.glob("tests/golden/*.md")),
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
WRITTEN = ("../generated/", "generated/")
"""Beginnings of links to pages that the build writes."""


def text_outside_of_code(page: Path) -> str:
    text = page.read_text("utf-8")
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^    .*$", "", text, flags=re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of the headings of a Markdown page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_outside_of_code(page), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def broken_links(page: Path) -> list[str]:
    """Links to files and headings that do not exist."""
    found = []
    for target in LINK.findall(text_outside_of_code(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target) or path.startswith(WRITTEN):
            continue
        file = page if not path else Path(os.path.normpath(page.parent / path))
        known = anchors(file) if file.suffix == ".md" and file.exists() else None
        if not file.exists() or (anchor and known is not None and anchor not in known):
            found.append(target)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_and_headings_that_a_page_links_to_exist(page):
    assert broken_links(page) == []


def test_broken_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A b\n[1](#a-b) [2](#c) [3](x.md) [4](page.md#a-b) [5](http://x)")
    assert broken_links(page) == ["#c", "x.md"]


CODE = [
    textwrap.dedent(code)
    for page in docs_files(".md")
    if page.parent != ROOT / "docs"
    for code in re.findall(
        r"^ *```python\n(.*?)^ *```$", page.read_text("utf-8"), re.M | re.S
    )
]
"""Python code of the guides; that of the formats has tests of its own."""


@pytest.mark.ci
@pytest.mark.parametrize("code", CODE)
def test_the_code_of_a_guide_runs(code):
    exec(code, {})


def test_guides_have_code():
    assert len(CODE) >= 2


def test_the_pictures_are_small_and_used():
    pictures = [path for path in (ROOT / "docs" / "images").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in pictures) < 300_000
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert [p.name for p in pictures if f"images/{p.name})" not in text] == []


class References(html.parser.HTMLParser):
    """What a page links to, what it loads, and its anchors."""

    def __init__(self, page: Path):
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors.add(found.get("id", ""))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in ("link", "script", "img", "iframe", "source"):
            self.loaded.append(found.get("src") or found.get("href", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> dict[str, References]:
    """The built site: path of a page -> its references."""
    pytest.importorskip("sphinx", reason="requires the extra docs")
    root = tmp_path_factory.mktemp("site")
    for path in ROOT.iterdir():
        if path.name != "docs":
            (root / path.name).symlink_to(path)
    for path in docs_files(".md", ".py", ".css", ".png"):
        copy = root / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    built = root / "html"
    options = ["-W", "--keep-going", "-q", "-b", "html", "-D", "nb_execution_mode=off"]
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(built)]
    env = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    pages = built.rglob("*.html")
    return {path.relative_to(built).as_posix(): References(path) for path in pages}


@pytest.mark.ci
def test_pages_load_nothing_from_the_network(site):
    loaded = {url for page in site.values() for url in page.loaded}
    assert len(site) > 60 and len(loaded) > 10
    assert [url for url in loaded if re.match(r"(\w+:)?//", url)] == []


@pytest.mark.ci
def test_links_and_anchors_of_the_site_exist(site):
    missing = [link for page in site for link in missing_in_site(page, site)]
    assert missing == []


def missing_in_site(page: str, site: dict[str, References]) -> Iterator[str]:
    """Links within the site that lead nowhere."""
    for link in site[page].links:
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link) or page in ("search.html", "genindex.html"):
            continue
        target = os.path.normpath(Path(page).parent / path) if path else page
        if target.endswith(".html"):
            known = target in site and (not anchor or anchor in site[target].anchors)
            if not known:
                yield f"{page}: {link}"


@pytest.mark.ci
def test_every_public_name_has_an_entry(site):
    entries = {a for page in site.values() for a in page.anchors}
    paths = {}
    for package in PACKAGES:
        for name, path in public(package).items():
            paths.setdefault(path, set()).add(f"{package}.{name}")
    objects = {path: names for path, names in paths.items() if ":" in path}
    assert [names for names in objects.values() if not names & entries] == []
    assert len(objects) > 150


@pytest.mark.ci
def test_every_error_code_is_an_anchor(site):
    assert {code.lower() for code in ERROR_CODES} <= site["errors.html"].anchors


DOCSTRING = """Returns a mean, as `f_x` does; |x| and 2 * x are text.

    y = x_ * z            (1)

Args:
    x, y: (b) float; `None` and `f`s.
    z: One of

        - a `Batch`,
        - arrays.

Returns:
    Name -> mean: (b).
Example:
    >>> 2 * 3
    6
"""
RST = r"""Returns a mean, as ``f_x`` does; \|x\| and 2 \* x are text.

::

    y = x_ * z            (1)

Args:
    x,y: \(b) float; ``None`` and ``f``\ s.
    z: One of

        - a ``Batch``,
        - arrays.

Returns:
    : Name -> mean: (b).
Example:
    >>> 2 * 3
    6
"""


@pytest.mark.ci
def test_docstrings_are_plain_text(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    api_text = pytest.importorskip("api_text", reason="requires the extra docs")
    assert "\n".join(api_text.to_rst(DOCSTRING.split("\n"))) == RST


@pytest.mark.ci
def test_links_of_a_page_become_those_of_the_site(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    with_links = importlib.import_module("repository_files").with_links
    text = "[a](docs/errors.md#b00) [b](experiments/grid/README.md) [c](configs/mea.py)"
    found = with_links(text, "README.md", "guides/x", "https://host/mmf")
    assert found == (
        "[a](../errors.md#b00) [b](../generated/experiments/grid.md) "
        "[c](https://host/mmf/blob/main/configs/mea.py)"
    )
    badge = "[![Open](https://host/badge.svg)](https://host/x.ipynb)"
    assert with_links(badge, "README.md", "x", "") == "[Open](https://host/x.ipynb)"
    with pytest.raises(ValueError, match=r"nothing\.md, which does not exist"):
        with_links("[a](nothing.md)", "README.md", "index", "")


@pytest.mark.ci
def test_every_deviation_is_on_a_page_of_the_papers(site, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs" / "_ext")
    sections = pytest.importorskip("paper_sections")
    found = sections.all_deviations()
    files = sorted((ROOT / "mmfusion_jax").rglob("*.py"))
    text = "".join(path.read_text("utf-8") for path in files)
    assert len(found) == len(re.findall(r"^ +Deviation:\n", text, re.MULTILINE)) > 80
    pages = docs_files(".md")
    quoted = {
        paper
        for page in pages
        for paper in re.findall(r"```\{deviations\} ?(.*)\n", page.read_text("utf-8"))
    }
    assert quoted == {*sections.PAPERS, ""}
