"""Compares the speed of CFN-SR's video encoder with the same network in PyTorch.

    python experiments/bench/resnext3d.py                     # 112 and 224, minutes
    python experiments/bench/resnext3d.py --case 56x1 --rounds 2

Forward pass (evaluation) and training step (forward, backward, Adam) on random clips of
30 frames. The rounds of the two libraries are interleaved, so that other load slows
both, though not equally: the table has the minimum over the rounds of the wall-clock
time and of the CPU time of all cores, and the load before and after. Writes JSON and
prints a table.
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
    """Measures the cases, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--case", action="append", help="SIZExBATCH, such as 112x2")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds")
    parser.add_argument("--out", type=Path, default=FOLDER / "resnext3d.json")
    parser.add_argument("--peak", choices=("jax", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    cases = options.case or CASES
    if options.peak:
        print(peak_memory(options.peak, cases[0]))
        return
    found = json.loads(options.out.read_text()) if options.out.exists() else {}
    for case in cases:
        before = machine()
        figures = measure(case, options.rounds)
        info = before | {"load_after": os.getloadavg()[0]}
        # The cases of earlier runs stay, each with its machine.
        found[case] = {"machine": info, **figures}
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(table({case: found[case] for case in cases}))


def measure(case: str, rounds: int) -> dict[str, Any]:
    """Returns the figures of one case."""
    clips, variables = inputs(case)
    in_torch = TorchModel(clips, variables)
    with tempfile.TemporaryDirectory() as folder:
        # An empty folder: the first model is compiled, the second one is read from it.
        # `clear_caches` drops what the process has in memory.
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        uncached = JaxModel(clips, variables).compile_seconds
        jax.clear_caches()
        in_jax = JaxModel(clips, variables)
        jax.config.update("jax_compilation_cache_dir", None)
    error = np.max(np.abs(in_jax.forward() - in_torch.forward()))
    figures = {
        "difference": float(error / np.max(np.abs(in_torch.forward()))),
        "compile": uncached,
        "compile_cached": in_jax.compile_seconds,
    }
    for name in ("forward", "step"):
        figures[name] = alternate(
            getattr(in_jax, name), getattr(in_torch, name), rounds
        )
    # The peak is that of a process, so each library runs in a new one.
    script = [sys.executable, __file__, "--case", case, "--peak"]
    figures["peak_mb"] = {
        library: int(subprocess.check_output([*script, library], text=True))
        for library in ("jax", "torch")
    }
    return figures


class JaxModel:
    """Encoder in JAX, compiled.

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
            params, stats, optimizer = state
            grads, stats = jax.grad(loss, has_aux=True)(params, stats, clips)
            updates, optimizer = tx.update(grads, optimizer)
            return optax.apply_updates(params, updates), stats, optimizer

        def forward(variables, clips):
            return encoder.apply(variables, clips, mask, train=False).values

        self.variables = jax.tree.map(jnp.asarray, variables)
        # Copies, as the first step donates its state.
        params = jax.tree.map(jnp.copy, self.variables["params"])
        stats = jax.tree.map(jnp.copy, self.variables["batch_stats"])
        self.state = (params, stats, tx.init(params))
        self.compile_seconds = {}
        self._forward = self._compiled("forward", jax.jit(forward), self.variables)
        step = jax.jit(step, donate_argnums=0)
        self._step = self._compiled("step", step, self.state)

    def forward(self) -> np.ndarray:
        """Returns the feature map, (b n d)."""
        return np.asarray(self._forward(self.variables, self.clips))

    def step(self) -> None:
        """Runs a training step."""
        self.state = jax.block_until_ready(self._step(self.state, self.clips))

    def _compiled(self, name: str, function, state):
        """Compiles a function ahead of time and records the seconds."""
        start = time.perf_counter()
        compiled = function.lower(state, self.clips).compile()
        self.compile_seconds[name] = time.perf_counter() - start
        return compiled


class TorchModel:
    """Encoder in PyTorch, with the variables of the JAX encoder."""

    def __init__(self, clips: np.ndarray, variables: Any):
        self.network = TorchResNeXt3D()
        load(self.network, flatten_dict(variables))
        self.clips = torch.tensor(clips.transpose(0, 4, 1, 2, 3).copy())
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-5)

    def forward(self) -> np.ndarray:
        """Returns the feature map, (b n d)."""
        self.network.eval()
        with torch.no_grad():
            maps = self.network(self.clips).numpy()
        return np.moveaxis(maps.reshape(*maps.shape[:2], -1), 1, 2)

    def step(self) -> None:
        """Runs a training step."""
        self.network.train()
        self.optimizer.zero_grad()
        self.network(self.clips).square().mean().backward()
        self.optimizer.step()


def inputs(case: str) -> tuple[np.ndarray, Any]:
    """Returns random clips (b t h w 3) and random variables of the encoder."""
    size, batch = map(int, case.split("x"))
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((batch, FRAMES, size, size, 3), np.float32)
    mask = np.ones((batch, FRAMES), bool)
    init = lambda: ResNeXt3D().init(jax.random.key(0), clips, mask, train=False)

    # Random and not from `init`: creating them in JAX would compile the initialization,
    # and count in the peak memory of PyTorch.
    def leaf(path, spec):
        if path[-1].key == "kernel":
            scale = np.sqrt(2 / (np.prod(spec.shape) / spec.shape[-2]))
            return scale * rng.standard_normal(spec.shape, np.float32)
        fill = np.ones if path[-1].key in ("scale", "var") else np.zeros
        return fill(spec.shape, np.float32)

    return clips, jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init))


def peak_memory(library: str, case: str) -> int:
    """Returns the peak memory of a process that runs two training steps, in MB.

    Linux only. Not from getrusage, which includes the memory of the parent process.
    """
    network = {"jax": JaxModel, "torch": TorchModel}[library](*inputs(case))
    for _ in range(2):
        network.step()
    status = Path("/proc/self/status").read_text().splitlines()
    return int(dict(line.split(":", 1) for line in status)["VmHWM"].split()[0]) // 1024


def table(cases: dict[str, Any]) -> str:
    """Returns the figures as Markdown."""
    lines = [
        "Seconds, minimum over the rounds, JAX / PyTorch.",
        "",
        "| clip x batch | forward, wall | forward, cores | step, wall | step, cores "
        "| compile, from cache | peak MB |",
        "| --- " * 7 + "|",
    ]
    for case, figures in cases.items():
        pairs = (
            [min(figures[name][library][clock]) for library in ("jax", "torch")]
            for name in ("forward", "step")
            for clock in ("wall", "cpu")
        )
        cells = [f"{in_jax:.2f} / {in_torch:.2f}" for in_jax, in_torch in pairs]
        totals = (sum(figures[key].values()) for key in ("compile", "compile_cached"))
        cells.append(", ".join(f"{seconds:.1f}" for seconds in totals))
        cells.append(" / ".join(str(mb) for mb in figures["peak_mb"].values()))
        lines.append(f"| {case} | {' | '.join(cells)} |")
    for case, figures in cases.items():
        info = figures["machine"]
        lines.append(
            f"\n{case}: {info['cpu']}, {info['cores']} cores, load {info['load']:.1f} "
            f"before and {info['load_after']:.1f} after; jax {info['jax']}, torch "
            f"{info['torch']}."
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
