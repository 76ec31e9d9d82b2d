"""Compares the speed of MCL-MCF without BERT with the same model in PyTorch.

    python experiments/bench/mcl_mcf.py --batch 16      # the paper's dims, minutes
    python experiments/bench/mcl_mcf.py --devices 2     # one device per core
    python experiments/bench/mcl_mcf.py --memory        # of a step at batch 128
    python experiments/bench/mcl_mcf.py --quick         # checks that it runs

Forward pass (evaluation) and training step (three levels of contrastive loss, backward,
Adam) on random sequences without dropout; the text is precomputed BERT embeddings. Both
rematerialize the activations of the images of level 3 in the backward pass. The rounds
of the two libraries are interleaved, with 30 consecutive forward passes in a round; the
table has minimum and median of wall-clock time and of the CPU time of all cores, and
the load before and after. Writes JSON and prints a table.
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
from alternating_timer import alternate, format_pairs, machine
from torch_mcl_mcf import SCALE, TorchMCLMCF, load

from mmfusion_jax.encoders.lstm import LSTMEncoder
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.losses.contrastive import InfoNCE
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import L1
from mmfusion_jax.models.mcl_mcf import MCLMCF
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.types import Batch

FEATURES = {"text": 768, "audio": 5, "video": 20}  # of CMU-MOSI
STEPS = {"text": 1, "audio": 375, "video": 500}
SIZES = {
    "encoder_dim": 64,
    "mixture_dim": 64,
    "projection_dim": 512,
    "hidden_dim": 128,
    "contrastive_dim": 128,
    "channels": (4, 6, 1),
}
QUICK = {
    "encoder_dim": 4,
    "mixture_dim": 4,
    "projection_dim": 12,
    "hidden_dim": 4,
    "contrastive_dim": 4,
    "channels": (2, 2, 1),
}
LOSS_WEIGHT, LEARNING_RATE = 0.05, 1e-4
FOLDER = Path(__file__).parent


def main() -> None:
    """Measures, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=16, help="batch size")
    parser.add_argument(
        "--devices", type=int, default=1, help="number of JAX CPU devices"
    )
    parser.add_argument("--rounds", type=int, default=3, help="measured rounds")
    parser.add_argument(
        "--memory", action="store_true", help="print the memory of a step at batch 128"
    )
    parser.add_argument("--quick", action="store_true", help="tiny dims")
    parser.add_argument("--out", type=Path, default=FOLDER / "mcl_mcf.json")
    options = parser.parse_args()
    # Before anything initializes JAX.
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
    """Returns seconds of every round, and the differences of outputs and losses."""
    batch = examples(size, steps)
    in_jax = JaxModel(sizes, batch)
    in_torch = TorchModel(sizes, batch, jax.device_get(in_jax.state[0]))
    error = np.max(np.abs(in_jax.forward() - in_torch.forward()))
    figures = {
        "difference": float(error / np.max(np.abs(in_torch.forward()))),
        "losses": [in_jax.step(), in_torch.step()],  # of all terms; they must agree
    }
    for name, calls_per_round in {"forward": 30, "step": 1}.items():
        calls = getattr(in_jax, name), getattr(in_torch, name)
        figures[name] = alternate(*calls, rounds, calls_per_round)
    return figures


def memory(sizes: dict[str, Any], size: int, steps: dict[str, int]) -> dict[str, float]:
    """Returns the GB of a training step, which is compiled but not run."""
    init, step, _ = program(sizes, examples(size, steps))
    state = jax.eval_shape(init)
    batch = jax.eval_shape(lambda: examples(size, steps))
    found = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    analysis = found.memory_analysis()
    fields = ("argument", "output", "alias", "temp")
    sums = {k: getattr(analysis, f"{k}_size_in_bytes") / 1e9 for k in fields}
    # Outputs that alias arguments (the donated state) use their memory.
    peak = sums["argument"] + sums["output"] - sums["alias"] + sums["temp"]
    return {k: round(v, 2) for k, v in (sums | {"all": peak}).items()}


def examples(size: int, steps: dict[str, int]) -> Batch:
    """Returns a random batch without missing modalities."""
    rng = np.random.default_rng(0)
    inputs = {
        m: jnp.asarray(rng.standard_normal((size, steps[m], f), np.float32))
        for m, f in FEATURES.items()
    }
    masks = {m: jnp.ones(x.shape[:2], bool) for m, x in inputs.items()}
    scores = jnp.asarray(rng.standard_normal(size, np.float32))
    return Batch(inputs, masks, {"score": scores}, jnp.ones(size))


