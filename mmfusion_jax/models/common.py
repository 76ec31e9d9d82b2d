"""Encoding, pooling and prediction heads that all models share."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from mmfusion_jax.errors import (
    ConfigError,
    join_names,
    shown,
    shown_name,
    suggest,
    type_name,
)
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import flatten, mean, mean_std
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import WEIGHT_PREFIX, Array, Batch, Streams, Tokens

AudioPooling: TypeAlias = Literal["flatten", "mean", "mean_std"]
POOLINGS = {"flatten": flatten, "mean": mean, "mean_std": mean_std}
"""Poolings of audio tokens; other modalities use the mean."""


def encode(
    encoders: Mapping[str, nn.Module], batch: Batch, *, train: bool
) -> dict[str, Tokens]:
    """Encodes every modality that has an encoder; masks padding rows.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> class Mean(nn.Module):
        ...     encoders: dict
        ...
        ...     @nn.compact
        ...     def __call__(self, batch):
        ...         streams = mmf.models.encode(self.encoders, batch, train=False)
        ...         return mmf.layers.pooling.mean(streams["audio"])
        >>> x, mask = jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool)
        >>> batch = mmf.Batch({"audio": x}, {"audio": mask})
        >>> model = Mean({"audio": mmf.encoders.Precomputed()})
        >>> model.init_with_output(jax.random.key(0), batch)[0].shape
        (2, 3)

    Raises:
        ConfigError: `encoders` is empty, a modality is not in the batch, or an encoder
            does not return Tokens.
    """
    if not encoders:
        raise ConfigError(
            "C22",
            "config.model.encoders is empty, but this model requires an encoder.",
            "config.model.encoders.audio = dict(name=...) in the config file",
        )
    if missing := encoders.keys() - batch.inputs.keys():
        raise ConfigError(
            "C22",
            f"config.model.encoders has {join_names(sorted(missing))}, but the data "
            f"only has {join_names(sorted(batch.inputs))}.",
            f"--config.model.encoders.{shown_name(min(missing))}=None",
        )
    # valid_mask and not the mask: a padding row then has no valid token, and changes no
    # statistic of BatchNorm.
    streams = {
        name: encoder(batch.inputs[name], batch.valid_mask(name), train=train)
        for name, encoder in encoders.items()
    }
    for name, tokens in streams.items():
        where = f"config.model.encoders.{shown_name(name)} returns"
        check_tokens(where, tokens, len(batch.weight))
    return streams


def check_tokens(where: str, tokens: Any, b: int) -> None:
    """Raises ConfigError unless a part returned Tokens of consistent shapes.

    Args:
        where: Beginning of the message, such as "config.model.encoders.audio returns".
        tokens: The result of the part.
        b: Number of examples.
    """
    if not isinstance(tokens, Tokens):
        what = type_name(tokens)
    else:
        x, mask = tokens.values, tokens.mask
        shaped = x.ndim == 3 and len(x) == b and x.size and mask.shape == x.shape[:2]
        if shaped and jnp.issubdtype(x.dtype, jnp.floating) and mask.dtype == bool:
            return
        what = (
            f"values {x.dtype.name} {x.shape} and a mask {mask.dtype.name} {mask.shape}"
        )
    raise ConfigError(
        "C33",
        f"{where} {what}, not Tokens with float values (b n d) and a bool mask (b n), "
        f"b={b}.",
    )


def pool_modality(
    streams: Streams,
    name: str,
    dropout: float,
    pooling: str = "flatten",
    *,
    train: bool,
) -> Array:
    """Pools the tokens of a modality, (b d); audio by `pooling` and with dropout.

    Args:
        streams: Encoded modalities.
        name: Name of the modality.
        dropout: Dropout rate of the pooled audio.
        pooling: Pooling of audio: "flatten" (b d*n), "mean" (b d), or "mean_std"
            (b 2d), mean and standard deviation over time, which do not depend on
            the position in time.
        train: Apply dropout.

    Raises:
        ConfigError: The pooling is unknown.

    Reference:
        CFN-SR: Eq. 3 flattens audio, Sec. 2.2 pools video.
    Deviation:
        Dropout on the flattened vector only is from the released code.
    """
    if pooling not in POOLINGS:
        raise ConfigError(
            "C03",
            f"config.model.audio_pooling={shown(pooling)} is unknown.",
            suggest(pooling, POOLINGS),
        )
    if name != "audio":
        return mean(streams[name])
    x = POOLINGS[pooling](streams[name])
    return nn.Dropout(dropout, deterministic=not train)(x)


def project_modality(
    x: Array, present: Array, width: int, name: str, dtype: Any = None
) -> Array:
    """Projects vectors to the common space of all modalities.

        f_m = LN(W_m x_m + b_m)

    Parameters: `align_<name>`, `align_<name>_norm`.

    Args:
        x: (b e).
        present: (b) bool.
        width: Width of the common space, d.
        name: Name of the modality.
        dtype: Dtype of the computation; None keeps the input's.

    Returns:
        (b d); 0 where the modality is missing.

    Reference:
        Hetero-Fusion-Net, Sec. 3.1 and 5.2.
    """
    project = torch_dense(x.shape[-1], width, dtype=dtype, name=f"align_{name}")
    return zero_masked(layer_norm(dtype, f"align_{name}_norm")(project(x)), present)


def prediction_head(
    x: Array,
    features: int,
    name: str = "head",
    kernel_init: nn.initializers.Initializer | None = None,
    bias_init: float = 0.0,
) -> Array:
    """Applies the output layer, in float32 independent of the encoders' dtype.

    This also holds on accelerators, whatever the precision of the other products.

    Example:
        >>> import flax.linen as nn
        >>> import jax
        >>> import mmfusion_jax as mmf
        >>> class Head(nn.Module):
        ...     @nn.compact
        ...     def __call__(self, x):
        ...         return mmf.models.prediction_head(x, 4)
        >>> Head().init_with_output(jax.random.key(0), jax.numpy.ones((2, 8)))[0].shape
        (2, 4)

    Args:
        x: (b d).
        features: Number of outputs, k.
        name: Name of the layer.
        kernel_init: See `torch_dense`.
        bias_init: Constant added to a score, about which training starts.

    Returns:
        Logits (b k), or a score (b) where `features` is 1.
    """
    # No dtype: the kernel is float32, so half precision ends here.
    with jax.default_matmul_precision("highest"):
        y = torch_dense(x.shape[-1], features, kernel_init=kernel_init, name=name)(x)
    return y[..., 0] + bias_init if features == 1 else y


def weights_by_modality(order: tuple[str, ...], weights: Array) -> dict[str, Array]:
    """Normalizes modality weights to sum 1, as auxiliary outputs for the report.

    Example:
        >>> import jax.numpy as jnp
        >>> import mmfusion_jax as mmf
        >>> gate = jnp.array([[1.0, 3.0]])
        >>> aux = mmf.models.weights_by_modality(("audio", "text"), gate)
        >>> {name: weights.tolist() for name, weights in aux.items()}
        {'weight/audio': [0.25], 'weight/text': [0.75]}

    Args:
        order: Names of the modalities.
        weights: (b m), at least 0.

    Returns:
        "weight/<modality>" (b); all 0 if all weights are 0.
    """
    total = jnp.sum(weights, axis=1, keepdims=True)
    # An example without any modality has only zeros; 0 / 0 would be NaN.
    parts = weights / jnp.where(total > 0, total, 1)
    return {f"{WEIGHT_PREFIX}{m}": parts[:, i] for i, m in enumerate(order)}


def check_widths(streams: Streams) -> None:
    """Raises ConfigError unless all streams have the same token width."""
    widths = {name: tokens.values.shape[-1] for name, tokens in streams.items()}
    if len(set(widths.values())) > 1:
        raise ConfigError(
            "C28",
            f"encoder output dims differ: {shown(widths)}.",
            "use the same hidden_dim for all of config.model.encoders",
        )


def check_choices(model: nn.Module, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Raises ConfigError if an attribute of `model` is not one of its choices."""
    for name, values in choices.items():
        if (value := getattr(model, name)) not in values:
            raise ConfigError(
                "C03",
                f"config.model.{shown_name(name)}={shown(value)} is unknown.",
                suggest(value, values),
            )


def ordered(
    order: tuple[str, ...], encoders: Mapping[str, nn.Module]
) -> tuple[str, ...]:
    """Returns `order`, or the modalities sorted by name if it is empty.

    Raises:
        ConfigError: `order` does not match the encoders.
    """
    if order and sorted(order) != sorted(encoders):
        raise ConfigError(
            "C22",
            f"config.model.modality_order={shown(order)} does not match the encoders "
            f"{join_names(sorted(encoders))}.",
        )
    return order or tuple(sorted(encoders))
