"""Random changes of pictures: crop, flip, colours."""

import dataclasses

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import crop_box
from mmfusion_jax.data.augment.interpolate import interpolate_at
from mmfusion_jax.data.dataset import Example
from mmfusion_jax.errors import ConfigError

LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class RandomImage:
    """Crops, flips and colours the pictures of an example, all of them alike.

    Attributes:
        modality: (t h w c) pixels, unsigned integers 0..255, or floats 0..1.
        crop: least and greatest share of the area to keep; the part, of a ratio of
            width to height within 3/4..4/3 of the picture's, is brought back to the
            size of the picture. (1, 1) crops nothing.
        flip: chance of a horizontal flip; 0 where left and right tell something, as
            in digits.
        brightness: pixels are multiplied by 1 - brightness .. 1 + brightness.
        contrast: the distance from the mean grey is, by 1 - contrast .. 1 + contrast.
        saturation: the distance from the pixel's own grey is; three channels only.

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: random crop, horizontal flip, colour jitter.
    Deviation:
        The paper gives no ranges: the defaults are ours.
    """

    modality: str
    crop: tuple[float, ...] = (0.8, 1.0)
    flip: float = 0.5
    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2

    def __post_init__(self):
        low, high = self.crop
        shares = self.flip, self.brightness, self.contrast, self.saturation
        if not (0 < low <= high <= 1 and all(0 <= x <= 1 for x in shares)):
            raise ConfigError(
                "C10",
                f"config.data.augmentations.{self.modality}: crop={self.crop} or a "
                f"chance or strength of {shares} is out of range.",
                "0 < crop[0] <= crop[1] <= 1; all others 0..1",
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the modality, unless it is missing; everything else passes."""
        pixels = example["inputs"][self.modality]
        if not example["masks"][self.modality].any():
            return example
        top = 255.0 if np.issubdtype(pixels.dtype, np.integer) else 1.0
        x = pixels.astype(np.float32) / top
        if self.crop[0] < 1:
            share = self.crop[0], self.crop[1]
            x = resample(x, *crop_box(rng, x.shape[1], x.shape[2], share))
        if rng.random() < self.flip:
            x = x[:, :, ::-1]
        x = np.clip(self._coloured(x, rng), 0, 1) * top
        if top > 1:
            x = np.round(x)
        inputs = {**example["inputs"], self.modality: x.astype(pixels.dtype)}
        return {**example, "inputs": inputs}

    def _coloured(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Brightness, contrast and saturation, in this order."""
        around = lambda strength: 1 + strength * rng.uniform(-1, 1)
        x = x * np.float32(around(self.brightness))
        middle = np.mean(_grayscale(x), dtype=np.float32)
        x = middle + (x - middle) * np.float32(around(self.contrast))
        factor = np.float32(around(self.saturation))
        if x.shape[-1] != 3:
            return x
        grey = _grayscale(x)
        return grey + (x - grey) * factor


def resample(x: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """A part of pictures (t h w c), brought back to their size, bilinearly."""
    part = x[:, top : top + height, left : left + width]
    for axis in (1, 2):
        places = np.arange(x.shape[axis]) + 0.5
        places = places * part.shape[axis] / x.shape[axis] - 0.5
        part = interpolate_at(part, places, axis)
    return part


def _grayscale(x: np.ndarray) -> np.ndarray:
    """The brightness of every pixel, (t h w 1)."""
    if x.shape[-1] != 3:
        return np.mean(x, axis=-1, keepdims=True)
    return (x @ LUMA_WEIGHTS)[..., None]