def program(sizes: dict[str, Any], batch: Batch):
    """Returns init, training step and forward pass of the JAX model, not compiled."""
    dims = dict(sizes)
    encoder_dim = dims.pop("encoder_dim")
    encoders = {m: LSTMEncoder(encoder_dim) for m in ("audio", "video")} | {
        "text": Precomputed()
    }
    model = MCLMCF(encoders, 1, dropout=0.0, **dims)
    tx, terms = optax.adam(LEARNING_RATE), {"task": WeightedLoss(L1("score"))}
    for level, names in views(model, batch).items():
        terms[level] = WeightedLoss(InfoNCE(names, SCALE), LOSS_WEIGHT)
    objective = Objective(terms)

    def init():
        params = model.init(jax.random.key(0), batch, train=True)["params"]
        return params, tx.init(params)

    def loss(params, batch):
        outputs = model.apply({"params": params}, batch, train=True)
        return objective(outputs, batch, jnp.array(0))[0]

    def step(state, batch):
        params, optimizer = state
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, optimizer = tx.update(grads, optimizer)
        return (optax.apply_updates(params, updates), optimizer), value

    def forward(params, batch):
        return model.apply({"params": params}, batch, train=False).prediction

    return init, step, forward


def views(model: MCLMCF, batch: Batch) -> dict[str, tuple[str, ...]]:
    """Returns the names of the pairs of views, by level."""
    # From the model itself, which names them; only shapes are computed.
    apply = lambda: model.init_with_output(jax.random.key(0), batch, train=True)[0]
    ends = [k.removesuffix("/x") for k in jax.eval_shape(apply).aux if k[-2:] == "/x"]
    levels = sorted({name.split("/")[0] for name in ends})
    return {k: tuple(n for n in ends if n.startswith(k)) for k in levels}


class JaxModel:
    """MCL-MCF in JAX, compiled as the library does it, on all devices."""

    def __init__(self, sizes: dict[str, Any], batch: Batch):
        init, step, forward = program(sizes, batch)
        executor = Executor()
        self.state = executor.create(init)
        self.batch = executor.put(jax.device_get(batch), train=False)
        self._step = executor.compile(step)
        self._forward = executor.compile_eval(forward)

    def forward(self) -> np.ndarray:
        """Returns the scores, (b)."""
        return np.asarray(self._forward(self.state[0], self.batch))

    def step(self) -> float:
        """Runs a training step and returns its loss."""
        self.state, value = self._step(self.state, self.batch)
        return float(jax.block_until_ready((self.state, value))[1])


class TorchModel:
    """MCL-MCF in PyTorch, with the initial weights of the JAX model."""

    def __init__(self, sizes: dict[str, Any], batch: Batch, params: Any):
        self.network = TorchMCLMCF(FEATURES, sizes)
        load(self.network, params)
        to_torch = lambda x: torch.tensor(np.array(x))
        self.inputs = {m: to_torch(x) for m, x in batch.inputs.items()}
        self.scores = to_torch(batch.labels["score"])
        self.optimizer = torch.optim.Adam(self.network.parameters(), LEARNING_RATE)

    def forward(self) -> np.ndarray:
        """Returns the scores, (b)."""
        self.network.eval()
        with torch.no_grad():
            return self.network(self.inputs).numpy()

    def step(self) -> float:
        """Runs a training step and returns its loss."""
        self.network.train()
        self.optimizer.zero_grad()
        y_pred, contrast = self.network(self.inputs)
        loss = (y_pred - self.scores).abs().mean() + LOSS_WEIGHT * contrast
        loss.backward()
        self.optimizer.step()
        return loss.item()


def table(result: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    info = result["machine"]
    rows = {name: format_pairs(result[name]) for name in ("forward", "step")}
    names = list(rows["forward"])
    lines = [
        f"{info['cpu']}, {info['cores']} cores, load {info['load']:.1f} before and "
        f"{info['load_after']:.1f} after; jax {info['jax']}, torch {info['torch']}; "
        f"JAX devices {result['devices']}, batch {result['batch']}. Seconds, JAX / "
        f"PyTorch. The maximum difference of the outputs is "
        f"{result['difference']:.1e} of the largest output; the first losses are "
        f"{result['losses'][0]:.6f} and {result['losses'][1]:.6f}.",
        "",
        f"| | {' | '.join(names)} |",
        "| --- " * (len(names) + 1) + "|",
    ]
    lines += [f"| {k} | {' | '.join(row.values())} |" for k, row in rows.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
