"""What loss terms read besides the prediction."""

import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.types import Array, Outputs


def model_output(outputs: Outputs, name: str) -> Array:
    """`Outputs.aux[name]`, (b ...), floats in float32 or wider.

    Raises:
        ConfigError: the model gives no such array, found while tracing.
    """
    if name not in outputs.aux:
        raise ConfigError(
            "C17",
            f"a term of config.losses reads {name!r}, which the model does not give; "
            f"{suggest(name, outputs.aux)}",
            "give the term weight=0, or change its modalities or pairs, or the model",
        )
    return as_float32(outputs.aux[name])


def as_float32(x: Array) -> Array:
    """`x` in float32, or as it is where it is wider or no float."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ConfigError if `value` is none of `known`."""
    if value not in known:
        raise ConfigError(
            "C03", f"{field}={value!r} of a loss is unknown; {suggest(value, known)}"
        )
