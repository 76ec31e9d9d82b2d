"""Measurements as tokens: the equation, masks, and what cannot be."""

import jax
import numpy as np
import pytest

from mmfusion_jax.encoders.feature_tokens import FeatureTokens
from mmfusion_jax.errors import ConfigError

X = np.random.default_rng(0).normal(size=(3, 2, 6)).astype("float32")
MASK = np.array([[True, True], [True, False], [False, False]])
ENCODER = FeatureTokens(hidden_dim=4, features_per_token=2)
VARIABLES = ENCODER.init(jax.random.key(0), X, MASK, train=False)


def test_follows_the_equation():
    tokens = ENCODER.apply(VARIABLES, X, MASK, train=False)
    p = VARIABLES["params"]
    pairs = np.stack([X[..., :3], X[..., 3:]], -1)  # b t j w
    want = np.einsum("btjw,jwd->btjd", pairs, p["kernel"]) + p["bias"]
    want = np.maximum(want, 0) / np.sqrt(1 + 1e-5) * MASK[..., None, None]
    np.testing.assert_allclose(tokens.values, want.reshape(3, 6, 4), rtol=1e-5)
    assert tokens.grid == (2, 3)
    assert tokens.mask.sum(1).tolist() == [6, 3, 0]


def test_says_that_the_features_do_not_divide():
    with pytest.raises(
        ConfigError, match="features_per_token=4 does not divide the 6 features"
    ):
        FeatureTokens(features_per_token=4).init(
            jax.random.key(0), X, MASK, train=False
        )
