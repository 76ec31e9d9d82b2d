"""One training step on 1, 2 and 8 devices, split in every way; prints what differs.

A process of its own, because the number of devices and the precision are fixed when
JAX starts: subprocess_executors.py x64|x32
"""

import functools
import itertools
import json
import sys

import jax

X64 = sys.argv[1] == "x64"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", X64)

import flax.linen as nn  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

from mmfusion_jax.layers.batch_norm import BatchNorm  # noqa: E402
from mmfusion_jax.losses.contrastive import InfoNCE  # noqa: E402
from mmfusion_jax.losses.disparity import HSICDisparity  # noqa: E402
from mmfusion_jax.losses.objective import Objective, WeightedLoss  # noqa: E402
from mmfusion_jax.losses.supervised import CrossEntropy  # noqa: E402
from mmfusion_jax.models.cfn_sr import CFNSR  # noqa: E402
from mmfusion_jax.training.parallelism import Executor  # noqa: E402
from mmfusion_jax.training.state import create_state  # noqa: E402
from mmfusion_jax.training.step import make_train_step  # noqa: E402
from mmfusion_jax.types import Batch, Outputs, Tokens  # noqa: E402

KIND = np.float64 if X64 else np.float32
WAYS = ("jit", "pmap", "shard_map")


class Frames(nn.Module):
    """A minimal encoder: one layer, its norm, and dropout."""

    axis: str | None = None
    dropout: float = 0.0

    @nn.compact
    def __call__(self, values, mask, *, train):
        x = nn.Dense(8)(values.reshape(*values.shape[:2], -1))
        x = BatchNorm(self.axis)(x, mask, train=train)
        return Tokens(nn.Dropout(self.dropout, deterministic=not train)(x), mask)


class Compared(nn.Module):
    """A model whose vectors of two modalities are also compared across examples."""

    model: nn.Module

    @nn.compact
    def __call__(self, batch, *, train):
        outputs = self.model(batch, train=train)
        x, y = (nn.Dense(4)(outputs.aux[m]) for m in ("audio", "video"))
        valid = batch.has_modalities("audio", "video")
        views = {"pair/x": x, "pair/y": y, "pair/valid": valid}
        parts = {"exclusive/audio": x, "agnostic/audio": y}
        return Outputs(outputs.prediction, {**outputs.aux, **views, **parts})


def batch() -> Batch:
    """Sixteen examples: padding, missing modalities, two padding rows, all uneven."""
    rng = np.random.default_rng(0)
    audio = rng.normal(size=(16, 6, 4)).astype(KIND)
    video = rng.normal(size=(16, 4, 2, 2, 1)).astype(KIND)
    heard, seen = np.ones((16, 6), bool), np.ones((16, 4), bool)
    heard[3], seen[4], heard[5, 4:] = False, False, False
    weight = np.ones(16, KIND)
    weight[-2:] = 0
    return Batch(
        inputs={"audio": audio, "video": video},
        masks={"audio": heard, "video": seen},
        labels={"label": np.arange(16, dtype=np.int32) % 3},
        weight=weight,
    )


@functools.cache
def start():
    """The first state, on the host; it is the same for every executor."""
    model, _, tx = parts(Executor("jit", 1), 0.0, False)
    state = jax.jit(lambda: create_state(model, tx, batch(), jax.random.key(0)))()
    cast = lambda x: x.astype(KIND) if jnp.issubdtype(x.dtype, jnp.floating) else x
    return jax.tree.map(cast, state)


def parts(executor: Executor, dropout: float, official: bool):
    """Model, objective and optimizer."""
    model = CFNSR(
        encoders={
            "audio": Frames(executor.axis, dropout),
            "video": Frames(executor.axis),
        },
        head_size=3,
        hidden_dim=8,
        num_layers=1,
        num_heads=2,
        dropout=dropout,
        embed_dropout=0.0,
        layer_dropout=0.0,
        variant="released_code" if official else "paper",
        axis=executor.axis,
    )
    objective = Objective(
        {
            "task": WeightedLoss(CrossEntropy("label"), 0.5),
            "contrast": WeightedLoss(InfoNCE(("pair",), scale=1.0), 0.1),
            "disparity": WeightedLoss(HSICDisparity(("audio",)), 0.1),
        }
    )
    # Adam would hide a scaled gradient.
    return Compared(model), objective, optax.sgd(0.1, momentum=0.9)


def train(
    parallel: str, devices: int, dropout: float, official: bool, accumulate: int = 1
):
    """Loss, parameters and statistics after three steps."""
    executor = Executor(parallel, devices)
    made = parts(executor, dropout, official)
    step = executor.compile(make_train_step(*made, executor.axis, accumulate))
    state = jax.tree.map(jnp.copy, start())  # the step donates it
    for _ in range(3):
        state, metrics = step(state, executor.put(batch(), train=True))
    terms = {k: v for k, v in metrics.items() if k.startswith("loss")}
    return jax.device_get((terms, state.params, state.stats))


def distance(a, b) -> float:
    """Largest difference of any leaf, relative to that leaf's largest value.

    The gradient of a bias before a norm is only rounding error, hence the floor.
    """
    leaf = lambda x, y: np.abs(x - y).max() / max(np.abs(y).max(), 1e-2)
    return float(max(jax.tree.leaves(jax.tree.map(leaf, a, b))))


def main() -> None:
    found = {}
    one = train("jit", 1, 0.0, False)
    for parallel, devices in itertools.product(WAYS, (2, 8) if X64 else (8,)):
        found[f"{parallel}{devices}"] = distance(
            train(parallel, devices, 0.0, False), one
        )
    if not X64:
        print(json.dumps(found))
        return
    official = train("jit", 1, 0.0, True)  # attention summed over the global batch
    found["official_shard_map8"] = distance(train("shard_map", 8, 0.0, True), official)
    masked = train("jit", 1, 0.5, False)
    found["dropout_jit8"] = distance(train("jit", 8, 0.5, False), masked)
    # Another mask on every device: another result than one mask for all.
    own_masks = train("pmap", 8, 0.5, False)
    found["dropout_pmap8"] = distance(own_masks, masked)
    found["same_dropout"] = distance(train("shard_map", 8, 0.5, False), own_masks)
    parts = train("jit", 1, 0.0, False, accumulate=2)
    for parallel in WAYS:
        found[f"accumulate_{parallel}2"] = distance(
            train(parallel, 2, 0.0, False, accumulate=2), parts
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
