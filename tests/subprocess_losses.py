"""Every loss term on 1 and 8 devices, split in every way; prints what differs."""

import json

import device_runs  # first: it decides what JAX is
import jax
import jax.numpy as jnp
import loss_terms
import numpy as np

from mmfusion_jax.losses.objective import Objective, WeightedLoss


def values_and_gradient(params, batch, axis=None):
    """Every term, and one gradient of their weighted sum, as a step computes them."""

    def loss(params):
        arrays = {k: jnp.tanh(batch.inputs["noise"] @ w) for k, w in params.items()}
        total, values = jnp.zeros(()), {}
        for reads, terms in by_prediction().items():
            outputs = loss_terms.outputs(arrays, batch, reads)
            value, found = terms(outputs, batch, jnp.array(0), axis)
            total, values = total + value, values | found
        return total, values

    return jax.value_and_grad(loss, has_aux=True)(params)


def by_prediction() -> dict[str, Objective]:
    """Objectives of all terms, by a term whose prediction they all read."""
    groups = {}
    for place, (name, term) in enumerate(loss_terms.TERMS.items()):
        reads = "l1" if name in loss_terms.PREDICTIONS else "cross_entropy"
        # Weights that have nothing in common, so that no two gradients cancel.
        groups.setdefault(reads, {})[name] = WeightedLoss(term, np.sqrt(2 + place))
    return {reads: Objective(terms) for reads, terms in groups.items()}


def params():
    """One matrix for every array that a term reads."""
    rng = np.random.default_rng(2)
    return {k: rng.normal(size=(6, d)) for k, d in loss_terms.widths().items()}


if __name__ == "__main__":
    batch = device_runs.double(loss_terms.batch())
    found, _ = device_runs.differences(values_and_gradient, params(), batch, (8,))
    print(json.dumps(found))
