"""Reads pretrained weights and maps parameter names."""

from collections.abc import Mapping

from mmfusion_jax.errors import shown, shown_name

WEIGHT_MAPPINGS = {
    "bert": "mmfusion_jax.weights.bert:BERT",
    "r3d": "mmfusion_jax.weights.r3d:R3D",
    "resnet": "mmfusion_jax.weights.resnet:RESNET",
    "vit": "mmfusion_jax.weights.vit:VIT",
    "wav2vec2": "mmfusion_jax.weights.wav2vec2:WAV2VEC2",
}
"""Encoder name, a key of `ENCODERS` -> import path of its `WeightMapping`."""


def random_init_notices(
    encoders: Mapping[str, str], files: Mapping[str, str]
) -> list[str]:
    """Returns notices about encoders that could be pretrained but are not.

    Args:
        encoders: Modality -> name in `ENCODERS`.
        files: Modality -> weights file; "" or absent for none.

    Returns:
        One notice for each such modality.
    """
    return [
        f"{shown_name(modality)}: encoder {shown(name)} is randomly initialized: "
        "no weights file given"
        for modality, name in sorted(encoders.items())
        if name in WEIGHT_MAPPINGS and not files.get(modality)
    ]
