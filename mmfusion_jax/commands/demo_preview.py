"""What can be shown of an input: images, a heat map of features, or words."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FRAMES = 6
"""Maximum number of frames that are shown."""


@dataclass(frozen=True)
class Preview:
    """What is shown of one modality.

    Attributes:
        name: The modality.
        images: PNG images as data URIs.
        text: A line of text.
    """

    name: str
    images: list[str]
    text: str = ""


def preview(
    modality: str, values: np.ndarray, mask: np.ndarray, words: Sequence[str]
) -> Preview | None:
    """Returns what can be shown of an input; None if it is missing.

    Args:
        modality: Its name.
        values: (t h w c) frames, (t f) features or (t) ids; scaled.
        mask: (t) bool, valid steps.
        words: Vocabulary of the ids; () if it is unknown.
    """
    valid = np.asarray(values)[np.asarray(mask, bool)]
    if not len(valid):
        return None
    steps = f"{len(valid)} steps"
    if valid.ndim == 4 and valid.shape[-1] in (1, 3):
        chosen = np.unique(np.linspace(0, len(valid) - 1, FRAMES).astype(int))
        low, high = float(valid.min()), float(valid.max())
        images = [_png(frame, low, high) for frame in valid[chosen]]
        return Preview(modality, images, steps if len(valid) > 1 else "")
    if valid.ndim == 2 and np.issubdtype(valid.dtype, np.floating):
        # Features have different units: each row has its own scale.
        low, high = valid.min(axis=0), valid.max(axis=0)
        scaled = (valid - low) / np.maximum(high - low, 1e-9)
        heat = scaled.T[::-1, :, None]
        return Preview(modality, [_png(heat, 0.0, 1.0)], f"{steps}, feature by feature")
    if valid.ndim == 1 and len(words) and np.issubdtype(valid.dtype, np.integer):
        known = [str(words[i]) for i in valid.tolist() if 0 <= i < len(words)]
        return Preview(modality, [], " ".join(known))
    return Preview(modality, [], steps)


def _png(frame: np.ndarray, low: float, high: float) -> str:
    """Returns an image (h w c) as a data URI."""
    from PIL import Image

    scaled = (frame.astype(np.float32) - low) / max(high - low, 1e-9)
    pixels = (255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
