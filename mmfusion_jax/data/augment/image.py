"""Random image augmentation: crop, flip, color jitter."""

import dataclasses
from typing import Annotated, TypeAlias

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import crop_box
from mmfusion_jax.data.augment.interpolate import interpolate_at
from mmfusion_jax.data.dataset import Example
from mmfusion_jax.errors import ConfigError, shown, shown_name
from mmfusion_jax.option_types import Fraction, Increasing, Range

ShareOfSide: TypeAlias = Annotated[float, Range(0, 1, exclusive=True)]


LUMA_WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)


@dataclasses.dataclass(frozen=True)
class RandomImage:
    """Crops, flips and color-jitters the images of an example, all in the same way.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> example = {
        ...     "inputs": {"image": np.ones((8, 8, 3), np.uint8)},
        ...     "masks": {"image": np.ones(8, bool)},
        ... }
        >>> augment = mmf.data.RandomImage("image")
        >>> augment(example, np.random.default_rng(0))["inputs"]["image"].shape
        (8, 8, 3)

    Attributes:
        modality: Name of the modality, (t h w c) pixels, unsigned integers 0..255, or
            floats 0..1.
        crop: Minimum and maximum fraction of the area to keep; the crop, with an aspect
            ratio within 3/4..4/3 of the image's, is resized to the size of the image.
            (1, 1) does not crop.
        flip: Probability of a horizontal flip; 0 if left and right differ in meaning,
            as in digits.
        brightness: Pixels are multiplied by 1 - brightness .. 1 + brightness.
        contrast: Differences from the mean luma are multiplied by 1 - contrast .. 1 +
            contrast.
        saturation: Differences from the luma of the pixel are multiplied by 1 -
            saturation .. 1 + saturation; three channels only.

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: random crop, horizontal flip, color jitter.
    Deviation:
        The paper gives no ranges for the defaults.
    """

    modality: str
    crop: Annotated[tuple[ShareOfSide, ShareOfSide], Increasing()] = (0.8, 1.0)
    flip: Fraction = 0.5
    brightness: Fraction = 0.2
    contrast: Fraction = 0.2
    saturation: Fraction = 0.2

    def __post_init__(self):
        low, high = self.crop
        names = "flip", "brightness", "contrast", "saturation"
        values = {name: getattr(self, name) for name in names}
        if not (0 < low <= high <= 1 and all(0 <= x <= 1 for x in values.values())):
            listed = ", ".join(f"{name}={value}" for name, value in values.items())
            raise ConfigError(
                "C10",
                f"config.data.augmentations.{shown_name(self.modality)}: out of range: "
                f"crop={shown(self.crop)}, {listed}.",
                "0 < crop[0] <= crop[1] <= 1; all others 0..1",
            )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the modality if present; passes everything else through.

        Raises:
            ConfigError: Float pixels are outside 0..1, such as standardized ones.
        """
        pixels, mask = (example[k][self.modality] for k in ("inputs", "masks"))
        if not mask.any():
            return example
        top = 255.0 if np.issubdtype(pixels.dtype, np.integer) else 1.0
        if top == 1 and (pixels.min() < 0 or pixels.max() > 1):
            raise ConfigError(
                "C10",
                f"config.data.augmentations.{shown_name(self.modality)}: the pixels "
                f"are {float(pixels.min()):.2f}..{float(pixels.max()):.2f}, not 0..1.",
                "augment before standardizing: the dataset clips has augment=True and "
                "illumination",
            )
        x = pixels.astype(np.float32) / top
        if self.crop[0] < 1:
            scale = self.crop[0], self.crop[1]
            x = resample(x, *crop_box(rng, x.shape[1], x.shape[2], scale))
        if rng.random() < self.flip:
            x = x[:, :, ::-1]
        # Clipped before the conversion: beyond 255 integers would start again at 0.
        x = np.clip(self._jitter(x, mask, rng), 0, 1) * top
        if top > 1:
            x = np.round(x)
        inputs = {**example["inputs"], self.modality: x.astype(pixels.dtype)}
        return {**example, "inputs": inputs}

    def _jitter(
        self, x: np.ndarray, mask: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Changes brightness, contrast and saturation, in this order."""
        draw = lambda strength: np.float32(1 + strength * rng.uniform(-1, 1))
        x = x * draw(self.brightness)
        mean = np.mean(_luma(x[mask]), dtype=np.float32)
        x = mean + (x - mean) * draw(self.contrast)
        factor = draw(self.saturation)
        if x.shape[-1] != 3:
            return x
        luma = _luma(x)
        return luma + (x - luma) * factor


def resample(x: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Crops images (t h w c) and resizes them to their size, bilinearly."""
    part = x[:, top : top + height, left : left + width]
    for axis in (1, 2):
        positions = np.arange(x.shape[axis]) + 0.5
        positions = positions * part.shape[axis] / x.shape[axis] - 0.5
        part = interpolate_at(part, positions, axis)
    return part


def _luma(x: np.ndarray) -> np.ndarray:
    """Returns the luma of every pixel, (t h w 1)."""
    if x.shape[-1] != 3:
        return np.mean(x, axis=-1, keepdims=True)
    return (x @ LUMA_WEIGHTS)[..., None]
