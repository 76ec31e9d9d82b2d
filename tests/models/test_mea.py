"""MEA as a whole: masks, missing modalities, padding, learning; all at tiny shapes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from mea_models import gradients, small, small_batch, weights_of


def without(batch, missing):
    masks = {name: mask & (name not in missing) for name, mask in batch.masks.items()}
    return batch.replace(masks=masks)


def run(batch):
    """Loss, prediction and gradient of the full model."""
    return gradients(small(), weights_of(small()), batch)


@pytest.mark.ci
def test_missing_modality_is_as_if_it_never_were():
    tree = run(without(small_batch(), {"audio"}))[2]["params"]
    layer = tree["self_attention"]["layer_1"]
    silent = {
        "encoder": tree["encoders_audio"],
        "exclusive": tree["exclusive_audio"],
        "alone": {name: x[2] for name, x in layer.items()},
        "source": {
            # Units of the fine step: text<-video, text<-audio, ..., audio<-video.
            name: x[jnp.array([1, 3, 4, 5])]
            for name, x in tree["cross_attention"]["fine_0"].items()
        },
    }
    chex.assert_trees_all_equal(silent, jax.tree.map(jnp.zeros_like, silent))
    assert jnp.any(tree["encoders_text"]["Dense_0"]["kernel"] != 0)
    assert jnp.any(layer["query"][0] != 0)


@pytest.mark.ci
def test_padding_changes_nothing():
    made, batch = small(), small_batch()
    pad = lambda x: jnp.pad(x, [(0, 0), (0, 2)] + [(0, 0)] * (x.ndim - 2))
    padded = batch.replace(
        inputs=jax.tree.map(pad, batch.inputs), masks=jax.tree.map(pad, batch.masks)
    )
    forward = jax.jit(functools.partial(made.apply, train=False))
    got = forward(weights_of(made), padded).prediction
    np.testing.assert_allclose(got, run(batch)[1], rtol=2e-5, atol=2e-6)


@pytest.mark.ci
def test_learns_one_batch():
    batch, params = small_batch(), weights_of(small())
    tx = optax.adam(0.003)
    update, state, errors = jax.jit(tx.update), tx.init(params), []
    for _ in range(100):
        _, prediction, grads = gradients(small(), params, batch)
        errors.append(float(jnp.mean((prediction - batch.labels["score"]) ** 2)))
        updates, state = update(grads, state)
        params = optax.apply_updates(params, updates)
    assert errors[-1] < 0.05 < errors[0]
