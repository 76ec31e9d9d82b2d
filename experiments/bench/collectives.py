"""Counts the collectives of a training step of every paper, by kind.

    XLA_FLAGS=--xla_force_host_platform_device_count=8 \
        python experiments/bench/collectives.py --name after
    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1 \
        python experiments/bench/collectives.py --name after --topology v5e:2x2

The step of each paper's digits config, with the batch of that config, is compiled for
the devices of this machine, or for a TPU that need not be there. Nothing is run. A
collective inside a loop counts once. Writes JSON and prints a table.
"""

import argparse
import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from mmfusion_jax.cli.flags import Flag, parse
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.state import create_state

FOLDER = Path(__file__).parent
CONFIGS = FOLDER.parents[1] / "configs"
PAPERS = ("cfn_sr", "mea", "mcl_mcf", "hetero_fusion_net", "of_cmaer_cat")
KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
COLLECTIVE = re.compile(rf" ({'|'.join(KINDS)})(?:-start)?\(.*channel_id=(\d+)")


@dataclasses.dataclass(frozen=True)
class ChosenDevices(Executor):
    """Compiles for given devices, such as those of a TPU that is not there.

    Attributes:
        chosen: The devices.
    """

    chosen: Sequence[Any] = ()

    @property
    def count(self) -> int:
        return len(self.chosen)

    @property
    def mesh(self) -> jax.sharding.Mesh:
        types = (jax.sharding.AxisType.Auto,)
        return jax.make_mesh(
            (self.count,), ("data",), axis_types=types, devices=self.chosen
        )


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
    devices = topology(options.topology) if options.topology else jax.devices()
    where = options.topology or f"{len(devices)} x {devices[0].platform}"
    row = f"{options.name}, {options.parallel}, {where}"
    for paper in options.paper or PAPERS:
        text = compiled_step(paper, options, devices)
        found = {"jax": jax.__version__, "flags": options.flag, **count(text)}
        result.setdefault(row, {})[paper] = found
        print(f"{paper}: {found}", file=sys.stderr)
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def topology(name: str) -> Sequence[Any]:
    """Returns the devices of a TPU such as "v5e:2x2", which need not be there."""
    from jax.experimental import topologies

    found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    return found.devices


def compiled_step(paper: str, options: Any, devices: Sequence[Any]) -> str:
    """Returns the compiled training step of a paper's digits config as text."""
    words = [
        f"--config={CONFIGS / paper}.py:digits",
        f"--config.parallel={options.parallel}",
        *options.flag,
    ]
    spec = resolve(parse(words, [Flag("workdir", "", "")], True).config)
    data = build_data.build_dataset(spec, build_data.fold_numbers(spec)[0])
    parts = build.build_components(spec, data, 1000)
    executor = ChosenDevices(spec.parallel, chosen=tuple(devices))
    parts = dataclasses.replace(parts, executor=executor)
    blank = build_data.build_pipeline(spec, data, spec.seed).dummy_batch()
    state = executor.abstract(
        lambda: create_state(parts.model, parts.tx, blank, jax.random.key(0))
    )
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=executor.batch_sharding
        ),
        blank,
    )
    step: Any = executor.compile(parts.train_step(executor.axis))
    return step.lower(state, batch).compile().as_text()


def count(program: str) -> dict[str, int]:
    """Returns the number of collectives of a compiled program, by kind and in total."""
    # The compiler may write one collective as several pieces of one channel, between
    # which it computes.
    found = Counter(kind for kind, _ in set(COLLECTIVE.findall(program)))
    return {kind: found[kind] for kind in KINDS if found[kind]} | {
        "total": found.total()
    }


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
