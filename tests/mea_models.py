"""MEA at sizes at which a test is quick, and data to feed it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import FrozenDict
from flax.traverse_util import flatten_dict, unflatten_dict
from loaded_tables import LOSSES

from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.models.mea import MEA
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import Batch, Tokens

SMALL = {"text": 3, "video": 4, "audio": 2}
STEPS = (3, 5, 4)


def features(steps, widths, rows=4):
    """Random sequences; odd rows lack the last step of each."""
    keys = jax.random.split(jax.random.key(0), len(widths))
    odd = np.arange(rows)[:, None] % 2
    inputs, masks = {}, {}
    for key, t, (name, width) in zip(keys, steps, widths.items(), strict=True):
        inputs[name] = jax.random.normal(key, (rows, t, width))
        masks[name] = jnp.asarray(np.arange(t) < t - odd)
    return Batch(inputs, masks, {"score": jnp.linspace(-1, 1, rows)}, jnp.ones(rows))


class Linear(nn.Module):
    """An encoder that is quick to compile."""

    width: int

    @nn.compact
    def __call__(self, values, mask, *, train):
        return Tokens(
            zero_masked(nn.Dense(self.width)(zero_masked(values, mask)), mask), mask
        )


def small(**options):
    encoders = FrozenDict({m: Linear(4) for m in SMALL})
    sizes = {"num_heads": 2, "psa_layers": 2, "hca_layers": 1}
    rest = {"modality_order": tuple(SMALL), "dropout": 0.0, "remat": False}
    return MEA(encoders, 1, **{**sizes, **rest, **options})


@functools.cache
def small_batch():
    return features(STEPS, SMALL)


def shapes(made, batch):
    """The parameters as shapes."""
    init = functools.partial(made.init, train=False)
    return jax.eval_shape(init, jax.random.key(0), batch)["params"]


def count(made, batch):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes(made, batch)))


@functools.cache
def weights_of(made):
    """Random weights, without a compiled program that creates them."""
    rng = np.random.default_rng(0)
    fill = lambda x: jnp.asarray(rng.uniform(-0.3, 0.3, x.shape), x.dtype)
    flat = flatten_dict(shapes(made, small_batch()))
    params = {path: fill(x) + ("scale" in path[-1]) for path, x in flat.items()}
    return {"params": unflatten_dict(params)}


def objective(made):
    """The task's loss and those that the model has outputs for."""
    names = {"modalities": tuple(SMALL)}
    terms = {"task": WeightedLoss(LOSSES["mse"]("score"))}
    wanted = []
    if made.exclusive and made.agnostic:
        wanted.append("hsic")
    if made.adversarial and made.exclusive:
        wanted.append("exclusive_adversary")
    if made.adversarial and made.agnostic:
        wanted.append("agnostic_adversary")
        wanted += ["importance_discriminator"] * (made.omega != "one")
    options = {n: dict(names) for n in wanted}
    if "agnostic_adversary" in options:
        options["agnostic_adversary"]["omega"] = made.omega
    return Objective(
        terms | {n: WeightedLoss(LOSSES[n](**o), 0.1) for n, o in options.items()}
    )


def total(made, params, batch):
    """The whole loss, and the prediction."""
    outputs = made.apply(params, batch, train=True)
    loss, _ = objective(made)(outputs, batch, jnp.zeros(()))
    return loss, outputs.prediction


# What is compiled here runs a few times, so it may run slowly.
@functools.partial(
    jax.jit, static_argnums=0, compiler_options={"xla_backend_optimization_level": 0}
)
def gradients(made, params, batch):
    """Loss, prediction and gradient; compiled once for a model."""
    run = jax.value_and_grad(total, argnums=1, has_aux=True)
    (loss, prediction), grads = run(made, params, batch)
    return loss, prediction, grads
