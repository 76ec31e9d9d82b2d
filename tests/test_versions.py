"""The oldest versions: those that pyproject.toml allows are those that are tried."""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PINS = (ROOT / ".ci" / "oldest.txt").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_pins_are_the_lower_bounds():
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *extras["demo"], *extras["media"]]
    bounds = {}
    for wanted in map(Requirement, lines):
        lower = [s.version for s in wanted.specifier if s.operator == ">="]
        assert len(lower) == 1, f"{wanted} has no lower bound"
        name = canonicalize_name(wanted.name)
        assert bounds.setdefault(name, Version(lower[0])) == Version(lower[0])
    pins = dict(re.findall(r"^([\w-]+)==(\S+)$", PINS, re.MULTILINE))
    assert bounds == {canonicalize_name(k): Version(v) for k, v in pins.items()}


def test_the_table_has_the_pins():
    text = (ROOT / "docs" / "versions.md").read_text()
    table = dict(re.findall(r"^\| ([\w-]+) \| (\d[\d.]*) \|", text, re.MULTILINE))
    assert table == dict(re.findall(r"^([\w-]+)==(\S+)$", PINS, re.MULTILINE))
