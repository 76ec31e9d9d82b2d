"""The table of compiled steps: its stored rows, its page, and each full size again."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mmfusion_jax.errors import MissingDependencyError
from mmfusion_jax.training.topology import find_topology

FOLDER = Path(__file__).parents[1] / "experiments/bench"
sys.path.append(str(FOLDER))

import compile_tpu  # noqa: E402

STORED = json.loads((FOLDER / "compile_tpu.json").read_text())["rows"]
COMPILED = {name: row for name, row in STORED.items() if "problem" not in row}
FULL = dict(
    compile_tpu.commands(
        compile_tpu.parse(["--size=full", "--chip=v5e", "--chip=v6e", "--chip=cuda"])
    )
)
COLLECTIVES = {"cfn_sr": 35, "mcl_mcf": 13}
"""Paper -> most collectives of its step at full size on four chips; on one, none."""


def check(name: str, row: Mapping[str, Any]) -> None:
    """Asserts what must hold for a compiled row."""
    config, dtype, chip = name.split()[:3]
    fits = None if chip == "cuda" else True
    for step in row["steps"].values():
        assert step["fits"] is fits, step["problem"]
        assert step["float64"] == step["dynamic_shapes"] == step["host_callbacks"] == 0
        # Losses and heads are float32 in both; all products have their precision.
        assert "float32 highest" in step["products"]
        assert step["products"].keys() <= {f"{dtype} highest", "float32 highest"}
        assert sum(step["collectives"].values()) <= (
            COLLECTIVES[config.split(":")[0]] if row["chips"] > 1 else 0
        )
    assert row["steps"]["train"]["donated"] > 0


@pytest.mark.parametrize("name", COMPILED)
def test_a_stored_row(name):
    check(name, COMPILED[name])


def test_the_page_has_the_rows():
    page = (FOLDER / "README.md").read_text()
    rows = {name: row for name, row in STORED.items() if "cuda" not in name}
    assert compile_tpu.table(rows) in page


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_full_size(name):
    if "cuda" not in name:
        try:
            find_topology("v5e:1x1")
        except MissingDependencyError as error:
            pytest.skip(f"no TPU compiler: {error}")
    row = compile_tpu.run(FULL[name], limit=20)
    if "not finished" in row.get("problem", ""):
        pytest.skip(row["problem"])
    assert "problem" not in row, row["problem"]
    check(name, row)
