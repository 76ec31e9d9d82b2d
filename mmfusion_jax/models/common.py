"""What every model starts and ends with: encoders, and one vector per modality."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from mmfusion_jax.errors import ConfigError, suggest
from mmfusion_jax.layers.linear import torch_dense
from mmfusion_jax.layers.pooling import flatten, mean, mean_std
from mmfusion_jax.layers.transformer import layer_norm
from mmfusion_jax.ops.masking import zero_masked
from mmfusion_jax.types import WEIGHT_PREFIX, Array, Batch, Streams, Tokens

POOLINGS = {"flat": flatten, "mean": mean, "moments": mean_std}
"""What a head may see of audio; of every other modality it sees the mean."""


def encode(
    encoders: Mapping[str, nn.Module], batch: Batch, *, train: bool
) -> dict[str, Tokens]:
    """Encodes every modality that has an encoder; rows that only fill up are masked.

    Raises:
        ConfigError: if an encoder's modality is not in the batch.
    """
    if missing := encoders.keys() - batch.inputs.keys():
        raise ConfigError(
            "C22",
            f"encoders are given for {sorted(missing)}, but the data has "
            f"{sorted(batch.inputs)}.",
        )
    return {
        name: encoder(batch.inputs[name], batch.valid_mask(name), train=train)
        for name, encoder in encoders.items()
    }


def pool_modality(
    streams: Streams, name: str, dropout: float, pooling: str = "flat", *, train: bool
) -> Array:
    """What a head sees of one modality, (b d); of audio what `pooling` says, dropped.

    Args:
        streams: encoded modalities.
        name: one of them.
        dropout: on the vector of audio.
        pooling: of audio: "flat" (b d*n), "mean" (b d), or "moments" (b 2d), mean and
            deviation over time, which no longer tell when something was heard.
        train: drop out.

    Raises:
        ConfigError: if the readout is unknown.

    Deviation:
        CFN-SR, Eq. 3 flattens audio and Sec. 2.2 pools video; that only the flattened
        vector is dropped out is the released code's.
    """
    if pooling not in POOLINGS:
        raise ConfigError(
            "C03", f"audio_readout={pooling!r} is unknown.", suggest(pooling, POOLINGS)
        )
    if name != "audio":
        return mean(streams[name])
    x = POOLINGS[pooling](streams[name])
    return nn.Dropout(dropout, deterministic=not train)(x)


def project_modality(
    x: Array, present: Array, width: int, name: str, dtype: Any = None
) -> Array:
    """Vectors of any width in the space that all modalities share.

        f_m = LN(W_m x_m + b_m)

    Parameters: `align_<name>`, `align_<name>_norm`.

    Args:
        x: (b e).
        present: (b) bool.
        width: d.
        name: of the modality.
        dtype: type of the computation; None keeps that of the input.

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
    """A last linear layer, in float32 whatever the encoders computed in.

    Args:
        x: (b d).
        features: number of outputs, k.
        name: of the layer.
        kernel_init: see `linear`.
        bias_init: added to a score, so that training begins about there.

    Returns:
        Logits (b k), or a score (b) where `features` is 1.
    """
    y = torch_dense(x.shape[-1], features, kernel_init=kernel_init, name=name)(x)
    return y[..., 0] + bias_init if features == 1 else y


def weights_by_modality(order: tuple[str, ...], weights: Array) -> dict[str, Array]:
    """What every modality counts for, as a share of all, to be looked at.

    Args:
        order: the modalities.
        weights: (b m), 0 or more.

    Returns:
        "share/<modality>" (b); all 0 where nothing has a weight.
    """
    total = jnp.sum(weights, axis=1, keepdims=True)
    parts = weights / jnp.where(total > 0, total, 1)
    return {f"{WEIGHT_PREFIX}{m}": parts[:, i] for i, m in enumerate(order)}


def check_widths(streams: Streams) -> None:
    """Raises ConfigError unless all streams have tokens of one width."""
    widths = {name: tokens.values.shape[-1] for name, tokens in streams.items()}
    if len(set(widths.values())) > 1:
        raise ConfigError(
            "C28",
            f"the encoders make tokens of different widths: {widths}.",
            "give all of config.model.encoders the same width",
        )


def check_choices(model: nn.Module, known: Mapping[str, tuple[str, ...]]) -> None:
    """Raises ConfigError if an attribute of `model` is none of its known words."""
    for name, words in known.items():
        if (value := getattr(model, name)) not in words:
            raise ConfigError(
                "C03", f"{name}={value!r} is unknown.", suggest(value, words)
            )


def ordered(
    order: tuple[str, ...], encoders: Mapping[str, nn.Module]
) -> tuple[str, ...]:
    """The modalities in `order`, by name where it is empty.

    Raises:
        ConfigError: if it is not that of the encoders.
    """
    if order and sorted(order) != sorted(encoders):
        raise ConfigError(
            "C22", f"order={order} is not that of the encoders {sorted(encoders)}."
        )
    return order or tuple(sorted(encoders))
