"""Keys without a loop give the random numbers of JAX."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from precision import double

from mmfusion_jax.ops.unrolled_threefry import unrolled

KEY = jax.random.key(7)
DRAWS = {
    "bits of 8": lambda key: jax.random.bits(key, (3, 5), jnp.uint8),
    "bits of 16": lambda key: jax.random.bits(key, (3, 5), jnp.uint16),
    "bits of 32": lambda key: jax.random.bits(key, (2, 3, 5)),
    "one number": lambda key: jax.random.bits(key),
    "no number": lambda key: jax.random.bits(key, (0, 3)),
    "normal": lambda key: jax.random.normal(key, (4, 3)),
    "dropout": lambda key: jax.random.bernoulli(key, 0.3, (50,)),
    "permutation": lambda key: jax.random.permutation(key, 9),
    "of a folded key": lambda key: jax.random.bits(jax.random.fold_in(key, 5), (4,)),
    "of split keys": lambda key: jax.vmap(lambda k: jax.random.bits(k, (3,)))(
        jax.random.split(key, (4,))
    ),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_numbers_are_those_of_jax(draw):
    np.testing.assert_array_equal(draw(unrolled(KEY)), draw(KEY))


def test_numbers_in_double():
    draw = jax.jit(lambda key: jax.random.bits(key, (3, 5), jnp.uint64))
    with double():
        np.testing.assert_array_equal(draw(unrolled(KEY)), draw(KEY))


@pytest.mark.parametrize("key", [jax.random.PRNGKey(1), jax.random.key(1, impl="rbg")])
def test_other_keys_are_unchanged(key):
    assert unrolled(key) is key


def test_numbers_without_partitionable_threefry_are_unchanged():
    # They are other numbers, which this generator does not have.
    with jax.threefry_partitionable(False):
        assert unrolled(KEY) is KEY


def test_program_has_no_loop():
    draw = lambda key: jax.random.normal(key, (64,))
    text = lambda key: jax.jit(draw).lower(key).as_text()
    assert "while" in text(KEY)
    assert "while" not in text(unrolled(KEY))


def test_parameters_of_a_model_are_unchanged():
    model, x = nn.Sequential([nn.Dense(4), nn.LayerNorm(), nn.Dense(3)]), jnp.ones(5)
    init = jax.jit(lambda key: model.init(key, x))
    jax.tree.map(np.testing.assert_array_equal, init(unrolled(KEY)), init(KEY))
