"""CTC beside a sum over all paths, by hand, and beside reference values."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_msa import load
from loaded_tables import LOSSES
from masking_contract import assert_ignores_poison

from mmfusion_jax.types import Batch, Outputs

TERM = LOSSES["ctc"](("text",))


def batch_of(rows, weight=None):
    mask = jnp.ones((rows, 1), bool)
    weight = jnp.ones(rows) if weight is None else weight
    return Batch({}, {"text": mask}, {}, weight)


def loss(logits, real, targets=None, weight=None):
    """The losses of (b t k) logits, (b)."""
    aux = {"ctc/text": logits, "ctc/text/valid": real}
    if targets is not None:
        aux["ctc/text/targets"] = targets
    return TERM(Outputs(logits, aux), batch_of(len(logits), weight))


def said(path):
    """The targets of a path: repetitions merged, blanks removed."""
    return tuple(k for k, _ in itertools.groupby(path) if k)


def brute(logits, targets):
    """-log of the summed probability of all paths to `targets`, for (t k) logits."""
    steps, k = logits.shape
    paths = itertools.product(range(k), repeat=steps)
    log_p = jax.nn.log_softmax(logits)
    ways = [
        sum(log_p[t, c] for t, c in enumerate(path))
        for path in paths
        if said(path) == targets
    ]
    return -jax.nn.logsumexp(jnp.stack(ways))


def test_one_target_by_hand():
    """Two steps, equal logits: of nine paths, 11, 10 and 01 lead to 1."""
    targets = jnp.array([[1, 0]])
    got = loss(jnp.zeros((1, 2, 3)), jnp.ones((1, 2), bool), targets)
    np.testing.assert_allclose(got, [np.log(3)], rtol=1e-6)


@pytest.mark.ci
def test_sum_over_all_paths():
    cases = [((1, 2), 3), ((1, 1), 4), ((2,), 4)]  # targets, real steps
    logits = jax.random.normal(jax.random.key(0), (len(cases), 4, 3))
    real = jnp.arange(4) < jnp.array([[steps] for _, steps in cases])
    targets = jnp.array([[*said, 0][:2] for said, _ in cases])
    run = jax.jit(jax.value_and_grad(lambda x: jnp.sum(loss(x, real, targets))))
    value, grad = run(logits)
    want = lambda x: sum(
        brute(x[i, :steps], targets) for i, (targets, steps) in enumerate(cases)
    )
    slow, slow_grad = jax.jit(jax.value_and_grad(want))(logits)
    np.testing.assert_allclose(value, slow, rtol=1e-5)
    np.testing.assert_allclose(grad, slow_grad, atol=1e-6)
    every = jnp.broadcast_to(jnp.array([1, 2]), (3, 2))
    np.testing.assert_array_equal(loss(logits, real), loss(logits, real, every))


def test_what_has_no_path_adds_nothing():
    """Two steps have no path to 1, 1; a padding row contributes 0."""
    logits = jax.random.normal(jax.random.key(0), (3, 3, 3))
    real = jnp.array([[True, True, False], [True, True, True], [True, True, True]])
    targets, weight = jnp.array([[1, 1]] * 3), jnp.array([1.0, 1.0, 0.0])
    run = lambda x: loss(x, real, targets, weight)
    value, grad = run(logits), jax.grad(lambda x: jnp.sum(run(x)))(logits)
    assert (value > 0).tolist() == [False, True, False]
    assert np.any(grad, axis=(1, 2)).tolist() == [False, True, False]


@pytest.mark.ci
def test_masked_steps_are_not_read():
    """Wherever they are."""
    real = jnp.array([[True, False, True, True], [False, True, True, False]])
    logits = jax.random.normal(jax.random.key(1), (2, 4, 3))
    make = lambda bad: jnp.where(real[..., None], logits, bad)
    assert_ignores_poison(lambda p, x: jnp.sum(loss(x + p, real)), jnp.zeros(3), make)
    packed = jnp.stack([logits[0, [0, 2, 3]], logits[1, [1, 2, 0]]])
    there = jnp.array([[True, True, True], [True, True, False]])
    np.testing.assert_allclose(loss(logits, real), loss(packed, there), rtol=1e-6)


@pytest.mark.ci
def test_golden(golden):
    arrays = load(golden)
    get = lambda name: jnp.asarray(arrays[f"ctc_a/{name}"])
    length = get("in.input_lengths")[:, None]
    logits = get("in.logits").swapaxes(0, 1).astype(jnp.float32)
    count = get("in.target_lengths")[:, None]
    targets = jnp.where(jnp.arange(4) < count, get("in.targets"), 0)
    run = lambda x: loss(x, jnp.arange(12) < length, targets)
    np.testing.assert_allclose(run(logits), get("none"), rtol=1e-5)
    grad = jax.grad(lambda x: jnp.sum(run(x)))(logits)
    want = get("grad_sum.logits").swapaxes(0, 1)
    np.testing.assert_allclose(grad, want, atol=1e-6)
