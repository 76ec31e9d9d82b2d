"""The scripts of experiments/bench run, on clips too small to say anything."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "experiments/bench/conv3d.py"


def test_grouped_convolutions(tmp_path):
    out = tmp_path / "conv3d.json"
    options = ["--quick", "--dtype", "bfloat16", "--form", "taps", "--out", str(out)]
    table = subprocess.check_output([sys.executable, SCRIPT, *options], text=True)
    layers = json.loads(out.read_text())["layers"]
    assert len(layers) == 7
    assert all(0 < ms < 60_000 for forms in layers.values() for ms in forms["taps"])
    assert "| stage4_block1 | " in table
