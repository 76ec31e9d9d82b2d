"""MEA beside the same network in PyTorch, in one run.

    python experiments/bench/mea.py                  # the paper's shapes, minutes
    python experiments/bench/mea.py --quick          # only shows that it runs

Forward (evaluation) and a training step (forward, backward, Adam; squared error and
disparity) on random sequences, without dropout and without the discriminators, which
are two small matrices. The two libraries take turns, so that a busy machine slows both,
though not alike: figures are the least of the rounds and their median, on the wall, and
the least over all cores; the load before and after is printed. Writes JSON and prints a
table.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from alternating_timer import alternate, machine
from flax.core import FrozenDict
from torch_mea import TorchMEA, disparity, load

from mmfusion_jax.encoders.conv_lstm import ConvLSTM
from mmfusion_jax.losses.disparity import HSICDisparity
from mmfusion_jax.models.mea import MEA
from mmfusion_jax.types import Batch

WIDTHS = {"text": 300, "video": 35, "audio": 74}
STEPS = {"text": 50, "video": 500, "audio": 375}
QUICK = {"text": 3, "video": 5, "audio": 4}
ALPHA, RATE = 2e-2, 1e-3
FOLDER = Path(__file__).parent


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="no fused attention")
    parser.add_argument("--quick", action="store_true", help="tiny sequences")
    parser.add_argument("--out", type=Path, default=FOLDER / "mea.json")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    steps, batch, rounds = STEPS, options.batch, options.rounds
    if options.quick:
        steps, batch, rounds = QUICK, 4, 1
    result = {"machine": machine(), "batch": batch, "steps": steps}
    result |= measure(steps, batch, rounds, options.plain)
    result["machine"]["load_after"] = os.getloadavg()[0]
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def measure(
    steps: dict[str, int], batch: int, rounds: int, plain: bool
) -> dict[str, Any]:
    """Seconds of every round, how far the outputs are apart, seconds of compilation."""
    rng = np.random.default_rng(0)
    inputs = {
        m: rng.standard_normal((batch, steps[m], width), np.float32)
        for m, width in WIDTHS.items()
    }
    scores = rng.standard_normal(batch, np.float32)
    ours = Ours(inputs, scores)
    theirs = Theirs(inputs, scores, ours.params(), plain)
    off = np.max(np.abs(ours.forward() - theirs.forward()))
    figures = {
        "difference": float(off / np.max(np.abs(theirs.forward()))),
        "compile": ours.compile_seconds,
        "plain": plain,
    }
    for name in ("forward", "step"):
        figures[name] = alternate(getattr(ours, name), getattr(theirs, name), rounds)
    return figures


class Ours:
    """The model in JAX, compiled.

    Attributes:
        compile_seconds: {"forward": seconds, "step": seconds}.
    """

    def __init__(self, inputs: dict[str, np.ndarray], scores: np.ndarray):
        order = tuple(inputs)
        model = MEA(
            FrozenDict({m: ConvLSTM(40) for m in order}),
            1,
            order,
            dropout=0.0,
            adversarial=False,
        )
        masks = {m: jnp.ones(x.shape[:2], bool) for m, x in inputs.items()}
        self.batch = Batch(
            {m: jnp.asarray(x) for m, x in inputs.items()},
            masks,
            {"score": jnp.asarray(scores)},
            jnp.ones(len(scores)),
        )
        tx, apart = optax.adam(RATE), HSICDisparity(order)

        def loss(params, batch):
            outputs = model.apply({"params": params}, batch, train=True)
            error = jnp.square(outputs.prediction - batch.labels["score"])
            return jnp.mean(error) + ALPHA * apart(outputs, batch)

        def step(state, batch):
            params, optimiser = state
            grads = jax.grad(loss)(params, batch)
            updates, optimiser = tx.update(grads, optimiser)
            return optax.apply_updates(params, updates), optimiser

        def forward(params, batch):
            return model.apply({"params": params}, batch, train=False).prediction

        init = jax.jit(lambda b: model.init(jax.random.key(0), b, train=False))
        self._first = init(self.batch)["params"]
        params = jax.tree.map(jnp.copy, self._first)
        self.state = params, tx.init(params)
        self.compile_seconds = {}
        self._forward = self._compiled("forward", jax.jit(forward), self._first)
        step = jax.jit(step, donate_argnums=0)
        self._step = self._compiled("step", step, self.state)

    def params(self) -> dict[str, Any]:
        """The first weights, for PyTorch."""
        return jax.tree.map(np.asarray, self._first)

    def forward(self) -> np.ndarray:
        """The scores, (b)."""
        return np.asarray(self._forward(self._first, self.batch))

    def step(self) -> None:
        """One step of training."""
        self.state = jax.block_until_ready(self._step(self.state, self.batch))

    def _compiled(self, name: str, function: Any, state: Any) -> Any:
        start = time.perf_counter()
        compiled = function.lower(state, self.batch).compile()
        self.compile_seconds[name] = time.perf_counter() - start
        return compiled


class Theirs:
    """The model in PyTorch, with our first weights."""

    def __init__(self, inputs, scores, params, plain: bool):
        self.network = TorchMEA(WIDTHS, plain=plain)
        load(self.network, params)
        self.inputs = {m: torch.tensor(x) for m, x in inputs.items()}
        self.scores = torch.tensor(scores)
        self.first = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.optimiser = torch.optim.Adam(self.network.parameters(), RATE)

    def forward(self) -> np.ndarray:
        """The scores, (b)."""
        with torch.no_grad():
            return self.network(self.inputs)[0].numpy()

    def step(self) -> None:
        """One step of training."""
        self.optimiser.zero_grad()
        said, h_e, h_a = self.network(self.inputs)
        error = (said - self.scores).square().mean()
        (error + ALPHA * disparity(h_e, h_a)).backward()
        self.optimiser.step()


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    info, compiled = result["machine"], result["compile"]
    kind = "by matrices" if result["plain"] else "fused"
    lines = [
        f"{info['cpu']}, {info['cores']} cores, load {info['load']:.1f} before and "
        f"{info['load_after']:.1f} after; jax {info['jax']}, torch {info['torch']}. "
        f"Steps {result['steps']}, batch {result['batch']}; PyTorch's attention "
        f"{kind}; outputs differ by {result['difference']:.1e} of the largest; "
        f"compilation {compiled['forward']:.0f} + {compiled['step']:.0f} s. "
        "Seconds, ours / PyTorch.",
        "",
        "| | least, wall | least, all cores | median, wall |",
        "| --- | --- | --- | --- |",
    ]
    for name in ("forward", "step"):
        cells = [
            " / ".join(f"{of(result[name][x][clock]):.3g}" for x in ("jax", "torch"))
            for of, clock in ((min, "wall"), (min, "cpu"), (np.median, "wall"))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
