"""Random crops, flips and illumination of video frames."""

import dataclasses

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.media.resize import resize
from mmfusion_jax.data.preprocessing import PixelStandardizer
from mmfusion_jax.option_types import Fraction

RATIO = (3 / 4, 4 / 3)

_TRIES = 10


@dataclasses.dataclass(frozen=True)
class CropAndFlip:
    """Random resized crop, flip and illumination of the pixels of an example.

    Attributes:
        scale: Minimum and maximum fraction of the area to keep; a draw above 1 keeps
            the full image.
        flip: Probability of a flip.
        per_frame: Draw for every frame independently instead of once per clip.
        illumination: Pixels are multiplied by 1 - illumination .. 1 + illumination.

    Reference:
        CFN-SR, released code; illumination: OF-CMAER-CAT, Sec. 4.1.
    Deviation:
        The code draws for every frame independently, so the image jumps; the default
        here is one draw per clip. OF-CMAER-CAT gives no range of the illumination.
    """

    scale: tuple[float, float] = (0.8, 1.4)
    flip: Fraction = 0.5
    per_frame: bool = False
    illumination: Fraction = 0.0

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
    ) -> tuple[tuple[int, int, int, int], bool, float]:
        """Draws a crop box, whether to flip, and the factor of the pixels."""
        box = crop_box(rng, height, width, self.scale)
        flip = bool(rng.random() < self.flip)
        # Without illumination nothing is drawn, as in the released code of CFN-SR.
        light = rng.uniform(-1, 1) * self.illumination if self.illumination else 0.0
        return box, flip, 1 + light


@dataclasses.dataclass(frozen=True)
class OnPixels:
    """Augments frames that are standardized, as pixels 0..255.

    Attributes:
        augment: Augments "video", (t h w c) uint8.
        pixels: What standardized the frames, and does so again.
    """

    augment: CropAndFlip
    pixels: PixelStandardizer

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments "video", (t h w c) float32; passes everything else through."""
        inputs, mask = example["inputs"], example["masks"]["video"]
        raw = {**inputs, "video": self.pixels.inverse(inputs["video"])}
        augmented = self.augment({**example, "inputs": raw}, rng)
        video = self.pixels(augmented["inputs"]["video"])
        # Padding stays 0.
        video = np.where(mask[:, None, None, None], video, 0).astype(np.float32)
        return {**example, "inputs": {**inputs, "video": video}}


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
    frame: np.ndarray, params: tuple[tuple[int, int, int, int], bool, float]
) -> np.ndarray:
    """Crops a frame, resizes it to its original size, flips and scales its pixels."""
    (top, left, height, width), flip, light = params
    part = frame[top : top + height, left : left + width]
    if part.shape != frame.shape:
        part = resize(part, len(frame))
    if light != 1:
        part = np.clip(np.round(part * light), 0, 255).astype(np.uint8)
    return part[:, ::-1] if flip else part
