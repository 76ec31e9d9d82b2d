"""MCL-MCF without BERT beside the same model in PyTorch, in one run.

    python experiments/bench/mcl_mcf.py --batch 16      # the paper's widths, minutes
    python experiments/bench/mcl_mcf.py --devices 2     # a device for each core
    python experiments/bench/mcl_mcf.py --memory        # of a step at batch 128
    python experiments/bench/mcl_mcf.py --quick         # only shows that it runs

Forward (evaluation) and a training step (three levels of contrast, backward, Adam) on
random sequences without dropout; text is vectors as BERT gives them. Both compute the
activations of the images of level 3 again on the way back. The two libraries take
turns, the short forward passes 30 in a row; figures are the least and the median, on
the wall and over all cores, and the load before and after is printed. Writes JSON and
prints a table.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from alternating_timer import alternate, machine, pairs
from torch_mcl_mcf import SCALE, TorchMCLMCF, load

from mmfusion_jax.encoders.lstm import LSTMEncoder
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.losses.contrastive import InfoNCE
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import L1
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.train.parallelism import Executor
from mmfusion_jax.types import Batch

WIDTHS = {"text": 768, "audio": 5, "video": 20}  # of CMU-MOSI
STEPS = {"text": 1, "audio": 375, "video": 500}
SIZES = {
    "encoded": 64,
    "mixed": 64,
    "lifted": 512,
    "hidden": 128,
    "projected": 128,
    "channels": (4, 6, 1),
}
QUICK = {
    "encoded": 4,
    "mixed": 4,
    "lifted": 12,
    "hidden": 4,
    "projected": 4,
    "channels": (2, 2, 1),
}
WEIGHT, RATE = 0.05, 1e-4
FOLDER = Path(__file__).parent


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--devices", type=int, default=1, help="of JAX, on the CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="of a step at batch 128")
    parser.add_argument("--quick", action="store_true", help="tiny widths")
    parser.add_argument("--out", type=Path, default=FOLDER / "mcl_mcf.json")
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    sizes, batch, steps = SIZES, options.batch, STEPS
    if options.quick:
        sizes, batch, steps = QUICK, 4, {"text": 1, "audio": 3, "video": 4}
    if options.memory:
        print(json.dumps(memory(sizes, 128, steps)))
        return
    torch.set_num_threads(os.cpu_count() or 1)
    result = {"machine": machine(), "batch": batch, "steps": steps}
    result["devices"] = options.devices
    result |= measure(sizes, batch, steps, options.rounds)
    result["machine"]["load_after"] = os.getloadavg()[0]
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def measure(
    sizes: dict[str, Any], size: int, steps: dict[str, int], rounds: int
) -> dict[str, Any]:
    """Seconds of every round, and how far outputs and losses are apart."""
    batch = examples(size, steps)
    ours = Ours(sizes, batch)
    theirs = Theirs(sizes, batch, jax.device_get(ours.state[0]))
    off = np.max(np.abs(ours.forward() - theirs.forward()))
    figures = {
        "difference": float(off / np.max(np.abs(theirs.forward()))),
        "losses": [ours.step(), theirs.step()],
    }
    for name, in_a_row in {"forward": 30, "step": 1}.items():
        calls = getattr(ours, name), getattr(theirs, name)
        figures[name] = alternate(*calls, rounds, in_a_row)
    return figures


def memory(sizes: dict[str, Any], size: int, steps: dict[str, int]) -> dict[str, float]:
    """GB of a step of training, compiled and not run."""
    init, step, _ = program(sizes, examples(size, steps))
    state = jax.eval_shape(init)
    batch = jax.eval_shape(lambda: examples(size, steps))
    found = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    analysis = found.memory_analysis()
    fields = ("argument", "output", "alias", "temp")
    sums = {k: getattr(analysis, f"{k}_size_in_bytes") / 1e9 for k in fields}
    peak = sums["argument"] + sums["output"] - sums["alias"] + sums["temp"]
    return {k: round(v, 2) for k, v in (sums | {"all": peak}).items()}


def examples(size: int, steps: dict[str, int]) -> Batch:
    """A random batch in which nothing is missing."""
    rng = np.random.default_rng(0)
    inputs = {
        m: jnp.asarray(rng.standard_normal((size, steps[m], f), np.float32))
        for m, f in WIDTHS.items()
    }
    masks = {m: jnp.ones(x.shape[:2], bool) for m, x in inputs.items()}
    scores = jnp.asarray(rng.standard_normal(size, np.float32))
    return Batch(inputs, masks, {"score": scores}, jnp.ones(size))


def program(sizes: dict[str, Any], batch: Batch):
    """First state, training step and forward of our model, not compiled."""
    widths = dict(sizes)
    encoded = widths.pop("encoded")
    encoders = {m: LSTMEncoder(encoded) for m in ("audio", "video")} | {
        "text": Precomputed()
    }
    model = MCLMCF(encoders, 1, dropout=0.0, **widths)
    tx, terms = optax.adam(RATE), {"task": WeightedLoss(L1("score"))}
    for level, names in views(model, batch).items():
        terms[level] = WeightedLoss(InfoNCE(names, SCALE), WEIGHT)
    objective = Objective(terms)

    def init():
        params = model.init(jax.random.key(0), batch, train=True)["params"]
        return params, tx.init(params)

    def loss(params, batch):
        outputs = model.apply({"params": params}, batch, train=True)
        return objective(outputs, batch, jnp.array(0))[0]

    def step(state, batch):
        params, optimiser = state
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, optimiser = tx.update(grads, optimiser)
        return (optax.apply_updates(params, updates), optimiser), value

    def forward(params, batch):
        return model.apply({"params": params}, batch, train=False).prediction

    return init, step, forward


def views(model: MCLMCF, batch: Batch) -> dict[str, tuple[str, ...]]:
    """The pairs of views of every level, as the model names them."""
    apply = lambda: model.init_with_output(jax.random.key(0), batch, train=True)[0]
    ends = [
        k.removesuffix("/x") for k in jax.eval_shape(apply).extras if k[-2:] == "/x"
    ]
    levels = sorted({name.split("/")[0] for name in ends})
    return {k: tuple(n for n in ends if n.startswith(k)) for k in levels}


class Ours:
    """The model in JAX, compiled as the library does, the batch over all devices."""

    def __init__(self, sizes: dict[str, Any], batch: Batch):
        init, step, forward = program(sizes, batch)
        executor = Executor()
        self.state = executor.create(init)
        self.batch = executor.put(jax.device_get(batch), train=False)
        self._step = executor.compile(step)
        self._forward = executor.compile_eval(forward)

    def forward(self) -> np.ndarray:
        """The scores."""
        return np.asarray(self._forward(self.state[0], self.batch))

    def step(self) -> float:
        """One step of training; its loss."""
        self.state, value = self._step(self.state, self.batch)
        return float(jax.block_until_ready((self.state, value))[1])


class Theirs:
    """The model in PyTorch."""

    def __init__(self, sizes: dict[str, Any], batch: Batch, params: Any):
        self.network = TorchMCLMCF(WIDTHS, sizes)
        load(self.network, params)
        numpy = lambda x: torch.tensor(np.array(x))
        self.inputs = {m: numpy(x) for m, x in batch.inputs.items()}
        self.scores = numpy(batch.labels["score"])
        self.optimiser = torch.optim.Adam(self.network.parameters(), RATE)

    def forward(self) -> np.ndarray:
        """The scores."""
        self.network.eval()
        with torch.no_grad():
            return self.network(self.inputs).numpy()

    def step(self) -> float:
        """One step of training; its loss."""
        self.network.train()
        self.optimiser.zero_grad()
        said, contrast = self.network(self.inputs)
        loss = (said - self.scores).abs().mean() + WEIGHT * contrast
        loss.backward()
        self.optimiser.step()
        return loss.item()


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    info = result["machine"]
    rows = {name: pairs(result[name]) for name in ("forward", "step")}
    names = list(rows["forward"])
    lines = [
        f"{info['cpu']}, {info['cores']} cores, load {info['load']:.1f} before and "
        f"{info['load_after']:.1f} after; jax {info['jax']}, torch {info['torch']}; "
        f"devices of JAX {result['devices']}, batch {result['batch']}. Seconds, ours / "
        f"PyTorch. Outputs differ by {result['difference']:.1e} of the largest, first "
        f"losses are "
        f"{result['losses'][0]:.6f} and {result['losses'][1]:.6f}.",
        "",
        f"| | {' | '.join(names)} |",
        "| --- " * (len(names) + 1) + "|",
    ]
    lines += [f"| {k} | {' | '.join(row.values())} |" for k, row in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
