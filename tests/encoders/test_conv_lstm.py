"""ConvLSTM: any sequence, positions, what it refuses."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.encoders.conv_lstm import ConvLSTM
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.transformer import sinusoid


@pytest.mark.ci
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 6), "int32"), ((2, 6, 4), "float32"), ((2, 6, 3, 5, 1), "uint8")],
)
def test_encoder_takes_any_sequence(shape, dtype):
    values = jnp.asarray(np.arange(np.prod(shape)).reshape(shape) % 7, dtype)
    mask = jnp.arange(6) < jnp.array([[6], [4]])
    encoder = ConvLSTM(6, vocab_size=7 if len(shape) == 2 else 0)
    init = jax.jit(functools.partial(encoder.init, train=False))
    params = init(jax.random.key(0), values, mask)
    run = jax.jit(functools.partial(encoder.apply, train=False))
    tokens = run(params, values, mask)
    assert tokens.values.shape == (2, 6, 6)
    other = jnp.where(mask.reshape(2, 6, *[1] * (len(shape) - 2)), values, 6)
    chex.assert_trees_all_equal(tokens, run(params, other, mask))
    assert jnp.ptp(tokens.values[0]) > 0


def test_encoder_positions():
    x, mask = jnp.zeros((1, 5, 2)), jnp.ones((1, 5), bool)

    def start(x=x, hidden_dim=4, **options):
        init = functools.partial(ConvLSTM(hidden_dim, **options).init, train=False)
        return jax.eval_shape(init, jax.random.key(0), x, mask)

    assert start(positions="learned")["params"]["positions_table"].shape == (5, 4)
    assert "positions_table" not in start(positions="none")["params"]
    with pytest.raises(ConfigError, match="positions="):
        start(positions="rotary")
    with pytest.raises(ConfigError, match="must be even"):
        start(hidden_dim=5)
    with pytest.raises(ConfigError, match="vocab_size"):
        start(x[..., 0].astype(int))


def test_starts_at_position_0():
    """Without an LSTM's help: a convolution of zeros leaves bias and positions."""
    table = sinusoid(3, 4, first=0)
    np.testing.assert_allclose(table, np.concatenate([[[0, 0, 1, 1]], sinusoid(2, 4)]))
