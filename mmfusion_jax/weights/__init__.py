"""Pretrained weights: files, and whose names are whose."""

from collections.abc import Mapping

WEIGHT_MAPPINGS = {
    "bert": "mmfusion_jax.weights.bert:BERT",
    "r3d": "mmfusion_jax.weights.r3d:R3D",
    "resnet": "mmfusion_jax.weights.resnet:RESNET",
    "vit": "mmfusion_jax.weights.vit:VIT",
    "wav2vec2": "mmfusion_jax.weights.wav2vec2:WAV2VEC2",
}
"""Encoders whose weights can be read from a file, by the names of `ENCODERS`."""


def random_init_notices(
    encoders: Mapping[str, str], files: Mapping[str, str]
) -> list[str]:
    """What a run must say: which encoders could be pretrained and are not.

    Args:
        encoders: modality -> name in `ENCODERS`.
        files: modality -> file of weights; "" or absent where none is given.

    Returns:
        One sentence for each such modality.
    """
    return [
        f"{modality}: the encoder {name!r} starts from random values, as no file of "
        f"weights is given."
        for modality, name in sorted(encoders.items())
        if name in WEIGHT_MAPPINGS and not files.get(modality)
    ]
