"""What must hold for every loss term: masks, fillers, degenerate input, devices."""

import chex
import jax
import jax.numpy as jnp
import loss_terms
import pytest
from groups import in_ci
from loaded_tables import LOSSES

from mmfusion_jax import testing
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.types import Outputs

BATCH = jax.tree.map(jnp.asarray, loss_terms.batch())
NAMES = sorted(loss_terms.TERMS)
COMPARE = ("difference_loss", "hsic", "info_nce", "modality_contrast")
"""Losses that compare the examples of a batch."""

QUICK = ("cross_entropy", "hsic", "info_nce", "gate_entropy")


@pytest.mark.parametrize("name", in_ci(NAMES, *QUICK))
def test_properties(name):
    arrays = loss_terms.arrays()
    testing.check_loss(
        loss_terms.TERMS[name],
        loss_terms.outputs(arrays, BATCH, name),
        BATCH,
        name=name,
        valid={k: loss_terms.real_rows(k, BATCH) for k in arrays},
        compares_examples=name.split(":")[0] in COMPARE,
    )


def test_every_term_is_tested():
    assert {name.split(":")[0] for name in NAMES} == set(LOSSES)


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
    assert len(found) == 3
    assert not {k: v for k, v in found.items() if v > 1e-12}


@pytest.mark.parametrize("name", ["hsic", "difference_loss"])
def test_a_modality_that_nobody_has_is_left_out_of_the_mean(name):
    gone = jnp.zeros_like(BATCH.masks["video"])
    batch = BATCH.replace(masks={**BATCH.masks, "video": gone})
    outputs = loss_terms.outputs(loss_terms.arrays(), batch, name)
    two = LOSSES[name](("text", "audio"))(outputs, batch)
    chex.assert_trees_all_close(loss_terms.TERMS[name](outputs, batch), two, rtol=1e-6)
