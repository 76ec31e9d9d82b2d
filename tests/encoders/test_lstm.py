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


@pytest.mark.parametrize("encoder", [LSTMEncoder, ConvLSTM])
def test_frames_are_required_for_frame_channels(encoder):
    made = encoder(4, frame_channels=(2,))
    with pytest.raises(ConfigError, match="frame_channels"):
        made.init(
            jax.random.key(0), jnp.ones((2, 3, 5)), jnp.ones((2, 3), bool), train=False
        )
