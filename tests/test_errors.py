"""Every error says what would work, has a section in the docs, and its exit code."""

import re
from pathlib import Path

import mmfusion_jax
from mmfusion_jax import errors

ROOT = Path(mmfusion_jax.__file__).parent
CODE = re.compile(r'["\[]([A-Z]\d\d)["\]]')


def test_every_code_has_a_section_and_every_section_a_code():
    source = "".join(path.read_text("utf-8") for path in ROOT.rglob("*.py"))
    docs = (ROOT.parent / "docs" / "errors.md").read_text("utf-8")
    used = set(CODE.findall(source)) | {"B00"}
    written = re.findall(r"^## (\w+)$", docs, re.MULTILINE)
    assert written == sorted(written)
    assert set(written) == used


def test_an_error_is_one_line_and_its_fix():
    error = errors.DataError("D07", "labels.csv line 18: no.", "correct the row")
    assert str(error) == "error[D07] labels.csv line 18: no.\n  fix: correct the row"
    kinds = {kind: kind.exit_code for kind in errors.UserError.__subclasses__()}
    assert {k.__name__: v for k, v in kinds.items()} == {
        "ConfigError": 2,
        "ExtraError": 2,
        "DataError": 3,
        "WeightsError": 3,
        "DivergedError": 4,
        "CheckpointError": 5,
    }


def test_the_nearest_name_is_offered():
    assert errors.suggest("audoi", ["audio", "video"]) == "did you mean 'audio'?"
    assert errors.suggest("x", ["b", "a"]) == "known: a, b"
