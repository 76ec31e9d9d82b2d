"""Forms of an LSTM's loop, and PyTorch's LSTM, in one run.

    python experiments/bench/lstm.py                 # MEA's and MCL-MCF's lengths
    python experiments/bench/lstm.py --quick         # only shows that it runs

A bidirectional LSTM over random sequences, batch 32: forward, and forward with the
gradients of input and weights. All forms take turns; figures are the least of the
rounds on the wall, in milliseconds. Prints a table.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from alternating_timer import machine

from mmfusion_jax.ops.lstm_scan import LSTMWeights, lstm

BATCH, FEATURES = 32, 40
UNROLLS = (1, 4)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 375, 500])
    parser.add_argument("--width", type=int, default=20, help="of each direction")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="tiny sequences")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    steps, rounds = options.steps, options.rounds
    if options.quick:
        steps, rounds = [3], 1
    info = machine()
    print(f"{info['cpu']}, {info['cores']} cores, load {info['load']:.1f};", end=" ")
    print(f"jax {info['jax']}, torch {info['torch']}; batch {BATCH},", end=" ")
    print(f"{FEATURES} features, {options.width} units each way. Milliseconds,")
    print("forward / with gradients.\n")
    table = [measure(n, options.width, rounds) for n in steps]
    print(f"| form | {' | '.join(f'{n} steps' for n in steps)} |")
    print(f"| --- |{' --- |' * len(steps)}")
    for name in table[0]:
        print(f"| {name} | {' | '.join(row[name] for row in table)} |")


def measure(steps: int, width: int, rounds: int) -> dict[str, str]:
    """Every form's figures."""
    rng = np.random.default_rng(0)
    shapes = {
        "x": (BATCH, steps, FEATURES),
        "into": (2, FEATURES, 4 * width),
        "kernel": (2, width, 4 * width),
    }
    given = {m: 0.1 * rng.standard_normal(s, np.float32) for m, s in shapes.items()}
    calls = {}
    for name, form in forms().items():
        for goal, call in compiled(form, given).items():
            calls[name, goal] = call
    for goal, call in pytorch(given, width).items():
        calls["PyTorch", goal] = call
    least = turns(calls, rounds)
    names = dict.fromkeys(name for name, _ in calls)
    both = ("forward", "gradients")
    return {
        m: " / ".join(f"{1e3 * least[m, goal]:.1f}" for goal in both) for m in names
    }


def forms() -> dict[str, Callable[..., jax.Array]]:
    """(x, input weights, recurrent weights) -> states, in every form."""
    made: dict[str, Any] = {"as in the library": library}
    for n in UNROLLS:
        name = f"{n} step{'s' * (n > 1)} a turn"
        made[f"input weights in the loop, {name}"] = functools.partial(inside, n)
        made[f"one product for all inputs, {name}"] = functools.partial(before, n)
    made["one product, a loop each way, 1 step a turn"] = apart
    return made


def library(x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """Input weights in the loop, and a way back of its own."""
    bias = jnp.zeros((len(into), into.shape[-1]), x.dtype)
    weights = LSTMWeights(into, kernel, bias)
    return lstm(x.swapaxes(0, 1), jnp.ones(x.shape[1::-1], bool), weights).all_steps


def before(unroll: int, x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """One product for the inputs of all steps, before the loop."""
    gates = jnp.einsum("bnd,rdk->nrbk", x, into)
    recur = lambda h, given: given + jnp.einsum("rbw,rwk->rbk", h, kernel)
    return run(recur, gates, kernel.shape[1], unroll)


def inside(unroll: int, x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """The input's product in every step."""
    both = jnp.concatenate([into, kernel], axis=1)

    def recur(h: jax.Array, given: jax.Array) -> jax.Array:
        return jnp.einsum("rbe,rek->rbk", jnp.concatenate([given, h], -1), both)

    steps = jnp.moveaxis(x, 1, 0)[:, None]
    steps = jnp.broadcast_to(steps, (len(steps), len(into), *steps.shape[2:]))
    return run(recur, steps, kernel.shape[1], unroll)


def apart(x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """The two directions one after the other."""
    ways = enumerate((x, x[:, ::-1]))
    done = [before(1, y, into[r : r + 1], kernel[r : r + 1]) for r, y in ways]
    return jnp.concatenate([done[0], done[1][::-1]], axis=1)


def run(recur: Callable, steps: jax.Array, width: int, unroll: int) -> jax.Array:
    """The loop, differentiated by JAX; `recur` (h, step) gives the gates."""

    def cell(state: tuple[jax.Array, jax.Array], given: jax.Array):
        h, c = state
        i, f, g, o = jnp.split(recur(h, given), 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    turned = lambda x: jnp.concatenate([x[:, :1], x[::-1, 1:]], axis=1)
    zero = jnp.zeros((*steps.shape[1:3], width), steps.dtype)
    return turned(jax.lax.scan(cell, (zero, zero), turned(steps), unroll=unroll)[1])


def compiled(form: Callable, given: dict[str, np.ndarray]) -> dict[str, Callable]:
    """The calls of a form in JAX."""
    arrays = tuple(jnp.asarray(x) for x in given.values())
    forward = jax.jit(form)
    back = jax.jit(jax.grad(lambda *x: jnp.sum(form(*x) ** 2), argnums=(0, 1, 2)))
    return {
        "forward": lambda: jax.block_until_ready(forward(*arrays)),
        "gradients": lambda: jax.block_until_ready(back(*arrays)),
    }


def pytorch(given: dict[str, np.ndarray], width: int) -> dict[str, Callable]:
    """The calls of PyTorch's layer."""
    layer = torch.nn.LSTM(FEATURES, width, batch_first=True, bidirectional=True)
    x = torch.tensor(given["x"], requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    return {
        "forward": forward,
        "gradients": lambda: (layer(x)[0] ** 2).sum().backward(),
    }


def turns(calls: dict[Any, Callable], rounds: int) -> dict[Any, float]:
    """The least seconds of every call, all taking turns."""
    least = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


if __name__ == "__main__":
    main()
