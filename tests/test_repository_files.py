"""Files at the root of the repository that no program of the package reads."""

import re

from paths import ROOT

import mmfusion_jax


def test_the_citation_has_the_version_and_the_licence_of_the_package():
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {mmfusion_jax.__version__}\n" in text
    assert "\nlicense: Apache-2.0\n" in text
    assert not re.search("doi|orcid|10\\.\\d{4}", text)


def test_hooks_are_local_and_run_programs_of_the_extra_dev():
    text = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    assert re.findall(r"repo: (\S+)", text) == ["local"]
    dev = (ROOT / "pyproject.toml").read_text("utf-8").split("\ndev = [")[1]
    programs = set(re.findall(r"entry: (\w+)", text))
    assert programs == {"ruff", "pyright"}
    assert all(f'"{program}"' in dev.split("]\n")[0] for program in programs)
