"""From `config.optim` to an optax optimiser."""

import copy
import functools
from collections.abc import Mapping
from typing import Any

import optax

from mmfusion_jax.config.instantiate import Config, call, choose
from mmfusion_jax.errors import ConfigError
from mmfusion_jax.train.optimizer import (
    DEFAULT_GROUP,
    is_kernel,
    per_parameter_group,
    scale_by_lr_multiplier,
)

OPTIMIZERS = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "sgd": optax.sgd,
    "rmsprop": optax.rmsprop,
}
SCHEDULES = {
    "constant": lambda rate, steps, **options: optax.constant_schedule(rate),
    "cosine": lambda rate, steps, warmup_steps=0: optax.warmup_cosine_decay_schedule(
        0.0 if warmup_steps else rate, rate, warmup_steps, max(steps, warmup_steps + 1)
    ),
    "exponential": lambda rate, steps, decay=0.1: optax.exponential_decay(
        rate, max(steps, 1), decay
    ),
}


def build_optimizer(options: Config, steps: int) -> optax.GradientTransformation:
    """The optimiser of `config.optim`.

    Clipping, then L2 decay, then the rule with its schedule, for every group of
    parameters with its own rate, then the brake of a plateau.
    """
    values = options.to_dict()
    parts = []
    if clip := values.pop("clip_norm", 0.0):
        parts.append(optax.clip_by_global_norm(clip))
    kernels_only = values.pop("l2_on", "all") == "kernels"
    if decay := values.pop("l2", 0.0):
        mask = is_kernel if kernels_only else None
        parts.append(optax.add_decayed_weights(decay, mask))
    plateau, groups = values.pop("plateau", None), values.pop("groups", None)
    values.pop("accumulate", 1)
    rule = functools.partial(_rule, values, steps)
    if groups:
        where = "config.optim.groups"
        prefixes = {k: call(_prefix, g, f"{where}.{k}") for k, g in groups.items()}
        rules = {name: rule(**group) for name, group in groups.items()}
        parts.append(per_parameter_group(rules | {DEFAULT_GROUP: rule()}, prefixes))
    else:
        parts.append(rule())
    if plateau and plateau["patience"]:
        parts.append(scale_by_lr_multiplier())
    return optax.chain(*parts) if len(parts) > 1 else parts[0]


def _prefix(
    match: str, learning_rate: float | None = None, frozen: bool = False
) -> str:
    """How the parameters of a group begin; the signature tells a group's fields."""
    return match


def _rule(
    values: Mapping[str, Any],
    steps: int,
    match: str = "",
    learning_rate: float | None = None,
    frozen: bool = False,
) -> optax.GradientTransformation:
    """The update rule with its schedule, for all parameters or for a group."""
    if frozen:
        return optax.set_to_zero()
    values = copy.deepcopy(dict(values))
    make = choose(OPTIMIZERS, values.pop("name"), "config.optim.name")
    schedule = values.pop("schedule", {"name": "constant"})
    shape = choose(SCHEDULES, schedule.pop("name"), "config.optim.schedule.name")
    rate = values.pop("learning_rate") if learning_rate is None else learning_rate
    values.pop("learning_rate", None)
    decay = values.pop("weight_decay", 0.0)
    if decay:
        if make is not optax.adamw:
            raise ConfigError(
                "C08",
                f"config.optim.weight_decay={decay} needs an optimiser that decays.",
                "--config.optim.name=adamw",
            )
        values["weight_decay"] = decay
    curve = call(
        lambda **kw: shape(rate, steps, **kw), schedule, "config.optim.schedule"
    )
    return call(lambda **kw: make(curve, **kw), values, "config.optim")
