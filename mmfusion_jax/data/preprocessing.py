"""Scaling, padding, noise and filters for NumPy arrays."""

import dataclasses
from collections.abc import Iterable

import numpy as np

from mmfusion_jax.results.predictor_file import Scaling


@dataclasses.dataclass(frozen=True)
class RunningMoments:
    """Sums that give mean and standard deviation; those of several parts add up.

    Attributes:
        count: Number of rows.
        total: (f) sum of the rows, float64.
        square: (f) sum of their squares, float64.
    """

    count: int
    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> "RunningMoments":
        """Returns the moments of (n f) rows."""
        # float64, because the variance is a difference of large sums.
        rows = np.asarray(rows, np.float64)
        return cls(len(rows), rows.sum(axis=0), np.square(rows).sum(axis=0))

    def __add__(self, other: "RunningMoments") -> "RunningMoments":
        """Returns the moments of the rows of both."""
        total, square = self.total + other.total, self.square + other.square
        return RunningMoments(self.count + other.count, total, square)

    def constant(self) -> np.ndarray:
        """Returns which features are constant, (f) bool."""
        mean, square = self.total / self.count, self.square / self.count
        # Rounding leaves a constant feature a variance of about 1e-16 of its square.
        return square - mean**2 <= 1e-10 * np.maximum(square, 1e-30)


@dataclasses.dataclass(frozen=True)
class Standardizer:
    """Scales every feature to zero mean and unit variance.

    Attributes:
        mean: (f) mean of the training split.
        std: (f) standard deviation of the training split; 1 for constant features.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, parts: Iterable[RunningMoments]) -> "Standardizer":
        """Fits all the rows of `parts`, of which there must be at least one."""
        parts = [part for part in parts if part.count]
        moments = sum(parts[1:], start=parts[0])
        mean, square = moments.total / moments.count, moments.square / moments.count
        std = np.sqrt(np.where(moments.constant(), 1.0, square - mean**2))
        return cls(mean.astype(np.float32), std.astype(np.float32))

    @property
    def scaling(self) -> Scaling:
        """The parameters, as a file stores them."""
        return Scaling("standardize", _floats(self.mean), _floats(self.std))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Standardizes (n f) rows to float32."""
        return ((rows - self.mean) / self.std).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class MinMaxScaler:
    """Scales every feature so that the training split is in 0..1.

    Values of other splits can be outside.

    Attributes:
        low: (f) minimum of the training split.
        high: (f) maximum of the training split.

    Reference:
        OF-CMAER-CAT, Sec. 4.1.
    """

    low: np.ndarray
    high: np.ndarray

    @property
    def scaling(self) -> Scaling:
        """The parameters, as a file stores them."""
        return Scaling("min_max", _floats(self.low), _floats(self.high))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Scales (n f) rows to float32; constant features are 0."""
        width = self.high - self.low
        constant = width <= 0
        scaled = (rows - self.low) / np.where(constant, 1, width)
        return np.where(constant, 0, scaled).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class PixelStandardizer:
    """Scales the pixels of every channel to zero mean and unit variance.

    Attributes:
        standardizer: Mean and standard deviation of the channels in 0..1, (c).

    Reference:
        OF-CMAER-CAT, Sec. 4.1.
    Deviation:
        The paper does not say over which pixels: those of the training split are
        ours. Statistics of each clip would undo changes of the illumination.
    """

    standardizer: Standardizer

    @property
    def scaling(self) -> Scaling:
        """The parameters, as a file stores them."""
        one = self.standardizer
        return Scaling("standardize_pixels", _floats(one.mean), _floats(one.std))

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Scales (t h w c) uint8 pixels to float32."""
        return self.standardizer(pixels.astype(np.float32) / 255)

    def inverse(self, scaled: np.ndarray) -> np.ndarray:
        """Returns the (t h w c) uint8 pixels of scaled ones."""
        pixels = scaled * self.standardizer.std + self.standardizer.mean
        return np.clip(np.round(pixels * 255), 0, 255).astype(np.uint8)


def scaler_of(scaling: Scaling) -> Standardizer | MinMaxScaler | PixelStandardizer:
    """Returns what scales the values of a modality, from the stored parameters."""
    a, b = np.array(scaling.a), np.array(scaling.b)
    if scaling.kind == "min_max":
        return MinMaxScaler(a, b)
    # The statistics were float32 before they were stored.
    standardizer = Standardizer(a.astype(np.float32), b.astype(np.float32))
    if scaling.kind == "standardize_pixels":
        return PixelStandardizer(standardizer)
    return standardizer


def _floats(values: np.ndarray) -> list[float]:
    return np.asarray(values, np.float64).reshape(-1).tolist()


def pre_emphasize(waveform: np.ndarray, coefficient: float) -> np.ndarray:
    """Amplifies high frequencies: y_n = x_n - coefficient x_(n-1), with x_(-1) = 0.

    Args:
        waveform: (n) float.
        coefficient: 0..1; 0 changes nothing.

    Returns:
        (n) float32.

    Reference:
        OF-CMAER-CAT, Sec. 4.1.
    """
    before = np.concatenate([np.zeros(1, waveform.dtype), waveform[:-1]])
    return (waveform - coefficient * before).astype(np.float32)


def normalize_peak(waveform: np.ndarray) -> np.ndarray:
    """Scales a waveform (n) to a maximum of |x| = 1; silence stays silent."""
    peak = np.max(np.abs(waveform), initial=0.0)
    return (waveform / (peak if peak > 0 else 1)).astype(np.float32)


def pad_or_truncate(rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Truncates (t ...) rows or pads them with zeros, and returns their mask.

    Returns:
        The rows, (length ...), and their mask, (length) bool.
    """
    rows = rows[:length]
    mask = np.arange(length) < len(rows)
    if len(rows) == length:
        return rows, mask
    padded = np.zeros((length, *rows.shape[1:]), rows.dtype)
    padded[: len(rows)] = rows
    return padded, mask


def add_white_noise(
    waveform: np.ndarray, snr_db: float, rng: np.random.Generator
) -> np.ndarray:
    """Adds white noise.

    Args:
        waveform: (n) float.
        snr_db: Signal-to-noise ratio in dB.
        rng: Generator of the noise.

    Returns:
        (n) float32; silence stays silent.
    """
    power = np.mean(np.square(waveform, dtype=np.float64))
    scale = np.sqrt(power / 10 ** (snr_db / 10))
    return (waveform + scale * rng.standard_normal(len(waveform))).astype(np.float32)
