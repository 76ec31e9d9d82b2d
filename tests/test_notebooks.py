"""The notebooks run as they stand, with fewer steps, on one device and on eight."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


def run(name: str, folder: Path, cache_dir: Path, devices: int) -> str:
    """What a notebook prints, cut to a few steps."""
    source = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
    short, count = re.subn(r"^STEPS = \d+$", "STEPS = 4", source, flags=re.MULTILINE)
    assert count == 1
    script = folder / f"{name}_{devices}.py"
    script.write_text(short, encoding="utf-8")
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(cache_dir / "xla"),
        "MMFUSION_CACHE": str(cache_dir / "digits"),
        "MPLBACKEND": "agg",
    }
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS.glob("*.py")])
def test_every_cell_is_marked(name):
    text = (NOTEBOOKS / f"{name}.py").read_text(encoding="utf-8")
    assert text.startswith("# %% [markdown]\n# # ")
    assert "/work" not in text and len(re.findall("^# %%", text, re.MULTILINE)) > 6


def test_quickstart_is_the_same_on_one_device_and_on_eight(tmp_path, cache_dir):
    told = [run("quickstart", tmp_path, cache_dir, devices) for devices in (1, 8)]
    assert told[0].startswith("1 x ") and told[1].startswith("8 x ")
    losses = [re.search(r"loss ([\d.]+) -> ([\d.]+)", text) for text in told]
    one, eight = ([float(x) for x in found.groups()] for found in losses if found)
    assert one == pytest.approx(eight, abs=2e-3)
    assert "both" in told[0]


def test_loss_gradients(tmp_path, cache_dir):
    told = run("loss_gradients", tmp_path, cache_dir, 1)
    assert "reaches:" in told and "head" not in told.split("reaches:")[1].split("\n")[0]
    assert re.search(r"^consistency +[+-]", told, re.MULTILINE)
