"""CFN-SR's video encoder beside the same network in PyTorch, in one run.

    python experiments/bench/resnext3d.py                     # 112 and 224, minutes
    python experiments/bench/resnext3d.py --case 56x1 --rounds 2

Forward (evaluation) and a training step (forward, backward, Adam) on random clips of
30 frames. The two libraries take turns, so that a busy machine slows both, though not
alike: figures are the least of the rounds, once as time on the wall and once as time of
all cores, and the load before and after is printed. Writes JSON and prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from alternating_timer import alternate, machine
from flax.traverse_util import flatten_dict
from torch_resnext3d import TorchResNeXt3D, load

from mmfusion_jax.encoders.resnext3d import ResNeXt3D

FRAMES = 30
CASES = ("112x1", "112x2", "224x1")
FOLDER = Path(__file__).parent


def main() -> None:
    """Measures the cases asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", action="append", help="SIZExBATCH, such as 112x2")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=FOLDER / "resnext3d.json")
    parser.add_argument("--peak", choices=("jax", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    cases = options.case or CASES
    if options.peak:
        print(peak_memory(options.peak, cases[0]))
        return
    result = {"machine": machine(), "cases": {}}
    for case in cases:
        result["cases"][case] = measure(case, options.rounds)
        result["machine"]["load_after"] = os.getloadavg()[0]
        options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))


def measure(case: str, rounds: int) -> dict[str, Any]:
    """All figures of one case."""
    clips, variables = inputs(case)
    theirs = Theirs(clips, variables)
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        cold = Ours(clips, variables).compile_seconds
        jax.clear_caches()
        ours = Ours(clips, variables)
        jax.config.update("jax_compilation_cache_dir", None)
    off = np.max(np.abs(ours.forward() - theirs.forward()))
    figures = {
        "difference": float(off / np.max(np.abs(theirs.forward()))),
        "compile": cold,
        "compile_cached": ours.compile_seconds,
    }
    for name in ("forward", "step"):
        figures[name] = alternate(getattr(ours, name), getattr(theirs, name), rounds)
    script = [sys.executable, __file__, "--case", case, "--peak"]
    figures["peak_mb"] = {
        library: int(subprocess.check_output([*script, library], text=True))
        for library in ("jax", "torch")
    }
    return figures


class Ours:
    """The encoder in JAX, compiled.

    Attributes:
        compile_seconds: {"forward": seconds, "step": seconds}.
    """

    def __init__(self, clips: np.ndarray, variables: Any):
        encoder, mask = ResNeXt3D(), jnp.ones(clips.shape[:2], bool)
        self.clips, tx = jnp.asarray(clips), optax.adam(1e-5)

        def loss(params, stats, clips):
            tokens, updated = encoder.apply(
                {"params": params, "batch_stats": stats},
                clips,
                mask,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.mean(jnp.square(tokens.values)), updated["batch_stats"]

        def step(state, clips):
            params, stats, optimiser = state
            grads, stats = jax.grad(loss, has_aux=True)(params, stats, clips)
            updates, optimiser = tx.update(grads, optimiser)
            return optax.apply_updates(params, updates), stats, optimiser

        def forward(variables, clips):
            return encoder.apply(variables, clips, mask, train=False).values

        self.variables = jax.tree.map(jnp.asarray, variables)
        params = jax.tree.map(jnp.copy, self.variables["params"])
        stats = jax.tree.map(jnp.copy, self.variables["batch_stats"])
        self.state = (params, stats, tx.init(params))
        self.compile_seconds = {}
        self._forward = self._compiled("forward", jax.jit(forward), self.variables)
        step = jax.jit(step, donate_argnums=0)
        self._step = self._compiled("step", step, self.state)

    def forward(self) -> np.ndarray:
        """The map of features, (b n d)."""
        return np.asarray(self._forward(self.variables, self.clips))

    def step(self) -> None:
        """One step of training."""
        self.state = jax.block_until_ready(self._step(self.state, self.clips))

    def _compiled(self, name: str, function, state):
        start = time.perf_counter()
        compiled = function.lower(state, self.clips).compile()
        self.compile_seconds[name] = time.perf_counter() - start
        return compiled


class Theirs:
    """The encoder in PyTorch."""

    def __init__(self, clips: np.ndarray, variables: Any):
        self.network = TorchResNeXt3D()
        load(self.network, flatten_dict(variables))
        self.clips = torch.tensor(clips.transpose(0, 4, 1, 2, 3).copy())
        self.optimiser = torch.optim.Adam(self.network.parameters(), 1e-5)

    def forward(self) -> np.ndarray:
        """The map of features, (b n d)."""
        self.network.eval()
        with torch.no_grad():
            maps = self.network(self.clips).numpy()
        return np.moveaxis(maps.reshape(*maps.shape[:2], -1), 1, 2)

    def step(self) -> None:
        """One step of training."""
        self.network.train()
        self.optimiser.zero_grad()
        self.network(self.clips).square().mean().backward()
        self.optimiser.step()


def inputs(case: str) -> tuple[np.ndarray, Any]:
    """Random clips (b t h w 3) and random variables of the encoder."""
    size, batch = map(int, case.split("x"))
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((batch, FRAMES, size, size, 3), np.float32)
    mask = np.ones((batch, FRAMES), bool)
    init = lambda: ResNeXt3D().init(jax.random.key(0), clips, mask, train=False)

    def leaf(path, spec):
        if path[-1].key == "kernel":
            scale = np.sqrt(2 / (np.prod(spec.shape) / spec.shape[-2]))
            return scale * rng.standard_normal(spec.shape, np.float32)
        fill = np.ones if path[-1].key in ("scale", "var") else np.zeros
        return fill(spec.shape, np.float32)

    return clips, jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init))


def peak_memory(library: str, case: str) -> int:
    """The most memory of a process that takes two steps of training, MB; Linux only.

    Not from getrusage, which begins with what the parent process had.
    """
    network = {"jax": Ours, "torch": Theirs}[library](*inputs(case))
    for _ in range(2):
        network.step()
    status = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in status)["VmHWM"].split()[0]) // 1024


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    info = result["machine"]
    lines = [
        f"{info['cpu']}, {info['cores']} cores, load {info['load']:.1f} before and "
        f"{info['load_after']:.1f} after; jax {info['jax']}, torch {info['torch']}. "
        "Seconds, the least of the rounds, ours / PyTorch.",
        "",
        "| clip x batch | forward, wall | forward, cores | step, wall | step, cores "
        "| compile, from cache | peak MB |",
        "| --- " * 7 + "|",
    ]
    for case, figures in result["cases"].items():
        pairs = (
            [min(figures[name][library][clock]) for library in ("jax", "torch")]
            for name in ("forward", "step")
            for clock in ("wall", "cpu")
        )
        cells = [f"{ours:.2f} / {theirs:.2f}" for ours, theirs in pairs]
        totals = (sum(figures[key].values()) for key in ("compile", "compile_cached"))
        cells.append(", ".join(f"{seconds:.1f}" for seconds in totals))
        cells.append(" / ".join(str(mb) for mb in figures["peak_mb"].values()))
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
