"""Random crops and flips of video frames."""

import dataclasses

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.media.resize import resize
from mmfusion_jax.option_types import Fraction

RATIO = (3 / 4, 4 / 3)

_TRIES = 10


@dataclasses.dataclass(frozen=True)
class CropAndFlip:
    """Random resized crop and horizontal flip of the pixels of an example.

    Attributes:
        scale: Minimum and maximum fraction of the area to keep; a draw above 1 keeps
            the full image.
        flip: Probability of a flip.
        per_frame: Draw for every frame independently instead of once per clip.

    Reference:
        CFN-SR, released code.
    Deviation:
        The code draws for every frame independently, so the image jumps; the default
        here is one draw per clip.
    """

    scale: tuple[float, float] = (0.8, 1.4)
    flip: Fraction = 0.5
    per_frame: bool = False

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments "video", (t s s c) uint8; passes everything else through."""
        video = example["inputs"]["video"]
        if not example["masks"]["video"].any():
            return example
        draws = len(video) if self.per_frame else 1
        params = [self._draw(rng, *video.shape[1:3]) for _ in range(draws)]
        params *= len(video) // draws
        frames = [_apply(*pair) for pair in zip(video, params, strict=True)]
        inputs = {**example["inputs"], "video": np.stack(frames)}
        return {**example, "inputs": inputs}

    def _draw(
        self, rng: np.random.Generator, height: int, width: int
    ) -> tuple[tuple[int, int, int, int], bool]:
        """Draws a crop box and whether to flip."""
        box = crop_box(rng, height, width, self.scale)
        return box, bool(rng.random() < self.flip)


def crop_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """Draws a random crop box: top, left, height, width.

    Tries ten draws of an area within `scale` and an aspect ratio within 3/4..4/3; the
    full image if none of them fits.
    """
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*scale)
        ratio = np.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = rng.integers(0, height - h + 1)
            return int(top), int(rng.integers(0, width - w + 1)), h, w
    return 0, 0, height, width


def _apply(
    frame: np.ndarray, params: tuple[tuple[int, int, int, int], bool]
) -> np.ndarray:
    """Crops a frame, resizes it to its original size, and optionally flips it."""
    (top, left, height, width), flip = params
    part = frame[top : top + height, left : left + width]
    if part.shape != frame.shape:
        part = resize(part, len(frame))
    return part[:, ::-1] if flip else part
