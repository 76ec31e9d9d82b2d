"""Compares the speed of MEA with the same network in PyTorch.

    python experiments/bench/mea.py                  # the paper's shapes, minutes
    python experiments/bench/mea.py --quick          # checks that it runs

Forward pass (evaluation) and training step (forward, backward, Adam; squared error and
disparity) on random sequences, without dropout and without the discriminators, which
are two small matrices. The rounds of the two libraries are interleaved, so that other
load slows both, though not equally: the table has the minimum and the median of the
wall-clock time and the minimum of the CPU time of all cores, and the load before and
after. Writes JSON and prints a table.
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

FEATURES = {"text": 300, "video": 35, "audio": 74}
STEPS = {"text": 50, "video": 500, "audio": 375}
QUICK = {"text": 3, "video": 5, "audio": 4}
ALPHA, LEARNING_RATE = 2e-2, 1e-3
FOLDER = Path(__file__).parent


def main() -> None:
    """Measures, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32, help="batch size")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument(
        "--plain", action="store_true", help="PyTorch without its fused attention"
    )
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
    """Returns seconds of every round and of compilation, and the output difference."""
    rng = np.random.default_rng(0)
    inputs = {
        m: rng.standard_normal((batch, steps[m], f), np.float32)
        for m, f in FEATURES.items()
    }
    scores = rng.standard_normal(batch, np.float32)
    in_jax = JaxModel(inputs, scores)
    in_torch = TorchModel(inputs, scores, in_jax.params(), plain)
    # Before the steps change the weights: the two networks must be the same function.
    error = np.max(np.abs(in_jax.forward() - in_torch.forward()))
    figures = {
        "difference": float(error / np.max(np.abs(in_torch.forward()))),
        "compile": in_jax.compile_seconds,
        "plain": plain,
    }
    for name in ("forward", "step"):
        figures[name] = alternate(
            getattr(in_jax, name), getattr(in_torch, name), rounds
        )
    return figures


class JaxModel:
    """MEA in JAX, compiled.

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
        tx, hsic = optax.adam(LEARNING_RATE), HSICDisparity(order)

        def loss(params, batch):
            outputs = model.apply({"params": params}, batch, train=True)
            error = jnp.square(outputs.prediction - batch.labels["score"])
            return jnp.mean(error) + ALPHA * hsic(outputs, batch)

        def step(state, batch):
            params, optimizer = state
            grads = jax.grad(loss)(params, batch)
            updates, optimizer = tx.update(grads, optimizer)
            return optax.apply_updates(params, updates), optimizer

        def forward(params, batch):
            return model.apply({"params": params}, batch, train=False).prediction

        init = jax.jit(lambda b: model.init(jax.random.key(0), b, train=False))
        self._initial = init(self.batch)["params"]
        # A copy, as the first step donates its state.
        params = jax.tree.map(jnp.copy, self._initial)
        self.state = params, tx.init(params)
        self.compile_seconds = {}
        self._forward = self._compiled("forward", jax.jit(forward), self._initial)
        step = jax.jit(step, donate_argnums=0)
        self._step = self._compiled("step", step, self.state)

    def params(self) -> dict[str, Any]:
        """Returns the initial weights, for PyTorch."""
        return jax.tree.map(np.asarray, self._initial)

    def forward(self) -> np.ndarray:
        """Returns the scores, (b)."""
        return np.asarray(self._forward(self._initial, self.batch))

    def step(self) -> None:
        """Runs a training step."""
        self.state = jax.block_until_ready(self._step(self.state, self.batch))

    def _compiled(self, name: str, function: Any, state: Any) -> Any:
        """Compiles a function ahead of time and records the seconds."""
        start = time.perf_counter()
        compiled = function.lower(state, self.batch).compile()
        self.compile_seconds[name] = time.perf_counter() - start
        return compiled


class TorchModel:
    """MEA in PyTorch, with the initial weights of the JAX model."""

    def __init__(self, inputs, scores, params, plain: bool):
        self.network = TorchMEA(FEATURES, plain=plain)
        load(self.network, params)
        self.inputs = {m: torch.tensor(x) for m, x in inputs.items()}
        self.scores = torch.tensor(scores)
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)

    def forward(self) -> np.ndarray:
        """Returns the scores, (b)."""
        with torch.no_grad():
            return self.network(self.inputs)[0].numpy()

    def step(self) -> None:
        """Runs a training step."""
        self.optimizer.zero_grad()
        y_pred, h_e, h_a = self.network(self.inputs)
        error = (y_pred - self.scores).square().mean()
        (error + ALPHA * disparity(h_e, h_a)).backward()
        self.optimizer.step()


def table(result: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    info, compiled = result["machine"], result["compile"]
    kind = "not fused" if result["plain"] else "fused"
    lines = [
        f"{info['cpu']}, {info['cores']} cores, load {info['load']:.1f} before and "
        f"{info['load_after']:.1f} after; jax {info['jax']}, torch {info['torch']}. "
        f"Steps {result['steps']}, batch {result['batch']}; PyTorch's attention "
        f"is {kind}; the maximum difference of the outputs is "
        f"{result['difference']:.1e} of the largest output; "
        f"compilation {compiled['forward']:.0f} + {compiled['step']:.0f} s. "
        "Seconds, JAX / PyTorch.",
        "",
        "| | minimum, wall | minimum, all cores | median, wall |",
        "| --- | --- | --- | --- |",
    ]
    for name in ("forward", "step"):
        cells = [
            " / ".join(
                f"{reduce(result[name][x][clock]):.3g}" for x in ("jax", "torch")
            )
            for reduce, clock in ((min, "wall"), (min, "cpu"), (np.median, "wall"))
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
