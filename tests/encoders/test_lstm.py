"""The LSTM that gives one vector."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
