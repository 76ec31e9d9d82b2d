"""Reads pretrained weights and maps parameter names."""

from typing import TYPE_CHECKING

from mmfusion_jax.errors import WeightsError, shown, shown_name
from mmfusion_jax.lazy import attach, by_name

WEIGHT_MAPPINGS = {
    "bert": "mmfusion_jax.weights.bert:BERT",
    "r3d": "mmfusion_jax.weights.r3d:R3D",
    "resnet": "mmfusion_jax.weights.resnet:RESNET",
    "vit": "mmfusion_jax.weights.vit:VIT",
    "wav2vec2": "mmfusion_jax.weights.wav2vec2:WAV2VEC2",
}
"""Encoder name, a key of `ENCODERS` -> import path of its `WeightMapping`."""

PUBLIC = by_name(
    (
        "mmfusion_jax.weights.convert:NameRule",
        "mmfusion_jax.weights.convert:WeightMapping",
        "mmfusion_jax.weights.convert:affine",
        "mmfusion_jax.weights.convert:batch_norm",
        "mmfusion_jax.weights.convert:norm",
    )
)
"""Public name -> import path."""

RANDOM = "random"
"""Value of `config.model.encoders.X.weights` that asks for random weights."""

REQUIRED = "required"
"""Value of `config.model.encoders.X.weights` that a config must replace by a file, or
by `RANDOM`."""


def missing_weights(modality: str, encoder: str, export: str) -> WeightsError:
    """Returns the error for an encoder whose weights file is required.

    Args:
        modality: Its modality.
        encoder: Its name in `ENCODERS`.
        export: Shell command that writes such a file.
    """
    where = f"config.model.encoders.{shown_name(modality)}.weights"
    return WeightsError(
        "W01",
        f"{where} is required: a file with weights of encoder {shown(encoder)}.",
        f"--{where}=FILE, or --{where}={RANDOM} for random weights; {export}",
    )


if TYPE_CHECKING:
    from mmfusion_jax.weights.convert import NameRule as NameRule
    from mmfusion_jax.weights.convert import WeightMapping as WeightMapping
    from mmfusion_jax.weights.convert import affine as affine
    from mmfusion_jax.weights.convert import batch_norm as batch_norm
    from mmfusion_jax.weights.convert import norm as norm
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
