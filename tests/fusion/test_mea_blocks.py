"""MEA's graph and discriminators."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.fusion.graph_fusion import GraphFusion
from mmfusion_jax.layers.modality_discriminator import ModalityDiscriminator

close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6)


def test_graph_of_one_and_of_none():
    nodes, layer = jax.random.normal(jax.random.key(0), (3, 2, 4)), GraphFusion()
    present = jnp.array([[True, True], [True, False], [False, False]])
    params = layer.init(jax.random.key(1), nodes, present)
    got = layer.apply(params, nodes, present)
    projected = nodes @ params["params"]["project"]["kernel"]
    close(got[0], jnp.sum(jax.nn.sigmoid(projected[0]), axis=0))
    close(got[1], jax.nn.sigmoid(projected[1, 0]))
    close(got[2], jnp.zeros(4))


def test_where_the_discriminators_send_gradients():
    x = jax.random.normal(jax.random.key(0), (4, 3))
    params = ModalityDiscriminator().init(jax.random.key(1), {}, {"a": x}, 2)

    def gradient(name, omega, strength=2.0):
        layer = ModalityDiscriminator(omega)
        logits = lambda h: layer.apply(params, {"a": h}, {"a": h}, 2, strength)[name]
        return jax.grad(lambda h: jnp.sum(logits(h)[:, 0]))(x)

    plain = gradient("discriminator/exclusive/a", "one")
    close(gradient("discriminator/agnostic/a", "one"), -2 * plain)
    assert not gradient("importance/a", "detached").any()
    forth = params["params"]["importance"]["kernel"][:, 0]
    close(gradient("importance/a", "joint")[0], -2 * forth)
    with pytest.raises(KeyError):
        gradient("importance/a", "one")
