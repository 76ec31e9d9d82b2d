"""Compiles the steps of all papers for TPUs that are not there, and prints a table.

    python experiments/bench/compile_tpu.py                 # all rows, hours
    python experiments/bench/compile_tpu.py --paper mea --size full --chip v5e
    python experiments/bench/compile_tpu.py --limit 20      # minutes for each row

Each row is `python -m mmfusion_jax.bench --compile_for=CHIP --json` in a process of its
own. Rows are written to the JSON file as they are finished, and those in it are not
compiled again; --again compiles those that did not end within the limit. It requires
the extra `tpu`, and no TPU.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
FULL = {
    "hetero_fusion_net": "mosei",
    "of_cmaer_cat": "mosei",
    "mea": "mosi",
    "mcl_mcf": "mosi",
    "cfn_sr": "ravdess",
}
"""Paper -> word of its config with the paper's shapes."""

REMAT = {"cfn_sr": "--config.model.encoders.video.remat=True"}
"""Paper -> flag of a second row of its full size, which fits a chip in bfloat16."""

CHIPS = {"v5e": "v5e:1x1", "v6e": "v6e:1x1", "v5e_4": "v5e:2x2", "cuda": "cuda"}
DTYPES = ("bfloat16", "float32")
COLUMNS = (
    "row", "batch", "fits", "memory", "bytes accessed", "TFLOP", "collectives",
    "bound", "at least", "examples/s at most", "compile",
)  # fmt: skip


def main() -> None:
    """Compiles what is missing, row by row, and prints the table."""
    words = parse(sys.argv[1:])
    rows = _read(words.out)
    for name, command in commands(words):
        if name in rows and not (words.again and "problem" in rows[name]):
            continue
        rows[name] = run(command, words.limit)
        _write(words.out, rows)
        print(table({name: rows[name]}).splitlines()[-1], flush=True)
    print(table(rows))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--paper", choices=FULL, action="append")
    parser.add_argument("--size", choices=("small", "full"), action="append")
    parser.add_argument("--chip", choices=CHIPS, action="append")
    parser.add_argument("--dtype", choices=DTYPES, action="append")
    parser.add_argument("--limit", type=float, default=20, help="minutes for a row")
    parser.add_argument("--again", action="store_true", help="also unfinished rows")
    parser.add_argument("--out", type=Path, default=FOLDER / "compile_tpu.json")
    return parser.parse_args(arguments)


def commands(words: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Returns the name and the flags of every row that is asked for."""
    found = []
    for chip in words.chip or ("v5e", "v6e"):
        for dtype in words.dtype or DTYPES:
            for size in words.size or ("small", "full"):
                for paper in words.paper or FULL:
                    word = FULL[paper] if size == "full" else "digits"
                    name = f"{paper}:{word} {dtype} {chip}"
                    flags = [
                        f"--config={ROOT}/configs/{paper}.py:{word}",
                        f"--config.compute_dtype={dtype}",
                        f"--compile_for={CHIPS[chip]}",
                    ]
                    found.append((name, flags))
                    if size == "full" and paper in REMAT:
                        found.append((f"{name} remat", [*flags, REMAT[paper]]))
    return found


def run(flags: Sequence[str], limit: float) -> dict[str, Any]:
    """Compiles one row; returns its report, or "problem".

    Args:
        flags: Of `mmfusion_jax.bench`.
        limit: Minutes after which it is ended.
    """
    begun = time.perf_counter()
    command = [sys.executable, "-m", "mmfusion_jax.bench", *flags, "--json"]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=60 * limit,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
        )
    except subprocess.TimeoutExpired:
        return {"problem": f"not finished in {limit:g} minutes"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"problem": lines[0] if done.returncode > 0 else "killed"}
    report = json.loads(done.stdout)
    del report["config"]
    return {**report, "minutes": (time.perf_counter() - begun) / 60}


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the rows of the training step as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| --- " * len(COLUMNS) + "|"]
    for name, row in sorted(rows.items(), key=_place):
        cells = [name, row["problem"]] if "problem" in row else _cells(name, row)
        cells += [""] * (len(COLUMNS) - len(cells))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    step = row["steps"]["train"]
    memory, bounds = step["memory"] or {}, step["roofline"] or {}
    times = [bounds.get(k) or 0 for k in ("compute", "memory", "interconnect")]
    slowest = max(times)
    gigabytes = lambda x: f"{x / 1e9:.2f} GB" if x else "–"
    return [
        name,
        str(row["batch_size"]),
        {True: "yes", False: "no", None: "–"}[step["fits"]],
        gigabytes(memory.get("peak")),
        gigabytes(step["bytes_accessed"]),
        f"{step['flops'] / 1e12:.3g}",
        str(sum(step["collectives"].values())),
        bounds.get("bound", "–"),
        f"{1e3 * slowest:.3g} ms" if slowest else "–",
        f"{row['batch_size'] / slowest:,.0f}" if slowest else "–",
        f"{sum(s['compile_s'] for s in row['steps'].values()):.0f} s",
    ]


def _place(item: tuple[str, Any]) -> tuple[int, bool, int, str]:
    """By paper, small size first, then by chip and name."""
    config, _, chip = item[0].split()[:3]
    paper, word = config.split(":")
    small = word != FULL[paper]
    return list(FULL).index(paper), not small, list(CHIPS).index(chip), item[0]


def _read(path: Path) -> dict[str, Any]:
    """Returns the rows of a file; none if it does not exist."""
    return json.loads(path.read_text())["rows"] if path.exists() else {}


def _write(path: Path, rows: Mapping[str, Any]) -> None:
    """Replaces the file; a process that is killed leaves the old one."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps({"rows": rows}, indent=1) + "\n")
    new.replace(path)


if __name__ == "__main__":
    main()
