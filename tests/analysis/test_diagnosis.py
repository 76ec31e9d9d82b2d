"""Constant streams are found, and the norms of terms are those of their gradients."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmfusion_jax.analysis.diagnosis import (
    leave_out,
    stream_moments,
    varying_energy,
)
from mmfusion_jax.analysis.gradients import term_gradients, term_norms
from mmfusion_jax.encoders.precomputed import Precomputed
from mmfusion_jax.losses.contrastive import InfoNCE
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import CrossEntropy
from mmfusion_jax.models.common import encode
from mmfusion_jax.training.state import create_state
from mmfusion_jax.types import Batch, Outputs, Tokens


class Blind(nn.Module):
    """An encoder whose tokens do not depend on the input."""

    @nn.compact
    def __call__(self, values, mask, *, train):
        bias = self.param("bias", nn.initializers.ones, (3,))
        return Tokens(jnp.broadcast_to(bias, (*mask.shape, 3)), mask)


class Mixer(nn.Module):
    """A fusion block that passes "a" through, changes "b" and adds two streams."""

    @nn.compact
    def __call__(self, streams, *, train):
        b = streams["b"]
        return {**streams, "b": b.replace(values=2 * b.values), "joint": b, "alpha": b}


class Two(nn.Module):
    encoders: dict

    @nn.compact
    def __call__(self, batch, *, train):
        streams = Mixer(name="mix")(
            encode(self.encoders, batch, train=train), train=train
        )
        x, y = (jnp.sum(streams[m].values, axis=1) for m in ("a", "b"))
        y = nn.Dense(4, name="y")(y)
        logits = nn.Dropout(0.5, deterministic=not train)(nn.Dense(2, name="head")(y))
        return Outputs(logits, {"p/x": nn.Dense(4, name="x")(x), "p/y": y})


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    mask = np.ones((6, 2), bool)
    mask[1, 1], mask[2] = False, False
    values = rng.normal(size=(6, 2, 3)).astype(np.float32)
    values[~mask] = np.nan
    batch = Batch(
        {"a": np.ones((6, 2, 3), np.float32), "b": values},
        {"a": np.ones((6, 2), bool), "b": mask},
        {"label": np.arange(6) % 2},
        np.array([1, 1, 1, 1, 1, 0], np.float32),
    )
    model = Two({"a": Blind(), "b": Precomputed()})
    objective = Objective(
        {
            "task": WeightedLoss(CrossEntropy("label"), 2.0),
            "contrast": WeightedLoss(InfoNCE(("p",)), lambda step: 0.5 + 0 * step),
            "unused": WeightedLoss(CrossEntropy("label"), 0.0),
        }
    )
    state = create_state(model, optax.sgd(1.0), batch, jax.random.key(0))
    return model, objective, state, batch


def test_streams(case):
    model, _, state, batch = case
    run = jax.jit(functools.partial(stream_moments, model))
    # In two parts, as an evaluation has several batches.
    halves = [jax.tree.map(lambda x, s=s: x[s::2], batch) for s in range(2)]
    parts = [jax.device_get(run(state.variables, half)) for half in halves]
    names = ["a", "b", "mix/b"]
    assert sorted(parts[0]) == [*names]
    found = {name: varying_energy([part[name] for part in parts]) for name in names}
    assert found["a"] == 0
    mask = batch.masks["b"][..., None]
    x = np.where(mask, batch.inputs["b"], 0).sum(1) / np.maximum(mask.sum(1), 1)
    x = x[[0, 1, 3, 4]]  # row 2 lacks the modality, row 5 is padding
    want = np.square(x - x.mean(0)).sum() / np.square(x).sum()
    assert found["b"] == pytest.approx(want, rel=1e-5)
    assert found["mix/b"] == pytest.approx(want, rel=1e-5)
    only = jax.device_get(run(state.variables, jax.tree.map(lambda x: x[:1], batch)))
    assert np.isnan(varying_energy([only["b"]]))


def test_a_stream_of_zeros_is_constant():
    moments = {"count": 3.0, "total": np.zeros(2), "square": 0.0}
    assert varying_energy([moments]) == 0


def test_norms_of_terms(case):
    model, objective, state, batch = case
    norms = jax.jit(functools.partial(term_norms, model, objective))
    found = jax.device_get(norms(state, batch))
    assert found.keys() == {"task", "contrast"}
    for name, gradient in term_gradients(model, objective, state, batch).items():
        if name in found:
            want = float(optax.tree.norm(gradient))
            assert found[name]["norm"] == pytest.approx(want, rel=1e-5)
            assert want > 0
    assert [found[name]["weight"] for name in ("task", "contrast")] == [2.0, 0.5]
    assert "chance" not in found["task"]
    assert found["contrast"]["chance"] == pytest.approx(np.log(5), rel=1e-6)


def test_a_modality_is_left_out(case):
    batch = case[-1]
    left = leave_out(batch, "b")
    assert not np.any(left.masks["b"]) and left.masks["a"] is batch.masks["a"]
    assert leave_out(batch, "") is batch
