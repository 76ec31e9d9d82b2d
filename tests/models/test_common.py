"""The last layer that models share."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmfusion_jax.models.common import prediction_head

X = jnp.linspace(-1, 1, 12).reshape(4, 3)


class Last(nn.Module):
    """A model that is nothing but its last layer."""

    features: int
    start: float = 0.0

    @nn.compact
    def __call__(self, x):
        return prediction_head(x, self.features, bias_init=self.start)


@pytest.mark.parametrize(("features", "moved"), [(1, 3.0), (2, 0.0)])
def test_a_score_starts_where_it_is_told_and_logits_do_not(features, moved):
    params = Last(features).init(jax.random.key(0), X)
    plain, said = (
        np.asarray(Last(features, start).apply(params, X)) for start in (0.0, 3.0)
    )
    np.testing.assert_allclose(said, plain + moved, rtol=1e-6)
