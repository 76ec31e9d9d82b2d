"""Pretrained weights: files, and whose names are whose."""

from collections.abc import Mapping

from mmfusion_jax.weights.bert import BERT
from mmfusion_jax.weights.r3d import R3D
from mmfusion_jax.weights.resnet import RESNET
from mmfusion_jax.weights.vit import VIT
from mmfusion_jax.weights.wav2vec2 import WAV2VEC2

TABLES = {
    "bert": BERT,
    "r3d": R3D,
    "resnet": RESNET,
    "vit": VIT,
    "wav2vec2": WAV2VEC2,
}
"""Encoders whose weights can be read from a file, by the names of `ENCODERS`."""


def random_starts(encoders: Mapping[str, str], files: Mapping[str, str]) -> list[str]:
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
        if name in TABLES and not files.get(modality)
    ]
