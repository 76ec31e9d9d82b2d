"""Additions to optax: parameter groups and a learning rate multiplier."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from mmfusion_jax.errors import ConfigError, join_names, shown, shown_name
from mmfusion_jax.training.state import TrainState
from mmfusion_jax.types import PyTree

DEFAULT_GROUP = "rest"


def scale_by_lr_multiplier() -> optax.GradientTransformation:
    """Scales updates by a multiplier in its state, initially 1; see `reduce_lr`."""
    # The multiplier is an array in the optimizer state: a checkpoint contains it, and
    # changing it does not compile the step again.
    return optax.inject_hyperparams(optax.scale)(step_size=1.0)


def reduce_lr(state: TrainState, factor: float) -> TrainState:
    """Multiplies the learning rate by `factor`.

    The optimizer must contain `scale_by_lr_multiplier`.
    """
    # Exactly one: with several, or none, unpacking fails.
    (size,) = (value for _, value in optax.tree.get_all_with_path(
        state.opt_state, "step_size"
    ))  # fmt: skip
    return state.replace(
        opt_state=optax.tree.set(state.opt_state, step_size=size * factor)
    )


def per_parameter_group(
    rules: Mapping[str, optax.GradientTransformation], prefixes: Mapping[str, str]
) -> optax.GradientTransformation:
    """Applies a separate transformation to each parameter group.

    Args:
        rules: Group -> transformation; "rest" is for parameters of no group.
        prefixes: Group -> prefix of the paths of its parameters, such as
            "encoders_text/layer_0/norm/scale"; the first matching group is used.
    """

    def group(path: Any, _: Any) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        matches = (key for key, prefix in prefixes.items() if name.startswith(prefix))
        return next(matches, DEFAULT_GROUP)

    def label(params: PyTree) -> PyTree:
        labels = jax.tree_util.tree_map_with_path(group, params)
        if empty := prefixes.keys() - set(jax.tree.leaves(labels)):
            name = min(empty)
            raise ConfigError(
                "C15",
                f"config.optim.groups.{shown_name(name)}.param_prefix="
                f"{shown(prefixes[name])} matches no parameters.",
                f"modules of this model: {join_names(sorted(params))}",
            )
        return labels

    return optax.partition({**rules}, label)


def is_kernel(params: PyTree) -> PyTree:
    """Returns True for kernels of linear layers and convolutions, else False."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: str(getattr(path[-1], "key", "")).endswith("kernel"), params
    )
