"""The optax optimizer of an `OptimizerSpec`, and the schedules a config can name."""

from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mmfusion_jax.config.instantiate import arguments_of
from mmfusion_jax.config.spec import OptimizerSpec, ParameterGroupSpec, Part
from mmfusion_jax.errors import ConfigError, describe_exception, shown, type_name
from mmfusion_jax.option_types import Range
from mmfusion_jax.training.optimizer import (
    DEFAULT_GROUP,
    is_kernel,
    per_parameter_group,
    scale_by_lr_multiplier,
)
from mmfusion_jax.types import Array, PyTree

WarmupSteps: TypeAlias = Annotated[int, Range(0, 10**9)]
Factor: TypeAlias = Annotated[float, Range(0, 1, exclusive=True)]
EVERY_PARAMETER = ParameterGroupSpec("")


def constant(rate: float, steps: int) -> optax.Schedule:
    """Returns a constant learning rate.

    Args:
        rate: The learning rate.
        steps: Unused; part of the contract of every schedule.
    """
    del steps
    return optax.constant_schedule(rate)


def cosine(rate: float, steps: int, warmup_steps: WarmupSteps = 0) -> optax.Schedule:
    """Returns a learning rate that falls to 0 along a cosine.

    Args:
        rate: The highest learning rate.
        steps: Number of steps of the training.
        warmup_steps: Steps in which it rises linearly from 0.
    """
    start = 0.0 if warmup_steps else rate
    last = max(steps, warmup_steps + 1)
    return optax.warmup_cosine_decay_schedule(start, rate, warmup_steps, last)


def exponential(rate: float, steps: int, decay: Factor = 0.1) -> optax.Schedule:
    """Returns a learning rate that falls exponentially.

    Args:
        rate: The learning rate of the first step.
        steps: Number of steps of the training.
        decay: Factor of the learning rate after `steps`.
    """
    return optax.exponential_decay(rate, max(steps, 1), decay)


def build_optimizer(spec: OptimizerSpec, steps: int) -> optax.GradientTransformation:
    """Returns the optimizer of a config.

    In this order: clipping, coupled weight decay, the update rule with its schedule for
    every group of parameters, and the multiplier that `reduce_on_plateau` lowers.

    Args:
        spec: `config.optim`.
        steps: Number of steps of the training, for the schedule.

    Raises:
        ConfigError: The optimizer does not have weight decay.
    """
    parts = []
    if spec.clip_norm:
        parts.append(optax.clip_by_global_norm(spec.clip_norm))
    if spec.coupled_weight_decay:
        mask = is_kernel if spec.decay_mask == "kernels" else None
        parts.append(optax.add_decayed_weights(spec.coupled_weight_decay, mask))
    if spec.groups:
        prefixes = {name: group.param_prefix for name, group in spec.groups.items()}
        rules = {name: _rule(spec, g, steps) for name, g in spec.groups.items()}
        rules[DEFAULT_GROUP] = _rule(spec, EVERY_PARAMETER, steps)
        parts.append(per_parameter_group(rules, prefixes))
    else:
        parts.append(_rule(spec, EVERY_PARAMETER, steps))
    if spec.reduce_on_plateau.patience:
        # After the update rule: before it, Adam would divide a constant factor of the
        # gradient out again.
        parts.append(scale_by_lr_multiplier())
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


def l2_penalty(spec: OptimizerSpec) -> Callable[[PyTree], Array] | None:
    """Returns the loss term of which `coupled_weight_decay` is the gradient.

        (decay / 2) * sum_i theta_i^2

    Args:
        spec: `config.optim`.

    Returns:
        Function from parameters to the term, () float32; None without such a decay.
    """
    if not spec.coupled_weight_decay:
        return None

    def penalty(params: PyTree) -> Array:
        squares = jax.tree.map(
            lambda x: jnp.sum(jnp.square(x), dtype=jnp.float32), params
        )
        if spec.decay_mask == "kernels":
            squares = jax.tree.map(
                lambda x, decays: x if decays else jnp.zeros_like(x),
                squares,
                is_kernel(params),
            )
        total = sum(jax.tree.leaves(squares), jnp.zeros((), jnp.float32))
        return spec.coupled_weight_decay / 2 * total

    return penalty


def _rule(
    spec: OptimizerSpec, group: ParameterGroupSpec, steps: int
) -> optax.GradientTransformation:
    """Returns the update rule of a group of parameters."""
    if group.frozen:
        return optax.set_to_zero()
    options = {}
    if spec.weight_decay:
        if "weight_decay" not in arguments_of(spec.optimizer.target):
            raise ConfigError(
                "C08",
                f"config.optim.weight_decay={shown(spec.weight_decay)} requires "
                "an optimizer with weight decay, and "
                f"{shown(spec.optimizer.name)} has none.",
                "--config.optim.name=adamw",
            )
        options["weight_decay"] = spec.weight_decay
    rate = spec.learning_rate if group.learning_rate is None else group.learning_rate
    schedule = spec.schedule.build(rate=rate, steps=steps)
    _check_schedule(spec.schedule, schedule)
    rule = spec.optimizer.build(learning_rate=schedule, **options)
    _check_rule(spec.optimizer, rule)
    return rule


def _check_schedule(part: Part, schedule: Any) -> None:
    """Raises ConfigError unless a schedule maps a step to a number."""
    part.check_call(schedule, "step")
    if part.is_builtin:
        return
    rates = []
    step = jax.ShapeDtypeStruct((), "int32")
    jax.eval_shape(lambda step: rates.append(schedule(step)), step)
    is_number = isinstance(rates[0], int | float | np.number | jax.Array)
    if not is_number or np.shape(rates[0]):
        raise part.error(f"returns {type_name(rates[0])} for a step, not a number")


def _check_rule(part: Part, rule: Any) -> None:
    """Raises ConfigError unless a rule updates parameters from gradients alone."""
    if not isinstance(rule, optax.GradientTransformation):
        raise part.error(f"is {type_name(rule)}, not an optax optimizer")
    params = {"kernel": jax.ShapeDtypeStruct((2, 2), "float32")}
    update = lambda p: rule.update(p, rule.init(p), p)
    try:
        jax.eval_shape(update, params)
    except (TypeError, ValueError) as error:
        raise part.error(f"raises {describe_exception(error)}") from error
