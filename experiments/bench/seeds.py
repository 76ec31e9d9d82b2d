"""Compares seeds that train at once with one seed, and with seeds in turn.

    python experiments/bench/seeds.py --data_dir=FOLDER     # all cases
    python experiments/bench/seeds.py --case mea_digits --whole
    python experiments/bench/seeds.py --quick               # checks that it runs

Every round times a training step of one seed, the step of all seeds at once, and the
steps of all seeds one after the other, so that other load slows all three, though not
equally. The table has the 10th percentile over the rounds of the wall-clock time and of
the CPU time of all cores; only the latter depends little on other load. --whole times
entire commands of one epoch in new processes, without the compilation cache: one seed,
all seeds at once, in turn. --parts times every encoder, forward and backward: which
part of a model is slow when it is mapped over seeds. Writes JSON and prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from machine import machine

from mmfusion_jax.analysis.cost import count_macs_per_example, count_parameters
from mmfusion_jax.cli.flags import Flag, parse
from mmfusion_jax.config import build, build_data
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.training.state import create_state

FOLDER = Path(__file__).parent
CONFIGS = FOLDER.parents[1] / "configs"
LATE = "--config.model.name=late_fusion"
CASES: Mapping[str, tuple[str, ...]] = {
    "mea_digits": ("mea.py:digits",),
    "late_fusion_digits": ("mea.py:digits", LATE),
    "of_cmaer_cat_digits": ("of_cmaer_cat.py:digits",),
    "mea_mosi_utterances": ("mea.py:mosi_utterances",),
    "late_fusion_mosi_utterances": ("mea.py:mosi_utterances", LATE),
}
"""Case -> config and flags; the word after the first colon is the data."""


def main() -> None:
    """Measures, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds")
    parser.add_argument("--rounds", type=int, default=20, help="measured rounds")
    parser.add_argument("--data_dir", default="", help="folder of mosi_utterances")
    parser.add_argument("--whole", action="store_true", help="entire commands too")
    parser.add_argument("--parts", action="store_true", help="each encoder too")
    parser.add_argument("--quick", action="store_true", help="one small case")
    parser.add_argument("--out", type=Path, default=FOLDER / "seeds.json")
    options = parser.parse_args()
    names = options.case or list(CASES)
    if options.quick:
        names, options.seeds, options.rounds = ["late_fusion_digits"], 2, 2
    result: dict[str, Any] = {"seeds": options.seeds, "cases": {}}
    if options.out.exists():  # cases of earlier calls stay
        result["cases"] = json.loads(options.out.read_text())["cases"]
    for name in names:
        words = _words(name, options.data_dir)
        if words is None:
            print(f"{name}: needs --data_dir", file=sys.stderr)
            continue
        found = {
            "machine": {**machine(), "devices": jax.device_count()},
            "config": " ".join(CASES[name]),
        }
        found |= measure(words, options)
        if options.whole:
            found["whole"] = whole(words, options.seeds)
        result["cases"][name] = found
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def _words(name: str, data_dir: str) -> list[str] | None:
    """Returns the command line of a case; None if its data are not given."""
    config, *flags = CASES[name]
    words = [f"--config={CONFIGS / config}", *flags]
    if config.endswith("mosi_utterances"):
        if not data_dir:
            return None
        words.append(f"--config.data.data_dir={data_dir}")
    return words


class Steps:
    """The training steps of a config, of one seed and of all.

    Attributes:
        compile_s: Seconds of compilation, "one" and "at_once".
    """

    def __init__(self, words: list[str], seeds: int):
        spec = resolve(parse(words, [Flag("workdir", "", "")], True).config)
        data = build_data.build_dataset(spec, build_data.fold_numbers(spec)[0])
        self.spec, self.parts = spec, build.build_components(spec, data, 1000)
        pipelines = [build_data.build_pipeline(spec, data, s) for s in range(seeds)]
        rows = [next(iter(pipeline.train(0, 1))) for pipeline in pipelines]
        blank, parts = pipelines[0].dummy_batch(), self.parts
        executor = parts.executor
        init = executor.compile_init(
            lambda key: create_state(parts.model, parts.tx, blank, key)
        )
        self.states = [init(jax.random.key(seed)) for seed in range(seeds)]
        self.variables = executor.copy(self.states[0].variables)
        self.stacked = jax.tree.map(lambda *x: jnp.stack(x), *self.states)
        self.batches = [executor.put(batch, train=True) for batch in rows]
        self.batch = executor.put(
            jax.tree.map(lambda *x: np.stack(x), *rows), train=True, seeds=True
        )
        step = parts.train_step(executor.axis)
        self.compile_s = {}
        self._one = self._compiled(
            "one", executor.compile(step), self.states[0], self.batches[0]
        )
        self._all = self._compiled(
            "at_once", executor.compile(step, seeds=True), self.stacked, self.batch
        )

    def _compiled(self, name: str, function: Any, *arguments: Any) -> Any:
        start = time.perf_counter()
        compiled = function.lower(*arguments).compile()
        self.compile_s[name] = time.perf_counter() - start
        return compiled

    def one(self) -> None:
        """Runs a step of the first seed."""
        self._step(0)

    def in_turn(self) -> None:
        """Runs a step of every seed, one after the other."""
        for index in range(len(self.states)):
            self._step(index)

    def at_once(self) -> None:
        """Runs the step of all seeds."""
        self.stacked, metrics = self._all(self.stacked, self.batch)
        jax.block_until_ready((self.stacked, metrics))

    def _step(self, index: int) -> None:
        made = self._one(self.states[index], self.batches[index])
        self.states[index], _ = jax.block_until_ready(made)


