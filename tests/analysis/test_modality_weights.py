"""What every modality counts for, by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.analysis.modality_weights import mean_modality_weights
from mmfusion_jax.models.common import weights_by_modality


def test_shares_by_hand():
    gates = jnp.array([[0.3, 0.1], [0.5, 0.0], [0.0, 0.0]])
    found = weights_by_modality(("audio", "video"), gates)
    np.testing.assert_allclose(found["weight/audio"], [0.75, 1, 0])
    np.testing.assert_allclose(found["weight/video"], [0.25, 0, 0])
    collected = {k: np.asarray(v) for k, v in found.items()}
    means = mean_modality_weights({"prediction": np.ones(3), **collected})
    assert means == pytest.approx({"audio": 0.875, "video": 0.125})


def test_who_has_nothing_says_nothing():
    assert mean_modality_weights({"prediction": np.ones(3)}) == {}
    assert mean_modality_weights({"weight/audio": np.zeros(2)}) == {}
