"""What must hold for every loss term: masks, fillers, degenerate input, devices."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import loss_terms
import pytest
from groups import in_ci
from loaded_tables import LOSSES
from masking_contract import POISON, poisoned

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.losses.objective import Objective, WeightedLoss
from mmfusion_jax.types import Outputs

BATCH = jax.tree.map(jnp.asarray, loss_terms.batch())
EMPTY = BATCH.replace(masks=jax.tree.map(jnp.zeros_like, BATCH.masks))
FILLED = BATCH.replace(weight=jnp.zeros_like(BATCH.weight))
ONE = jax.tree.map(lambda x: x[:1], BATCH)
NAMES = sorted(loss_terms.TERMS)
QUICK = ("cross_entropy", "hsic", "info_nce", "gate_entropy")


@functools.cache
def value_and_grad(name):
    objective = Objective({"task": WeightedLoss(loss_terms.TERMS[name])})

    def value(arrays, batch):
        outputs = loss_terms.outputs(arrays, batch, name)
        return objective.value("task", outputs, batch)

    return jax.jit(jax.value_and_grad(value))


def test_every_term_is_tested():
    assert {name.split(":")[0] for name in NAMES} == set(LOSSES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_masked_is_not_read(name):
    run, arrays = value_and_grad(name), loss_terms.arrays()
    fill = lambda bad: {
        k: poisoned(v, loss_terms.real_rows(k, BATCH), bad) for k, v in arrays.items()
    }
    want = run(fill(0.0), BATCH)
    chex.assert_tree_all_finite(want)
    assert want[0] != 0 and any(jnp.any(g) for g in want[1].values())
    for bad in POISON:
        chex.assert_trees_all_equal(run(fill(bad), BATCH), want)


@pytest.mark.parametrize("name", in_ci(NAMES, *QUICK))
def test_rows_that_fill_up_are_as_if_not_there(name):
    arrays = loss_terms.arrays()
    fewer = lambda tree: jax.tree.map(lambda x: x[:-2], tree)
    want = value_and_grad(name)(fewer(arrays), fewer(BATCH))
    got, grads = value_and_grad(name)(arrays, BATCH)
    chex.assert_trees_all_close((got, fewer(grads)), want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", in_ci(NAMES, *QUICK))
def test_degenerate_input_is_harmless(name):
    for batch, level in itertools.product((BATCH, EMPTY, FILLED, ONE), (0, 1, 1e4)):
        rows, arrays = len(batch.weight), loss_terms.arrays()
        same = {k: jnp.full_like(v[:rows], level) for k, v in arrays.items()}
        same = {k: v.at[:, 0].multiply(-1) for k, v in same.items()}
        found = value_and_grad(name)(same, batch)
        chex.assert_tree_all_finite(found)
        if batch is FILLED:
            chex.assert_trees_all_equal(found, jax.tree.map(jnp.zeros_like, found))


@pytest.mark.parametrize("name", ["hsic", "info_nce", "agnostic_adversary"])
def test_a_model_that_gives_too_little_is_named(name):
    term = loss_terms.TERMS[name]
    said = r"(?s)C17.*requires .*/.*does not produce; .*fused.*weight to 0"
    with pytest.raises(ConfigError, match=said):
        term(Outputs(jnp.zeros(16), {"fused": jnp.zeros((16, 2))}), BATCH)


def test_unknown_choices_are_named():
    with pytest.raises(ConfigError, match="positives='D'.*known: pair, pair_other"):
        LOSSES["info_nce"](pairs=("a",), positives="D")
    with pytest.raises(ConfigError, match="omega='detach'.*did you mean 'detached'"):
        LOSSES["agnostic_adversary"](("a",), omega="detach")


@pytest.mark.ci
def test_all_devices_together_give_the_value_of_one(answer_of):
    found = answer_of("subprocess_losses.py")
    assert len(found) == 4
    assert not {k: v for k, v in found.items() if v > 1e-12}


@pytest.mark.parametrize("name", ["hsic", "difference_loss"])
def test_a_modality_that_nobody_has_is_left_out_of_the_mean(name):
    gone = jnp.zeros_like(BATCH.masks["video"])
    batch = BATCH.replace(masks={**BATCH.masks, "video": gone})
    outputs = loss_terms.outputs(loss_terms.arrays(), batch, name)
    two = LOSSES[name](("text", "audio"))(outputs, batch)
    chex.assert_trees_all_close(loss_terms.TERMS[name](outputs, batch), two, rtol=1e-6)