def measure(words: list[str], options: Any) -> dict[str, Any]:
    """Returns the times of the steps of a config, and its size."""
    steps = Steps(words, options.seeds)
    batch = steps.batches[0]
    found = {
        "parameters": count_parameters(steps.states[0].params).total,
        "macs_per_step": steps.spec.data.batch_size
        * count_macs_per_example(steps.parts.model, steps.variables, batch).total,
        "compile_s": steps.compile_s,
        "step": interleave(
            {k: getattr(steps, k) for k in ("one", "at_once", "in_turn")},
            options.rounds,
        ),
    }
    if options.parts:
        found["parts"] = encoders(steps, options)
    return found


def encoders(steps: Steps, options: Any) -> dict[str, Any]:
    """Returns the times of the gradient of every encoder, of one seed and of all."""
    batch, found = steps.batches[0], {}
    for modality, part in steps.spec.model.encoders.items():
        # Encoders of the cases are made of no inner parts.
        encoder = part.build(axis=None, dtype=None, modality=modality)
        arguments = batch.inputs[modality], batch.masks[modality]
        found[modality] = encoder_times(encoder, arguments, options)
    return found


def encoder_times(encoder: Any, arguments: Any, options: Any) -> dict[str, Any]:
    """Returns the times of the gradient of an encoder, of one seed and of all."""
    init = jax.jit(lambda x, m: encoder.init(jax.random.key(0), x, m, train=False))
    variables = init(*arguments)

    def gradient(variables, values, mask):
        def loss(params):
            tokens, _ = encoder.apply(
                {**variables, "params": params},
                values,
                mask,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.key(0)},
            )
            return jnp.sum(jnp.square(tokens.values))

        return jax.grad(loss)(variables["params"])

    alone, mapped = jax.jit(gradient), jax.jit(jax.vmap(gradient))
    stacked = jax.tree.map(
        lambda x: jnp.stack([x] * options.seeds), (variables, *arguments)
    )
    calls = {
        "one": lambda: jax.block_until_ready(alone(variables, *arguments)),
        "at_once": lambda: jax.block_until_ready(mapped(*stacked)),
    }
    return interleave(calls, options.rounds)


def interleave(
    functions: Mapping[str, Callable[[], Any]], rounds: int
) -> dict[str, dict[str, float]]:
    """Returns the 10th percentile of the seconds of each function, by clock.

    Args:
        functions: Functions to time in turn in every round; the first round is
            discarded.
        rounds: Number of measured rounds.
    """
    seconds = {name: [] for name in functions}
    for number in range(rounds + 1):
        for name, function in functions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            function()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            if number:
                seconds[name].append(spent)
    return {
        name: dict(zip(("wall", "cpu"), np.percentile(x, 10, axis=0), strict=True))
        for name, x in seconds.items()
    }


def whole(words: list[str], seeds: int) -> dict[str, dict[str, float]]:
    """Returns the seconds of commands of one epoch, compilation included."""
    kinds = {
        "one": ["--config.seeds=1"],
        "at_once": [f"--config.seeds={seeds}", "--config.train.parallel_seeds=on"],
        "in_turn": [f"--config.seeds={seeds}", "--config.train.parallel_seeds=off"],
    }
    found = {}
    for name, flags in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "mmfusion_jax.main", *words, *flags]
            command += [f"--workdir={folder}/run", "--config.train.epochs=1"]
            environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"}
            wall, cpu = time.perf_counter(), os.times()
            subprocess.run(command, check=True, env=environment, capture_output=True)
            used = os.times()
            found[name] = {
                "wall": time.perf_counter() - wall,
                "cpu": used.children_user
                + used.children_system
                - cpu.children_user
                - cpu.children_system,
            }
    return found


def table(result: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    seeds = result["seeds"]
    lines = [
        f"{seeds} seeds; ms of a step: wall-clock time / CPU time of all cores, 10th "
        "percentile; ratios of CPU times, and of entire commands of one epoch.",
        "",
        "| case | parameters | MMAC per step | one seed | at once | in turn "
        "| at once / one | in turn / one | command: at once / one | in turn / one |",
        "| --- " * 10 + "|",
    ]
    for name, case in result["cases"].items():
        step, all_runs = case["step"], case.get("whole")
        ms = [
            f"{1e3 * x['wall']:.1f} / {1e3 * x['cpu']:.1f}"
            for x in (step["one"], step["at_once"], step["in_turn"])
        ]
        cells = [name, f"{case['parameters']:,}", f"{case['macs_per_step'] / 1e6:.0f}"]
        cells += [*ms, *_ratios(step), *(_ratios(all_runs) if all_runs else ["", ""])]
        lines.append(f"| {' | '.join(cells)} |")
        for part, x in case.get("parts", {}).items():
            ratio = x["at_once"]["cpu"] / x["one"]["cpu"]
            ms = [
                f"{1e3 * x[k]['wall']:.1f} / {1e3 * x[k]['cpu']:.1f}"
                for k in ("one", "at_once")
            ]
            row = [f"its encoder of {part}", "", "", *ms, "", f"{ratio:.2f}"]
            lines.append(f"| {' | '.join([*row, '', '', ''])} |")
    return "\n".join(lines)


def _ratios(times: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns the CPU times of all seeds over those of one."""
    return [
        f"{times[name]['cpu'] / times['one']['cpu']:.2f}"
        for name in ("at_once", "in_turn")
    ]


if __name__ == "__main__":
    main()
