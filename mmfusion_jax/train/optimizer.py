"""What optax leaves to the caller: groups of parameters, and a brake on the steps."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.train.state import TrainState
from mmfusion_jax.types import PyTree

DEFAULT_GROUP = "rest"


def scale_by_lr_multiplier() -> optax.GradientTransformation:
    """Scales updates by a number in its state, 1 at first, which `reduce_lr` lowers."""
    return optax.inject_hyperparams(optax.scale)(step_size=1.0)


def reduce_lr(state: TrainState, factor: float) -> TrainState:
    """A state whose later steps are `factor` times as long; it must hold a brake."""
    (size,) = (value for _, value in optax.tree.get_all_with_path(
        state.opt_state, "step_size"
    ))  # fmt: skip
    return state.replace(
        opt_state=optax.tree.set(state.opt_state, step_size=size * factor)
    )


def per_parameter_group(
    rules: Mapping[str, optax.GradientTransformation], prefixes: Mapping[str, str]
) -> optax.GradientTransformation:
    """Each group of parameters by its own rule.

    Args:
        rules: group -> rule; "rest" is for parameters of no group.
        prefixes: group -> how the paths of its parameters, such as
            "encoders_text/layer_0/norm/scale", begin; the first group that fits counts.
    """

    def group(path: Any, _: Any) -> str:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        fits = (key for key, prefix in prefixes.items() if name.startswith(prefix))
        return next(fits, DEFAULT_GROUP)

    def label(params: PyTree) -> PyTree:
        labels = jax.tree_util.tree_map_with_path(group, params)
        if empty := prefixes.keys() - set(jax.tree.leaves(labels)):
            name = min(empty)
            raise ConfigError(
                "C15",
                f"config.optim.groups.{name}.match={prefixes[name]!r} fits no "
                "parameter.",
                f"modules of this model: {', '.join(sorted(params))}",
            )
        return labels

    return optax.partition({**rules}, label)


def is_kernel(params: PyTree) -> PyTree:
    """Which parameters are kernels of linear layers and convolutions, bool each."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: str(getattr(path[-1], "key", "")).endswith("kernel"), params
    )
