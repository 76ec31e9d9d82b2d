"""Compares the gradients of all loss terms with a training step.

    python experiments/bench/gradient_stats.py              # MEA and MCL-MCF on digits
    python experiments/bench/gradient_stats.py --case mea:digits
    python experiments/bench/gradient_stats.py --quick      # checks that it runs

Every round times a training step and the record of the gradients of its terms, as
`train.gradient_stats_every` makes it, so that other load slows both, though not
equally. The table has the number of terms; the ratio of the medians of the wall-clock
time and of the CPU time of all cores, of which the latter depends little on other load;
and the ratio of the operations that XLA counts before it optimizes. Writes JSON.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
from machine import machine

import mmfusion_jax as mmf
from mmfusion_jax.analysis.gradients import make_gradient_stats
from mmfusion_jax.config import build, build_data

FOLDER = Path(__file__).parent
CASES = ("mea:digits", "mcl_mcf:digits")


def main() -> None:
    """Measures, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", action="append", help="a config, such as mea:digits")
    parser.add_argument("--rounds", type=int, default=20, help="measured rounds")
    parser.add_argument("--quick", action="store_true", help="one small model")
    parser.add_argument("--out", type=Path, help="JSON; default: beside the script")
    options = parser.parse_args()
    rounds = 2 if options.quick else options.rounds
    cases = ["mea:digits"] if options.quick else options.case or CASES
    found = {case: measure(case, rounds, small=options.quick) for case in cases}
    result = {"machine": machine(), "rounds": rounds, "cases": found}
    out = options.out or FOLDER / "gradient_stats.json"
    if options.out or not options.quick:  # figures of tiny inputs replace no others
        out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(found))


def measure(case: str, rounds: int, *, small: bool) -> dict[str, Any]:
    """Returns the times of a step and of a record, in seconds, and their operations.

    Args:
        case: A config.
        rounds: Number of rounds; one more is not measured.
        small: Measure a small model on the data of the config, with one more term.
    """
    config = mmf.load_config(case)
    if small:
        config.model = dict(name="late_fusion", encoders=config.model.encoders)
        config.losses = dict(
            task=dict(name="cross_entropy", weight=1.0),
            again=dict(name="cross_entropy", weight=0.5),
        )
    spec = mmf.resolve(config)
    data = build_data.build_dataset(spec, 0)
    pipeline = build_data.build_pipeline(spec, data, spec.seed)
    parts = build.build_components(spec, data, spec.training.epochs)
    batch = parts.executor.put(next(pipeline.train(0, 1)), train=True)
    state = parts.executor.create(
        lambda: mmf.create_state(
            parts.model, parts.tx, pipeline.dummy_batch(), jax.random.key(0)
        )
    )
    stats = make_gradient_stats(
        parts.model,
        parts.objective,
        parts.executor.axis,
        parts.accumulate,
        parts.steps,
        parts.modalities,
    )
    # Not donated, so that both have the same state in every round.
    compiled = {
        name: parts.executor.compile(function, donate=False).lower(state, batch)
        for name, function in (
            ("step", parts.train_step(parts.executor.axis)),
            ("stats", stats),
        )
    }
    operations = {k: x.cost_analysis()["flops"] for k, x in compiled.items()}
    programs = {name: x.compile() for name, x in compiled.items()}
    seconds = {name: {"wall": [], "cpu": []} for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(state, batch))
            if number:
                seconds[name]["wall"].append(time.perf_counter() - wall)
                seconds[name]["cpu"].append(time.process_time() - cpu)
    return {
        "terms": parts.objective.active,
        "seconds": seconds,
        "operations": operations,
    }


def table(found: dict[str, Any]) -> str:
    """Returns the ratios as a table in Markdown."""
    lines = [
        "| config | terms | step, ms | wall | CPU | operations |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for case, one in found.items():
        median = {
            name: {clock: statistics.median(x) for clock, x in times.items()}
            for name, times in one["seconds"].items()
        }
        ratios = [
            median["stats"][clock] / median["step"][clock] for clock in ("wall", "cpu")
        ]
        ratios.append(one["operations"]["stats"] / one["operations"]["step"])
        step = 1000 * median["step"]["wall"]
        cells = [case, str(len(one["terms"])), f"{step:.0f}"]
        lines.append(f"| {' | '.join([*cells, *(f'{x:.2f}' for x in ratios)])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
