"""Groups of parameters, decay, and the brake."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_dataset

from mmfusion_jax.config.optimizer import build_optimizer, l2_penalty
from mmfusion_jax.config.resolve import resolve
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.training.optimizer import reduce_lr
from mmfusion_jax.training.plan import SelectionState
from mmfusion_jax.training.state import TrainState

PARAMS = {
    "encoders_text": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
    "head": {"kernel": jnp.ones(2), "bias": jnp.ones(2)},
}


def made(**options) -> optax.GradientTransformation:
    config = tiny_dataset.config()
    config.optim.name, config.optim.learning_rate = "sgd", 0.1
    for name, value in options.items():
        config.optim[name] = value
    return build_optimizer(resolve(config).optimizer, steps=10)


def moved(tx, opt_state=None):
    """How far one step takes every parameter, for gradients of 1."""
    grads = jax.tree.map(jnp.ones_like, PARAMS)
    updates, _ = tx.update(grads, opt_state or tx.init(PARAMS), PARAMS)
    return jax.tree.map(lambda x: float(x[0]), updates)


def test_a_group_has_its_own_rate():
    group = {"text": {"param_prefix": "encoders_text", "learning_rate": 0.01}}
    steps = moved(made(groups=group))
    assert steps["encoders_text"]["kernel"] == pytest.approx(-0.01)
    assert steps["head"]["kernel"] == pytest.approx(-0.1)


def test_a_frozen_group_stays():
    steps = moved(
        made(groups={"text": {"param_prefix": "encoders_text", "frozen": True}})
    )
    assert steps["encoders_text"] == {"kernel": 0.0, "bias": 0.0}
    assert steps["head"]["bias"] == pytest.approx(-0.1)


def test_a_group_that_fits_nothing_is_named():
    tx = made(groups={"text": {"param_prefix": "encoders_txt"}})
    with pytest.raises(ConfigError, match=r"C15.*encoders_txt[\s\S]*encoders_text"):
        tx.init(PARAMS)


def test_an_unknown_field_of_a_group_is_named():
    with pytest.raises(ConfigError, match=r"groups\.text\.rate"):
        made(groups={"text": {"param_prefix": "head", "rate": 1.0}})


@pytest.mark.parametrize("on", ["all", "kernels"])
def test_decay_is_added_to_the_gradient(on):
    steps = moved(made(coupled_weight_decay=0.5, decay_mask=on))
    assert steps["head"]["kernel"] == pytest.approx(-0.15)
    assert steps["head"]["bias"] == pytest.approx(-0.15 if on == "all" else -0.1)


@pytest.mark.parametrize("on", ["all", "kernels"])
def test_the_decay_is_the_gradient_of_the_penalty(on):
    """Both for weights other than 1, and 0 where the mask leaves a parameter out."""
    config = tiny_dataset.config()
    config.optim.update(dict(name="sgd", learning_rate=1.0, decay_mask=on))
    config.optim.coupled_weight_decay = 0.5
    spec = resolve(config).optimizer
    params = jax.tree.map(lambda x: 3 * x, PARAMS)
    tx, penalty = build_optimizer(spec, steps=10), l2_penalty(spec)
    assert penalty is not None
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zeros, tx.init(params), params)
    grads = jax.grad(penalty)(params)
    chex.assert_trees_all_close(updates, jax.tree.map(jnp.negative, grads))
    assert float(penalty(params)) == (18.0 if on == "all" else 9.0)
    config.optim.coupled_weight_decay = 0.0
    assert l2_penalty(resolve(config).optimizer) is None


def test_clipping_comes_before_decay():
    steps = moved(made(clip_norm=1.0, coupled_weight_decay=0.5))
    assert steps["head"]["bias"] == pytest.approx(-0.1 * (8**-0.5 + 0.5))


def test_the_brake_shortens_later_steps():
    tx = made(reduce_on_plateau={"factor": 0.5, "patience": 2, "monitor": "loss"})
    state = TrainState(
        step=jnp.zeros((), jnp.int32),
        params=PARAMS,
        stats={},
        opt_state=tx.init(PARAMS),
        key=jax.random.key(0),
        skipped_steps={},
    )
    assert moved(tx, state.opt_state)["head"]["bias"] == pytest.approx(-0.1)
    state = reduce_lr(reduce_lr(state, 0.5), 0.5)
    assert moved(tx, state.opt_state)["head"]["bias"] == pytest.approx(-0.025)


def test_a_level_ends_with_a_better_score():
    progress = SelectionState()
    for step, score in enumerate([1.0, 0.5, 0.5, 2.0, 1.0]):
        progress.update(step, score)
        progress.update_lr(score)
    assert (
        progress.evals_since_best,
        progress.evals_since_lr_drop,
        progress.best_step,
    ) == (1, 1, 3)
    assert np.isclose(progress.best_score or 0.0, 2.0)
