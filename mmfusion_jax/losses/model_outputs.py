"""Access to the outputs that loss terms read, and checks of their options."""

import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, shorten, shown, suggest
from mmfusion_jax.types import Array, Outputs

PREDICTION = "prediction"
UNIMODAL_LOGITS = "unimodal_logits"
ENCODER_AUX = "encoder_aux"
"""Values of the class attribute `reads` of a loss: the prediction of any model, the
auxiliary outputs "logits/<modality>", or those of encoders, which every model has. A
loss without it reads auxiliary outputs of one model."""


def model_output(outputs: Outputs, name: str) -> Array:
    """Returns `Outputs.aux[name]`, (b ...), floats in float32 or wider.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> outputs = mmf.Outputs(
        ...     jnp.ones(2), {"joint": jnp.ones((2, 3), jnp.bfloat16)}
        ... )
        >>> mmf.losses.model_output(outputs, "joint").dtype.name
        'float32'

    Raises:
        ConfigError: The model does not produce it; raised while tracing.
    """
    if name not in outputs.aux:
        raise ConfigError(
            "C17",
            f"a loss requires model output {shown(name)}, which the model does not "
            f"produce; {suggest(name, outputs.aux)}",
            "set its weight to 0, or change its modalities or pairs, or the model",
        )
    return as_float32(outputs.aux[name])


def as_float32(x: Array) -> Array:
    """Converts floats to float32 or wider; other types are unchanged."""
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_choice(field: str, value: str, known: tuple[str, ...]) -> None:
    """Raises ConfigError if `value` is not one of `known`."""
    if value not in known:
        raise ConfigError(
            "C03",
            f"{shorten(field)}={shown(value)} of a loss is unknown; "
            f"{suggest(value, known)}",
        )


def is_classes(label: Array) -> bool:
    """Returns whether a label is (b) integer classes."""
    return label.ndim == 1 and jnp.issubdtype(label.dtype, jnp.integer)


def check_fit(loss: str, prediction: Array, label: Array, fits: bool) -> None:
    """Raises ConfigError if a loss does not fit its label; raised while tracing."""
    if not fits:
        raise ConfigError(
            "C34",
            f"the loss {shown(loss)} does not fit the label: the predictions are "
            f"{prediction.shape}, the label {label.dtype.name} {label.shape}.",
            "cross_entropy is for classes, l1 and mse for numbers, multilabel for "
            "binary labels",
        )
