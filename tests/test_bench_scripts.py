"""The scripts of experiments/bench run, on inputs too small to measure."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "experiments/bench"


@pytest.mark.ci
def test_grouped_convolutions(tmp_path):
    out = tmp_path / "conv3d.json"
    options = ["--quick", "--dtype", "bfloat16", "--form", "taps", "--out", str(out)]
    table = subprocess.check_output(
        [sys.executable, FOLDER / "conv3d.py", *options], text=True
    )
    layers = json.loads(out.read_text())["layers"]
    assert len(layers) == 7
    assert all(0 < ms < 60_000 for forms in layers.values() for ms in forms["taps"])
    assert "| stage4_block1 | " in table


@pytest.mark.slow
def test_mea_beside_pytorch(tmp_path):
    pytest.importorskip("torch")
    out = tmp_path / "mea.json"
    options = ["--quick", "--out", str(out)]
    command = [sys.executable, FOLDER / "mea.py", *options]
    table = subprocess.check_output(command, text=True)
    found = json.loads(out.read_text())
    assert found["difference"] < 1e-4
    assert all(found["step"][library]["wall"] for library in ("jax", "torch"))
    assert "| step | " in table


@pytest.mark.slow
def test_seeds_at_once(tmp_path):
    out = tmp_path / "seeds.json"
    command = [sys.executable, FOLDER / "seeds.py", "--quick", "--out", str(out)]
    table = subprocess.check_output(command, text=True)
    step = json.loads(out.read_text())["cases"]["late_fusion_digits"]["step"]
    assert set(step) == {"one", "at_once", "in_turn"}
    assert 1 < step["in_turn"]["cpu"] / step["one"]["cpu"] < 10
    assert "| late_fusion_digits | " in table


@pytest.mark.ci
def test_a_compiled_row_is_kept_and_a_slow_one_is_named(tmp_path):
    out = tmp_path / "compile_tpu.json"
    rows = {"mea:digits float32 cuda": {"problem": "killed"}}
    out.write_text(json.dumps({"rows": rows}))
    options = ["--chip", "cuda", "--size", "small", "--dtype", "float32"]
    options += ["--paper", "mea", "--paper", "hetero_fusion_net", "--limit", "0.01"]
    command = [sys.executable, FOLDER / "compile_tpu.py", *options, "--out", str(out)]
    table = subprocess.check_output(command, text=True)
    found = json.loads(out.read_text())["rows"]
    assert found.pop("mea:digits float32 cuda") == {"problem": "killed"}
    (late,) = found.values()
    assert late["problem"] == "not finished in 0.01 minutes"
    assert "| mea:digits float32 cuda | killed | " in table


def test_the_table_of_compiled_rows():
    bounds = {"compute": 0.001, "memory": 0.002, "interconnect": 0, "bound": "memory"}
    step = {
        "memory": {"peak": 2e9}, "fits": True, "bytes_accessed": 3e9, "flops": 4e12,
        "collectives": {"all-reduce": 2, "all-gather": 1}, "compile_s": 60.0,
        "roofline": bounds,
    }  # fmt: skip
    rows = {
        "mea:mosi float32 v5e": {
            "batch_size": 16,
            "steps": {"train": step, "eval": step},
        }
    }
    script = runpy.run_path(str(FOLDER / "compile_tpu.py"))
    line = script["table"](rows).splitlines()[-1]
    cells = "16 | yes | 2.00 GB | 3.00 GB | 4 | 3 | memory | 2 ms | 8,000 | 120 s |"
    assert line == f"| mea:mosi float32 v5e | {cells}"


def test_gradients_of_all_terms(tmp_path):
    out = tmp_path / "gradient_stats.json"
    command = [sys.executable, FOLDER / "gradient_stats.py", "--quick"]
    table = subprocess.check_output([*command, "--out", str(out)], text=True)
    found = json.loads(out.read_text())["cases"]["mea:digits"]
    assert found["terms"] == ["again", "task"]
    # One forward pass and two backward passes, of which each costs about two of it.
    assert 1 < found["operations"]["stats"] / found["operations"]["step"] < 2
    assert len(found["seconds"]["stats"]["wall"]) == 2
    assert "| mea:digits | 2 |" in table


@pytest.mark.slow
def test_collectives(tmp_path):
    out = tmp_path / "collectives.json"
    options = ["--paper", "of_cmaer_cat", "--parallel", "shard_map", "--out", str(out)]
    command = [sys.executable, FOLDER / "collectives.py", *options]
    devices = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    table = subprocess.check_output(command, text=True, env={**os.environ, **devices})
    (row,) = json.loads(out.read_text()).values()
    assert row["of_cmaer_cat"]["all-gather"] == 2
    assert "| now, shard_map, 2 x cpu |" in table


@pytest.mark.slow
def test_time_to_the_first_step(tmp_path):
    out = tmp_path / "first_step.json"
    command = [sys.executable, FOLDER / "first_step.py", "--quick", "--out", str(out)]
    table = subprocess.check_output(command, text=True)
    found = json.loads(out.read_text())["rounds"]["this"][0]
    assert 0 < found["init"]["compile"]["wall"] < found["total"]["wall"]
    assert "| step compile | " in table
    counts = found["step"]["loops"]
    assert counts["encoders_audio"] > 0 and counts[""] > 0
    assert f"fused loops, encoders_audio | {counts['encoders_audio']:,} |" in table
