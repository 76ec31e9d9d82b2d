"""Counts the collectives of a training step of every paper, by kind.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 \
        python experiments/bench/collectives.py --name after
    JAX_PLATFORMS=cpu \
        python experiments/bench/collectives.py --name after --topology v5e:2x2

The step of each paper's digits config, with the batch of that config, is compiled for
the devices of this machine, or for a TPU that need not be there. Nothing is run. A
collective inside a loop counts once, as in `bench --compile_for`. Writes JSON and
prints a table.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from mmfusion_jax.analysis.compiled import find_collectives
from mmfusion_jax.cli.flags import Flag, parse
from mmfusion_jax.commands.compile_for import step_calls
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.topology import find_topology

FOLDER = Path(__file__).parent
CONFIGS = FOLDER.parents[1] / "configs"
PAPERS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")


def main() -> None:
    """Compiles, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--name", default="now", help="name of the row in the table")
    parser.add_argument("--paper", choices=PAPERS, action="append")
    parser.add_argument("--parallel", default="jit", help="config.parallel")
    parser.add_argument("--topology", default="", help='such as "v5e:2x2"')
    parser.add_argument("--flag", action="append", default=[], help="config flag")
    parser.add_argument("--out", type=Path, default=FOLDER / "collectives.json")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.exists() else {}
    name = options.topology
    devices = find_topology(name).devices if name else jax.devices()
    where = name or f"{len(devices)} x {devices[0].platform}"
    row = f"{options.name}, {options.parallel}, {where}"
    for paper in options.paper or PAPERS:
        counts = collectives(paper, options, devices)
        found = {"jax": jax.__version__, "flags": options.flag, **counts}
        result.setdefault(row, {})[paper] = found
        print(f"{paper}: {found}", file=sys.stderr)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def collectives(paper: str, options: Any, devices: Sequence[Any]) -> dict[str, int]:
    """Returns the number of collectives of a paper's step, by kind and in total."""
    words = [
        f"--config={CONFIGS / paper}.py:digits",
        f"--config.parallel={options.parallel}",
        *options.flag,
    ]
    spec = resolve(parse(words, [Flag("workdir", "", "")], True).config)
    data = build_data.describe_dataset(spec, build_data.fold_numbers(spec)[0])
    executor = Executor(spec.parallel, topology=tuple(devices))
    parts = build.build_components(spec, data, 1000, executor)
    batch = build_data.build_pipeline(spec, data, spec.seed).dummy_batch()
    step, arguments = step_calls(parts, batch)["train"]
    program = step.lower(*arguments).compile().as_text()
    found = Counter(kind for kind, _ in find_collectives(program, devices[0].platform))
    return {**found, "total": found.total()}


def table(result: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Returns a Markdown table: a row for each call, a column for each paper."""
    lines = [
        "| | " + " | ".join(PAPERS) + " |",
        "| --- " * (len(PAPERS) + 1) + "|",
    ]
    for row, papers in result.items():
        cells = [str(papers.get(paper, {}).get("total", "")) for paper in PAPERS]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
