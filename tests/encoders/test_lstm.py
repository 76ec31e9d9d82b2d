"""The LSTM that gives one vector."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.encoders.conv_lstm import ConvLSTM
from mmfusion_jax.encoders.lstm import LSTMEncoder
from mmfusion_jax.errors import ConfigError


@pytest.mark.ci
def test_lstm_takes_pixels_and_no_ids():
    clip = jnp.full((2, 3, 4, 4, 1), 255, jnp.uint8)
    mask = jnp.ones((2, 3), bool)
    tree = LSTMEncoder(4).init(jax.random.key(0), clip, mask, train=False)
    run = functools.partial(LSTMEncoder(4).apply, tree, train=False)
    np.testing.assert_allclose(
        run(clip, mask).values, run(jnp.ones((2, 3, 16)), mask).values, rtol=1e-6
    )
    with pytest.raises(ConfigError, match="C26"):
        run(jnp.ones((2, 3), int), mask)


def test_only_the_forget_gates_start_with_a_bias():
    """Gate order i, f, g, o; the released code has PyTorch's random biases."""
    x, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
    init = lambda encoder: encoder.init(jax.random.key(0), x, mask, train=False)
    bias = init(LSTMEncoder(4, forget_bias=0.5))["params"]["lstm"]["bias"]
    np.testing.assert_array_equal(
        np.reshape(bias, (4, 4)), np.array([[0.0], [0.5], [0.0], [0.0]]) * np.ones(4)
    )
    released = init(LSTMEncoder(4, variant="released_code", forget_bias=0.5))
    assert np.unique(released["params"]["lstm"]["bias"]).size == 16


@pytest.mark.parametrize("encoder", [LSTMEncoder, ConvLSTM])
def test_frames_are_required_for_frame_channels(encoder):
    made = encoder(4, frame_channels=(2,))
    with pytest.raises(ConfigError, match="frame_channels"):
        made.init(
            jax.random.key(0), jnp.ones((2, 3, 5)), jnp.ones((2, 3), bool), train=False
        )
