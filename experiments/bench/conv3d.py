"""Times the grouped convolutions of CFN-SR's video encoder in every implementation.

    python experiments/bench/conv3d.py                       # 112, float32
    python experiments/bench/conv3d.py --size 224 --batch 8 --dtype bfloat16
    python experiments/bench/conv3d.py --quick               # checks that it runs

Runs on the default device of JAX. On CPU it also times PyTorch, in interleaved rounds.
The implementations are XLA's (lax), the one for CPU (taps), and neighboring groups
merged into dense blocks of 32, 64 and 128 channels. Writes JSON and prints a table of
milliseconds.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from mmfusion_jax.ops.conv.conv3d import grouped_conv3d

GROUPS = 32
FORMS = {
    "lax": dict(method="lax"),
    "taps": dict(method="taps"),
    "dense 32": dict(method="block_diagonal", dense=32),
    "dense 64": dict(method="block_diagonal", dense=64),
    "dense 128": dict(method="block_diagonal", dense=128),
}
FOLDER = Path(__file__).parent


def main() -> None:
    """Measures all layers, writes JSON and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=112, help="height and width")
    parser.add_argument("--batch", type=int, default=2, help="batch size")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument(
        "--form", action="append", choices=FORMS, help="implementation (repeatable)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--quick", action="store_true", help="16 x 16, one round")
    parser.add_argument("--out", type=Path, default=FOLDER / "conv3d.json")
    options = parser.parse_args()
    if options.quick:
        options.size, options.batch, options.rounds = 16, 1, 1
    rows = {}
    for name, shape, stride in layers(options.size):
        rows[name] = layer((options.batch, *shape), stride, options)
        print(
            name, {form: f"{ms[0]:.1f} {ms[1]:.1f}" for form, ms in rows[name].items()}
        )
    device = jax.devices()[0].device_kind
    details = dict(device=device, jax=jax.__version__, jaxlib=jaxlib.__version__)
    details |= dict(load=f"{os.getloadavg()[0]:.1f}", dtype=options.dtype)
    details |= dict(size=options.size, batch=options.batch)
    options.out.write_text(json.dumps({**details, "layers": rows}, indent=2) + "\n")
    print(table(details, rows))


def layers(size: int) -> list[tuple[str, tuple[int, ...], int]]:
    """Returns the distinct convolutions for 30 frames: name, input shape, stride."""
    s, edge, found = 15, size // 4, []
    for stage, planes in enumerate((128, 256, 512, 1024)):
        if stage:
            found.append((f"stage{stage + 1}_block0", (s, edge, edge, planes), 2))
            s, edge = (s + 1) // 2, (edge + 1) // 2
        found.append((f"stage{stage + 1}_block1", (s, edge, edge, planes), 1))
    return found


def layer(shape: tuple[int, ...], stride: int, options: Any) -> dict[str, list[float]]:
    """Returns milliseconds of forward, and of forward with both gradients, by form."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal(shape), options.dtype)
    w = rng.standard_normal((3, 3, 3, shape[-1] // GROUPS, shape[-1]))
    w = jnp.asarray(0.1 * w, options.dtype)
    runs = {}
    for form in options.form or FORMS:
        conv = functools.partial(
            grouped_conv3d, stride=stride, groups=GROUPS, **FORMS[form]
        )
        runs[form] = compiled(conv, x, w)
    if jax.default_backend() == "cpu" and options.dtype == "float32":
        runs["PyTorch"] = in_torch(x, w, stride)
    return {
        form: [1e3 * seconds for seconds in pair]
        for form, pair in alternate(runs, options.rounds).items()
    }


def compiled(conv: Callable[..., jax.Array], x: jax.Array, w: jax.Array):
    """Returns forward, and forward with both gradients, without arguments."""

    def both(x, w):
        y, vjp = jax.vjp(conv, x, w)
        return y, vjp(y)  # y is as good a cotangent as any

    # Compiled before the measurement; `f=f` binds each function and not the last one.
    functions = [jax.jit(f).lower(x, w).compile() for f in (conv, both)]
    return [lambda f=f: jax.block_until_ready(f(x, w)) for f in functions]


def in_torch(x: jax.Array, w: jax.Array, stride: int):
    """Returns the same functions in PyTorch."""
    import torch

    # To PyTorch's layouts, NCDHW and OIDHW.
    x, w = (
        torch.tensor(np.asarray(a).transpose(order).copy(), requires_grad=True)
        for a, order in ((x, (0, 4, 1, 2, 3)), (w, (4, 3, 0, 1, 2)))
    )
    conv = lambda: torch.nn.functional.conv3d(
        x, w, stride=stride, padding=1, groups=GROUPS
    )

    def forward():
        with torch.no_grad():
            conv()

    def both():
        y = conv()
        y.backward(y.detach())

    return [forward, both]


def alternate(runs: dict[str, list[Callable]], rounds: int) -> dict[str, list[float]]:
    """Returns the minimum seconds of every function over interleaved rounds."""
    seconds = {form: ([], []) for form in runs}
    for number in range(rounds + 1):
        for form, functions in runs.items():
            for function, times in zip(functions, seconds[form], strict=True):
                start = time.perf_counter()
                function()
                if number:  # the first round is discarded
                    times.append(time.perf_counter() - start)
    return {form: [min(t) for t in pair] for form, pair in seconds.items()}


def table(details: dict[str, Any], rows: dict[str, dict[str, list[float]]]) -> str:
    """Returns the figures as Markdown."""
    forms = list(next(iter(rows.values())))
    head = ", ".join(f"{key} {value}" for key, value in details.items())
    lines = [
        f"{head}.",
        "Milliseconds, minimum over the rounds, forward / forward with gradients.",
        "",
        f"| layer | {' | '.join(forms)} |",
        "| --- " * (len(forms) + 1) + "|",
    ]
    for name, row in rows.items():
        cells = [f"{row[form][0]:.1f} / {row[form][1]:.1f}" for form in forms]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
