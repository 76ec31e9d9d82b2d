"""Compares implementations of an LSTM scan with PyTorch's LSTM.

    python experiments/bench/lstm.py                 # MEA's and MCL-MCF's lengths
    python experiments/bench/lstm.py --parts         # of the library, one by one
    python experiments/bench/lstm.py --quick         # checks that it runs

A bidirectional LSTM over random sequences, batch 32: forward, and forward with the
gradients of input and weights. The rounds of all implementations are interleaved; the
table has the minimum of the wall-clock time in milliseconds.
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

from mmfusion_jax.ops import lstm_scan
from mmfusion_jax.ops.lstm_scan import LSTMWeights, lstm

BATCH, FEATURES = 32, 40
UNROLLS = (1, 4)


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[50, 375, 500])
    parser.add_argument(
        "--hidden_dim", type=int, default=20, help="units of each direction"
    )
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds")
    parser.add_argument(
        "--parts", action="store_true", help="parts of the library's gradients"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sequences")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    steps, rounds = options.steps, options.rounds
    if options.quick:
        steps, rounds = [3], 1
    info = machine()
    print(f"{info['cpu']}, {info['cores']} cores, load {info['load']:.1f};", end=" ")
    print(f"jax {info['jax']}, torch {info['torch']}; batch {BATCH},", end=" ")
    print(
        f"{FEATURES} features, {options.hidden_dim} units per direction. Milliseconds,"
    )
    if options.parts:
        print("minimum over the rounds.\n")
        table = [measure_parts(n, options.hidden_dim, rounds) for n in steps]
    else:
        print("minimum over the rounds, forward / with gradients.\n")
        table = [measure(n, options.hidden_dim, rounds) for n in steps]
    print(f"| form | {' | '.join(f'{n} steps' for n in steps)} |")
    print(f"| --- |{' --- |' * len(steps)}")
    for name in table[0]:
        print(f"| {name} | {' | '.join(row[name] for row in table)} |")


def measure(steps: int, hidden_dim: int, rounds: int) -> dict[str, str]:
    """Returns the figures of every implementation."""
    given = random_arrays(steps, hidden_dim)
    calls = {}
    for name, form in forms().items():
        for goal, call in compiled(form, given).items():
            calls[name, goal] = call
    for goal, call in pytorch(given, hidden_dim).items():
        calls["PyTorch", goal] = call
    seconds = minimum_seconds(calls, rounds)
    names = dict.fromkeys(name for name, _ in calls)
    both = ("forward", "gradients")
    return {
        m: " / ".join(f"{1e3 * seconds[m, goal]:.1f}" for goal in both) for m in names
    }


def measure_parts(steps: int, hidden_dim: int, rounds: int) -> dict[str, str]:
    """Returns the figures of the parts of the library's gradients."""
    given = random_arrays(steps, hidden_dim)
    x, into, kernel = (jnp.asarray(a) for a in given.values())
    inputs = jnp.broadcast_to(x.swapaxes(0, 1)[:, None], (steps, 2, BATCH, FEATURES))
    valid = jnp.ones((steps, 2, BATCH, 1), bool)
    weights = LSTMWeights(into, kernel, jnp.zeros((2, into.shape[-1])))
    arguments = inputs, valid, weights
    forward = jax.jit(lstm_scan._forward)
    loop, products = jax.jit(lstm_scan._gate_gradients), jax.jit(lstm_scan._products)
    states, saved = forward(*arguments)
    dz = loop(arguments, saved, states)
    whole = compiled(library, given)["gradients"]
    parts = {
        "forward pass that saves the gates": lambda: forward(*arguments),
        "loop of the backward pass": lambda: loop(arguments, saved, states),
        "products of all steps": lambda: products(arguments, saved, dz),
    }
    calls: dict[str, Callable] = {
        name: functools.partial(lambda call: jax.block_until_ready(call()), call)
        for name, call in parts.items()
    }
    calls["all, with the loss and the reversal of a direction"] = whole
    seconds = minimum_seconds(calls, rounds)
    return {name: f"{1e3 * s:.1f}" for name, s in seconds.items()}


def random_arrays(steps: int, hidden_dim: int) -> dict[str, np.ndarray]:
    """Returns the input (b n d), and the weights of both directions."""
    rng = np.random.default_rng(0)
    shapes = {
        "x": (BATCH, steps, FEATURES),
        "into": (2, FEATURES, 4 * hidden_dim),
        "kernel": (2, hidden_dim, 4 * hidden_dim),
    }
    return {m: 0.1 * rng.standard_normal(s, np.float32) for m, s in shapes.items()}


