"""What every model starts and ends with: encoders, and one vector per modality."""

from collections.abc import Mapping

import flax.linen as nn

from mmfusion_jax.errors import ConfigError
from mmfusion_jax.layers.linear import linear
from mmfusion_jax.layers.readout import flat, mean
from mmfusion_jax.types import Array, Batch, Streams, Tokens

FLAT = ("audio",)
"""Modalities whose tokens a head sees side by side; it sees the mean of the others."""


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
        name: encoder(batch.inputs[name], batch.real(name), train=train)
        for name, encoder in encoders.items()
    }


def vector(streams: Streams, name: str, dropout: float, *, train: bool) -> Array:
    """What a head sees of one modality, (b d), or (b d*n) with dropout if flattened.

    Reading:
        CFN-SR, Eq. 3 flattens audio and Sec. 2.2 pools video; that only the flattened
        vector is dropped out is the released code's.
    """
    if name not in FLAT:
        return mean(streams[name])
    return nn.Dropout(dropout, deterministic=not train)(flat(streams[name]))


def head(x: Array, features: int, name: str = "head") -> Array:
    """A last linear layer, in float32 whatever the encoders computed in."""
    return linear(x.shape[-1], features, name=name)(x)
