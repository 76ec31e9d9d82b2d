"""What is done to arrays between the disk and the batch, in NumPy."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.frames import resize

RATIO = (3 / 4, 4 / 3)
_TRIES = 10


@dataclasses.dataclass(frozen=True)
class Moments:
    """Sums from which mean and spread of any choice of examples follow.

    Attributes:
        count: rows summed.
        total: (f) their sum, float64.
        square: (f) the sum of their squares, float64.
    """

    count: int
    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> "Moments":
        """The moments of (n f) rows."""
        rows = np.asarray(rows, np.float64)
        return cls(len(rows), rows.sum(axis=0), np.square(rows).sum(axis=0))

    def __add__(self, other: "Moments") -> "Moments":
        """Those of the rows behind both."""
        total, square = self.total + other.total, self.square + other.square
        return Moments(self.count + other.count, total, square)

    def constant(self) -> np.ndarray:
        """Which features never change, (f) bool."""
        mean, square = self.total / self.count, self.square / self.count
        # Rounding leaves a constant feature a variance of about 1e-16 of its square.
        return square - mean**2 <= 1e-10 * np.maximum(square, 1e-30)


@dataclasses.dataclass(frozen=True)
class Standard:
    """Brings every feature to mean 0 and deviation 1.

    Attributes:
        mean: (f) of the training split.
        deviation: (f) of the training split; 1 where a feature never changes.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[Moments]) -> "Standard":
        """The standard of all the rows behind `parts`; there must be at least one."""
        parts = [part for part in parts if part.count]
        whole = sum(parts[1:], start=parts[0])
        mean, square = whole.total / whole.count, whole.square / whole.count
        deviation = np.sqrt(np.where(whole.constant(), 1.0, square - mean**2))
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n f) float32."""
        return ((rows - self.mean) / self.deviation).astype(np.float32)


def padded(rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts or fills up (t ...) rows with zeros, and says which rows are real.

    Returns:
        The rows, (length ...), and their mask, (length) bool.
    """
    rows = rows[:length]
    mask = np.arange(length) < len(rows)
    if len(rows) == length:
        return rows, mask
    filled = np.zeros((length, *rows.shape[1:]), rows.dtype)
    filled[: len(rows)] = rows
    return filled, mask


def with_noise(
    waveform: np.ndarray, snr_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Adds white noise.

    Args:
        waveform: (n) float.
        snr_db: the clip's mean power over that of the noise, in dB.
        rng: draws the noise.

    Returns:
        (n) float32; silence stays silent.
    """
    power = np.mean(np.square(waveform, dtype=np.float64))
    scale = np.sqrt(power / 10 ** (snr_db / 10))
    return (waveform + scale * rng.standard_normal(len(waveform))).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class CropAndFlip:
    """Random resized crop and horizontal flip of the pixels of an example.

    Attributes:
        scale: least and greatest share of the area to keep; one above 1 cannot be
            had, and such a draw keeps the whole picture.
        flip: probability of a flip.
        per_frame: draw anew for every frame instead of once for a clip.

    Source:
        CFN-SR, released code.
    Reading:
        The code draws for every frame by itself, so the picture jumps; one draw for a
        clip is the default here.
    """

    scale: tuple[float, float] = (0.8, 1.4)
    flip: float = 0.5
    per_frame: bool = False

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes "video", (t s s c) uint8; everything else passes through."""
        video = example["inputs"]["video"]
        if not example["masks"]["video"].any():
            return example
        draws = len(video) if self.per_frame else 1
        plans = [self._draw(rng, *video.shape[1:3]) for _ in range(draws)]
        plans *= len(video) // draws
        frames = [_apply(*pair) for pair in zip(video, plans, strict=True)]
        inputs = {**example["inputs"], "video": np.stack(frames)}
        return {**example, "inputs": inputs}

    def _draw(
        self, rng: np.random.Generator, height: int, width: int
    ) -> tuple[tuple[int, int, int, int], bool]:
        """A box and whether to flip."""
        box = crop_box(rng, height, width, self.scale)
        return box, bool(rng.random() < self.flip)


def crop_box(
    rng: np.random.Generator, height: int, width: int, scale: tuple[float, float]
) -> tuple[int, int, int, int]:
    """A random part of a picture: top, left, height, width.

    Ten draws of an area within `scale` and a ratio of width to height within 3/4..4/3
    are tried; the whole picture if none of them fits into it.
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
    frame: np.ndarray, plan: tuple[tuple[int, int, int, int], bool]
) -> np.ndarray:
    """One frame, cropped, brought back to its size and perhaps flipped."""
    (top, left, height, width), flip = plan
    part = frame[top : top + height, left : left + width]
    if part.shape != frame.shape:
        part = resize(part, len(frame))
    return part[:, ::-1] if flip else part