def forms() -> dict[str, Callable[..., jax.Array]]:
    """Returns every implementation: (x, input, recurrent weights) -> states."""
    made: dict[str, Any] = {"the library": library}
    for n in UNROLLS:
        name = f"unroll={n}"
        made[f"input weights in the scan, {name}"] = functools.partial(inside, n)
        made[f"one product for all inputs, {name}"] = functools.partial(before, n)
    made["one product, one scan per direction, unroll=1"] = apart
    return made


def library(x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """Applies the LSTM of the library: backward by hand, input weights in the scan."""
    bias = jnp.zeros((len(into), into.shape[-1]), x.dtype)
    weights = LSTMWeights(into, kernel, bias)
    return lstm(x.swapaxes(0, 1), jnp.ones(x.shape[1::-1], bool), weights).all_steps


def before(unroll: int, x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """Applies an LSTM with one product for the inputs of all steps, before the scan."""
    gates = jnp.einsum("bnd,rdk->nrbk", x, into)
    recur = lambda h, given: given + jnp.einsum("rbw,rwk->rbk", h, kernel)
    return run(recur, gates, kernel.shape[1], unroll)


def inside(unroll: int, x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """Applies an LSTM with the product of the input in every step."""
    both = jnp.concatenate([into, kernel], axis=1)

    def recur(h: jax.Array, given: jax.Array) -> jax.Array:
        return jnp.einsum("rbe,rek->rbk", jnp.concatenate([given, h], -1), both)

    steps = jnp.moveaxis(x, 1, 0)[:, None]
    steps = jnp.broadcast_to(steps, (len(steps), len(into), *steps.shape[2:]))
    return run(recur, steps, kernel.shape[1], unroll)


def apart(x: jax.Array, into: jax.Array, kernel: jax.Array) -> jax.Array:
    """Applies an LSTM with the two directions in two scans."""
    directions = enumerate((x, x[:, ::-1]))
    done = [before(1, y, into[r : r + 1], kernel[r : r + 1]) for r, y in directions]
    return jnp.concatenate([done[0], done[1][::-1]], axis=1)


def run(recur: Callable, steps: jax.Array, hidden_dim: int, unroll: int) -> jax.Array:
    """Scans, differentiated by JAX; `recur` maps (h, step) to the gates."""

    def cell(state: tuple[jax.Array, jax.Array], given: jax.Array):
        h, c = state
        i, f, g, o = jnp.split(recur(h, given), 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    # The second direction runs over the reversed steps, in the same scan.
    flip_second = lambda x: jnp.concatenate([x[:, :1], x[::-1, 1:]], axis=1)
    zero = jnp.zeros((*steps.shape[1:3], hidden_dim), steps.dtype)
    scanned = jax.lax.scan(cell, (zero, zero), flip_second(steps), unroll=unroll)[1]
    return flip_second(scanned)


def compiled(form: Callable, given: dict[str, np.ndarray]) -> dict[str, Callable]:
    """Returns the calls of an implementation in JAX."""
    arrays = tuple(jnp.asarray(x) for x in given.values())
    forward = jax.jit(form)
    gradients = jax.jit(jax.grad(lambda *x: jnp.sum(form(*x) ** 2), argnums=(0, 1, 2)))
    return {
        "forward": lambda: jax.block_until_ready(forward(*arrays)),
        "gradients": lambda: jax.block_until_ready(gradients(*arrays)),
    }


def pytorch(given: dict[str, np.ndarray], hidden_dim: int) -> dict[str, Callable]:
    """Returns the calls of PyTorch's layer."""
    layer = torch.nn.LSTM(FEATURES, hidden_dim, batch_first=True, bidirectional=True)
    x = torch.tensor(given["x"], requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    return {
        "forward": forward,
        "gradients": lambda: (layer(x)[0] ** 2).sum().backward(),
    }


def minimum_seconds(calls: dict[Any, Callable], rounds: int) -> dict[Any, float]:
    """Returns the minimum seconds of every call over interleaved rounds."""
    minimum = dict.fromkeys(calls, float("inf"))
    # Compiles, and fills the caches.
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            minimum[name] = min(minimum[name], time.perf_counter() - start)
    return minimum


if __name__ == "__main__":
    main()
