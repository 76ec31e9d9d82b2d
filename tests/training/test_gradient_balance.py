"""PCGrad and equal gradient norms: where they must help, where they must not act."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_gradient_record import OBJECTIVE, Small, batch

from mmfusion_jax.analysis.cost import find_products
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.losses.supervised import MSE
from mmfusion_jax.training.gradient_balance import normalize_gradients, pcgrad
from mmfusion_jax.training.parallelism import Executor
from mmfusion_jax.training.state import create_state
from mmfusion_jax.training.step import make_train_step

BALANCES = {"pcgrad": pcgrad(), "norm": normalize_gradients(0)}


def combine(balance, gradients, weights=None, seed=0):
    """The combination of gradients (K ...)."""
    weights = (
        jnp.ones(len(jax.tree.leaves(gradients)[0])) if weights is None else weights
    )
    state, key = optax.EmptyState(), jax.random.key(seed)
    return balance.update(gradients, state, weights=weights, key=key)[0]


def projected(g: np.ndarray, i: int, order) -> np.ndarray:
    """Algorithm 1 of the paper for one term, as it is printed."""
    u = g[i].copy()
    for j in order:
        if u @ g[j] < 0:
            u -= u @ g[j] / (g[j] @ g[j]) * g[j]
    return u


def test_pcgrad_is_algorithm_1_of_the_paper_in_one_of_its_orders():
    g = np.random.default_rng(1).normal(size=(3, 5))
    g[1] -= 1.5 * g[0]
    orders = [itertools.permutations([j for j in range(3) if j != i]) for i in range(3)]
    choices = [[projected(g, i, order) for order in orders[i]] for i in range(3)]
    sums = np.array([sum(chosen) for chosen in itertools.product(*choices)])
    tree = {"a": jnp.asarray(g[:, :2], jnp.float32), "b": {"c": jnp.asarray(g[:, 2:])}}
    found = set()
    for seed in range(12):
        one = combine(pcgrad(), tree, seed=seed)
        flat = np.concatenate([one["a"], one["b"]["c"]])
        distances = np.abs(sums - flat).max(axis=1)
        assert distances.min() < 1e-5
        found.add(int(distances.argmin()))
    assert len(found) > 1, "the order is random"


def test_pcgrad_of_two_terms_increases_neither():
    g = jax.random.normal(jax.random.key(0), (2, 6))
    g = jnp.stack([g[0], 100 * (g[1] - 2 * g[0])])  # a conflict, very different scales
    plain, balanced = g.sum(axis=0), combine(pcgrad(), g)
    assert float(plain @ g[0]) < 0 < float(balanced @ g[0])
    assert float(balanced @ g[1]) > 0


@pytest.mark.parametrize("count", [2, 4])
def test_pcgrad_without_a_conflict_adds(count):
    g = jnp.abs(jax.random.normal(jax.random.key(0), (count, 50)))
    np.testing.assert_allclose(combine(pcgrad(), g), g.sum(axis=0), rtol=1e-6)


def test_norms_are_in_proportion_to_the_weights():
    scales = jnp.array([1.0, 1e-3, 1e4, 0.0])[:, None]
    g = scales * jax.random.normal(jax.random.key(0), (4, 50))
    weights = jnp.array([2.0, 1.0, 4.0, 1.0])
    found = combine(normalize_gradients(0), g, weights)
    unit = g[:3] / jnp.linalg.norm(g[:3], axis=1, keepdims=True)
    want = jnp.linalg.norm(g[0]) * (unit * (weights[:3, None] / 2)).sum(axis=0)
    np.testing.assert_allclose(found, want, rtol=1e-5)
    # With norms in proportion already, they only add.
    equal = weights[:3, None] * unit
    np.testing.assert_allclose(
        combine(normalize_gradients(0), equal, weights[:3]),
        equal.sum(axis=0),
        rtol=1e-5,
    )


def test_a_reference_of_weight_0_gives_no_gradient():
    """As at the start of a schedule of its weight."""
    g, weights = jnp.array([[0.0, 0.0], [0.0, 3.0]]), jnp.array([0.0, 0.5])
    assert not np.any(combine(normalize_gradients(0), g, weights))


@pytest.mark.parametrize("name", BALANCES)
def test_products_of_gradients_are_in_float32(name):
    function = partial(combine, BALANCES[name])
    products = find_products(jax.make_jaxpr(function)(jnp.ones((3, 5))).jaxpr)
    assert products and {one.precision for one in products} == {"highest"}


def descend(losses, start, balance, tx, steps) -> jax.Array:
    """The parameters after some steps on several losses."""

    def step(carry, number):
        x, state = carry
        g = jax.jacrev(lambda x: jnp.stack([loss(x) for loss in losses]))(x)
        if balance is None:
            g = g.sum(axis=0)
        else:
            ones, key = jnp.ones(len(losses)), jax.random.key(number)
            g, _ = balance.update(g, optax.EmptyState(), weights=ones, key=key)
        updates, state = tx.update(g, state, x)
        return (x + updates, state), None

    return jax.lax.scan(step, (start, tx.init(start)), jnp.arange(steps))[0][0]


def test_equal_norms_train_both_of_two_quadratic_terms_of_very_different_scale():
    losses = [
        lambda x: 0.5 * jnp.square(x[0] - 1),  # the task
        lambda x: 5e4 * jnp.square(x[1] - 1 - 0.1 * x[0]),
    ]
    rates = 10.0 ** np.arange(-6, 0.5, 0.5)

    def best(balance) -> float:
        """The lowest task loss after 100 steps of SGD, of all learning rates."""
        run = lambda rate: losses[0](
            descend(losses, jnp.zeros(2), balance, optax.sgd(rate), 100)
        )
        return float(jnp.nanmin(jax.jit(jax.vmap(run))(rates)))

    assert best(normalize_gradients(0)) < 1e-2 < 0.1 < best(None)


def test_pcgrad_wins_the_two_task_example_of_the_paper():
    """Fig. 1 and 8: a curved valley between two tasks of different curvature."""
    floor = lambda x: jnp.log(jnp.maximum(jnp.abs(x), 5e-6))
    losses = [
        lambda x: 20 * floor(0.5 * x[0] + jnp.tanh(x[1])),
        lambda x: 25 * floor(0.5 * x[0] - jnp.tanh(x[1]) + 2),
    ]
    start = jnp.array([0.5, -3.0])

    @partial(jax.jit, static_argnums=0)
    def total(balance):
        x = descend(losses, start, balance, optax.adam(1e-2), 20_000)
        return sum(loss(x) for loss in losses)

    # At the end the path jumps between walls, and depends on the version of JAX.
    assert float(total(pcgrad())) < float(total(None)) - 10


@pytest.mark.parametrize("name", BALANCES)
def test_one_term_is_trained_as_without(name):
    alone = Objective(
        {"task": WeightedLoss(MSE("label")), "off": OBJECTIVE.terms["off"]}
    )
    state = create_state(Small(), optax.sgd(0.1), batch(), jax.random.key(0))
    steps = [
        jax.jit(make_train_step(Small(), alone, optax.sgd(0.1), balance=balance))
        for balance in (None, BALANCES[name])
    ]
    texts = [step.lower(state, batch()).as_text() for step in steps]
    assert texts[0] == texts[1]


@pytest.mark.ci
def test_pcgrad_trains_terms_without_a_conflict_as_their_sum():
    same = Objective(
        {name: WeightedLoss(MSE("label"), w) for name, w in (("task", 1.0), ("b", 0.5))}
    )
    state = create_state(Small(), optax.sgd(0.1), batch(), jax.random.key(0))
    plain, balanced = (
        jax.jit(make_train_step(Small(), same, optax.sgd(0.1), balance=balance))
        for balance in (None, pcgrad())
    )
    (a, x), (b, y) = plain(state, batch()), balanced(state, batch())
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(one.dtype, jnp.number):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(x["grad_norm"], y["grad_norm"], rtol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize("name", BALANCES)
def test_pmap_and_seeds_train_the_same(name):
    tx = optax.sgd(0.1, momentum=0.9)
    quiet = partial(Small, dropout=0.0)  # devices under pmap draw their own

    def trained(executor, seeds: bool):
        step = make_train_step(
            quiet(executor.axis),
            OBJECTIVE,
            tx,
            executor.axis,
            2,
            balance=BALANCES[name],
        )
        compiled = executor.compile(step, seeds=seeds)
        init = lambda n: create_state(quiet(), tx, batch(), jax.random.key(n))
        states = [init(0), init(1)]
        rows = batch()
        if seeds:
            states = [jax.tree.map(lambda *x: jnp.stack(x), *states)]
            rows = jax.tree.map(lambda x: np.stack([x, x]), rows)
        found = []
        for state in states:
            for _ in range(3):
                state, _ = compiled(state, executor.put(rows, train=True, seeds=seeds))
            found.append(state.params)
        stack = lambda *x: jnp.stack(x)
        return found[0] if seeds else jax.tree.map(stack, *found)

    want = trained(Executor("jit", 1), False)
    cases = (("jit", True), ("pmap", False), ("pmap", True))
    for parallel, seeds in cases:
        executor = Executor(parallel, 2)
        found = trained(executor, seeds)
        for one, other in zip(
            jax.tree.leaves(want), jax.tree.leaves(found), strict=True
        ):
            np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-5)


@pytest.mark.ci
@pytest.mark.parametrize("name", BALANCES)
def test_a_term_that_is_not_finite_skips_the_step(name):
    tx = optax.adam(0.1)
    state = create_state(Small(), tx, batch(), jax.random.key(0))
    step = jax.jit(make_train_step(Small(), OBJECTIVE, tx, balance=BALANCES[name]))
    rows = batch()
    rows.labels["other"][2] = np.nan
    after, metrics = step(state, rows)
    assert metrics["nonfinite/loss/opposite"] and not metrics["nonfinite/loss/task"]
    assert int(after.skipped_steps["total"]) == 1
    for one, other in zip(
        jax.tree.leaves(after.params), jax.tree.leaves(state.params), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.ci
@pytest.mark.parametrize("name", BALANCES)
def test_the_weight_decay_is_added_to_the_balanced_gradient(name):
    state = create_state(Small(), optax.sgd(1.0), batch(), jax.random.key(0))
    decay = optax.chain(optax.add_decayed_weights(0.5), optax.sgd(1.0))
    state = state.replace(opt_state=())
    penalty = lambda params: 0.25 * optax.tree.norm(params, squared=True)
    found = []
    for tx, extra in ((optax.sgd(1.0), None), (decay, penalty)):
        made = make_train_step(
            Small(), OBJECTIVE, tx, penalty=extra, balance=BALANCES[name]
        )
        fresh = dataclasses.replace(state, opt_state=tx.init(state.params))
        found.append(jax.jit(made)(fresh, batch()))
    (plain, _), (decayed, metrics) = found
    np.testing.assert_allclose(metrics["loss/l2"], penalty(state.params), rtol=1e-6)
    want = jax.tree.map(lambda new, old: new - 0.5 * old, plain.params, state.params)
    for one, other in zip(
        jax.tree.leaves(decayed.params), jax.tree.leaves(want), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reference", [2, -1])
def test_the_reference_is_one_of_the_gradients(reference):
    with pytest.raises(ConfigError, match=f"C10.*reference={reference}"):
        combine(normalize_gradients(reference), {"w": jnp.ones((2, 3))})
