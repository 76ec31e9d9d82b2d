"""Times what precedes the second training step: imports, data, init and first step.

    python experiments/bench/first_step.py                        # MEA on digits
    python experiments/bench/first_step.py --config mea.py:digits --rounds 5
    python experiments/bench/first_step.py --against ../before    # two checkouts
    python experiments/bench/first_step.py --quick                # checks that it runs

Every round is a new process without the compilation cache. Creating the state and the
training step are each traced, lowered to StableHLO, compiled and run; the time to the
first step is their sum, without imports and data. With --against, the rounds of the two
checkouts are interleaved, so that other load slows both, though not equally. The table
has the minimum over the rounds of the wall-clock time and of the CPU time of all cores;
only the latter depends little on other load. The last rows are the fused loops of the
compiled step, by the module of the model whose operations they are. Writes JSON and
prints a table.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
STAGES = ("trace", "lower", "compile", "run")


def main() -> None:
    """Measures, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description="Times the first training step.")
    parser.add_argument("--config", default="mea.py:digits", help="file in configs")
    parser.add_argument("--flag", action="append", default=[], help="flag of train")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--against", type=Path, help="another checkout, measured too")
    parser.add_argument("--quick", action="store_true", help="one round, a small model")
    parser.add_argument("--out", type=Path, default=FOLDER / "first_step.json")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.flag, options.rounds = ["--config.model.name=late_fusion"], 1
    words = [options.config, *options.flag]
    if options.child:
        print(json.dumps(measure(words)))
        return
    trees = {"this": ROOT}
    if options.against:
        trees["against"] = options.against.resolve()
    rounds: dict[str, list] = {name: [] for name in trees}
    for _ in range(options.rounds):
        for name, tree in trees.items():
            rounds[name].append(in_new_process(tree, options.config, options.flag))
    result = {
        "config": " ".join(words),
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "rounds": rounds,
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def in_new_process(tree: Path, config: str, flags: list[str]) -> dict[str, Any]:
    """Returns the figures of one round with the package of a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, __file__, "--child", f"--config={config}"]
    command += [f"--flag={flag}" for flag in flags]
    text = subprocess.check_output(command, env=environment, cwd=tree, text=True)
    return json.loads(text.splitlines()[-1])


def measure(words: list[str]) -> dict[str, Any]:
    """Returns seconds and sizes of creating the state and of the training step."""
    clock = Clock()
    # Imported here, because the imports are part of the measurement.
    import jax

    from mmfusion_jax.cli.flags import Flag, parse
    from mmfusion_jax.config import build, build_data
    from mmfusion_jax.config.resolve import resolve
    from mmfusion_jax.training.state import create_state

    jax.config.update("jax_enable_compilation_cache", False)
    found: dict[str, Any] = {"imports": clock.lap()}
    config, *flags = words
    line = [f"--config=configs/{config}", *flags]
    spec = resolve(parse(line, [Flag("workdir", "", "")], True).config)
    data = build_data.build_dataset(spec, build_data.fold_numbers(spec)[0])
    pipeline = build_data.build_pipeline(spec, data, 0)
    parts = build.build_components(spec, data, 1000)
    executor, blank = parts.executor, pipeline.dummy_batch()
    batch = executor.put(next(iter(pipeline.train(0, 1))), train=True)
    found["data"] = clock.lap()

    def init(key: Any) -> Any:
        return create_state(parts.model, parts.tx, blank, jax.random.wrap_key_data(key))

    key = jax.random.key_data(jax.random.key(0))
    state, found["init"] = stages(executor.compile_init(init), key)
    step = executor.compile(parts.train_step(executor.axis))
    # A run wraps its model in one that has the precision of products.
    name = type(getattr(parts.model, "model", parts.model)).__name__
    _, found["step"] = stages(step, state, batch, model=name)
    laps = [found[part][stage] for part in ("init", "step") for stage in STAGES]
    found["total"] = {
        clock: sum(lap[clock] for lap in laps) for clock in ("wall", "cpu")
    }
    return found


class Clock:
    """Seconds between calls: wall-clock time, and CPU time of all cores."""

    def __init__(self):
        self._last = self._now()

    def lap(self) -> dict[str, float]:
        """Returns the seconds since the last call."""
        before, self._last = self._last, self._now()
        return {name: self._last[name] - before[name] for name in before}

    def _now(self) -> dict[str, float]:
        return {"wall": time.perf_counter(), "cpu": time.process_time()}


def loops(program: str, model: str) -> dict[str, int]:
    """Returns the number of fused loops of each module of a model, the largest first.

    Args:
        program: Text of a compiled program, with the names of its operations.
        model: Class of the model.
    """
    module = re.compile(rf'op_name="[^"]*\b{model}\)*/(?:{model}\.\w+/)*(\w+)/')
    fused = [line for line in program.splitlines() if " fusion(" in line]
    found = [match[1] if (match := module.search(line)) else "" for line in fused]
    return dict(collections.Counter(found).most_common())


def stages(
    function: Callable[..., Any], *arguments: Any, model: str = ""
) -> tuple[Any, dict[str, Any]]:
    """Returns the result of a jitted function, and the seconds of every stage."""
    import jax

    clock, laps = Clock(), []
    traced = function.trace(*arguments)  # pyright: ignore[reportFunctionMemberAccess]
    laps.append(clock.lap())
    lowered = traced.lower()
    laps.append(clock.lap())
    compiled = lowered.compile()
    laps.append(clock.lap())
    result = jax.block_until_ready(compiled(*arguments))
    laps.append(clock.lap())
    found: dict[str, Any] = dict(zip(STAGES, laps, strict=True))
    found["stablehlo_lines"] = lowered.as_text().count("\n")
    found["hlo_lines"] = compiled.as_text().count("\n")
    found["loops"] = loops(compiled.as_text(), model) if model else {}
    return result, found


def table(result: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    names = list(result["rounds"])
    lines = [
        f"{result['config']}, {result['cores']} cores, load {result['load']:.1f}; "
        f"{len(result['rounds']['this'])} rounds. Seconds, minimum, wall / all cores.",
        "",
        "| | " + " | ".join(names) + " |",
        "| --- |" + " --- |" * len(names),
    ]
    keys = [("imports",), ("data",)]
    keys += [(part, stage) for part in ("init", "step") for stage in STAGES]
    keys += [("total",)]
    for key in keys:
        cells = [cell(result["rounds"][name], key) for name in names]
        lines.append(f"| {' '.join(key)} | " + " | ".join(cells) + " |")
    for part in ("init", "step"):
        for size in ("stablehlo_lines", "hlo_lines"):
            cells = [f"{result['rounds'][name][0][part][size]:,}" for name in names]
            label = f"{part}, {size.replace('_', ' ')}"
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    counts = [result["rounds"][name][0]["step"]["loops"] for name in names]
    for module in counts[0]:
        cells = [f"{count.get(module, 0):,}" for count in counts]
        label = f"step, fused loops, {module or 'outside its modules'}"
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(rounds: list[dict[str, Any]], key: tuple[str, ...]) -> str:
    """Returns the minima of one row."""
    laps = []
    for found in rounds:
        lap: Any = found
        for part in key:
            lap = lap[part]
        laps.append(lap)
    return " / ".join(
        f"{min(lap[clock] for lap in laps):.2f}" for clock in ("wall", "cpu")
    )


if __name__ == "__main__":
    main()
