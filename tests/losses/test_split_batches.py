"""Loss terms of a batch that is split across two devices exchange it once."""

import re

import jax
import jax.numpy as jnp
import loss_terms
import numpy as np
import pytest

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.training.parallelism import Executor

EXECUTOR = Executor("jit", devices=2)
NAMES = ("info_nce", "modality_contrast", "hsic", "cross_entropy", "reconstruction")
OBJECTIVE = Objective({name: WeightedLoss(loss_terms.TERMS[name]) for name in NAMES})


def value_and_gradient(arrays, batch, objective=OBJECTIVE):
    def loss(scale):
        scaled = {name: x * scale for name, x in arrays.items()}
        outputs = loss_terms.outputs(scaled, batch, "cross_entropy")
        return objective(outputs, batch, jnp.array(0))[0]

    return jax.value_and_grad(loss)(1.0)


def test_one_exchange_for_all_terms():
    """Without the mesh as context the compiler makes more than thirty collectives."""
    batch, arrays = loss_terms.batch(), loss_terms.arrays()
    want = jax.jit(value_and_gradient)(arrays, batch)
    split = jax.device_put((arrays, batch), EXECUTOR.batch_sharding)
    with jax.set_mesh(EXECUTOR.mesh):
        program = jax.jit(value_and_gradient).lower(*split).compile()
    np.testing.assert_allclose(program(*split), want, rtol=2e-5)
    kinds = re.findall(
        r" (all-[a-z]+|collective-permute|reduce-scatter)(?:-start)?\(",
        program.as_text(),
    )
    assert kinds.count("all-gather") <= 2  # of the floats, and of masks and labels
    assert len(kinds) <= 8, kinds


def test_what_no_term_reads_is_not_gathered():
    seen = []
    batch = loss_terms.batch()
    arrays = loss_terms.arrays()

    def term(outputs, batch):
        seen.append(outputs.prediction)
        return jnp.mean(outputs.prediction, axis=1) * batch.weight[0]

    objective = Objective({"task": WeightedLoss(term)})
    with jax.set_mesh(EXECUTOR.mesh):
        jaxpr = jax.make_jaxpr(lambda a, b: value_and_gradient(a, b, objective))(
            arrays, batch
        )
    gathered = re.findall(r"(\w+\[[\d,]+\]) = sharding_constraint", str(jaxpr))
    classes = seen[0].shape[1]
    rows = len(batch.weight)
    # The prediction and the weights, and the cotangent of the former.
    assert set(gathered) == {f"f32[{rows},{classes + 1}]"}


def test_an_error_names_the_term():
    term = loss_terms.TERMS["cross_entropy"]
    objective = Objective({"task": WeightedLoss(lambda o, b: jnp.zeros((3, 3)))})
    assert term.scope == "example"
    with (
        jax.set_mesh(EXECUTOR.mesh),
        pytest.raises(ConfigError, match="config.losses.task"),
    ):
        value_and_gradient(loss_terms.arrays(), loss_terms.batch(), objective)


def test_one_value_for_all_examples_needs_all_examples():
    """On one device too, where it would be right."""
    for scope in ("example", "candidates"):

        class Term:
            def __call__(self, outputs, batch, candidates=None):
                return jnp.mean(outputs.prediction)

        Term.scope = scope
        objective = Objective({"task": WeightedLoss(Term())})
        with pytest.raises(ConfigError, match=f"(?s)C33.*scope is '{scope}'"):
            value_and_gradient(loss_terms.arrays(), loss_terms.batch(), objective)


def test_a_number_among_the_outputs_is_not_split():
    arrays, batch = loss_terms.arrays(), loss_terms.batch()

    def loss():
        outputs = loss_terms.outputs(arrays, batch, "cross_entropy")
        outputs = outputs.replace(aux={**outputs.aux, "temperature": 0.5})
        objective = Objective({"task": WeightedLoss(scaled)})
        return objective(outputs, batch, jnp.array(0))[0]

    def scaled(outputs, batch):
        return outputs.prediction[:, 0] * outputs.aux["temperature"]

    with jax.set_mesh(EXECUTOR.mesh):
        split = jax.jit(loss)()
    np.testing.assert_allclose(split, loss(), rtol=1e-6)
