"""What is done to arrays between the disk and the batch, in NumPy."""

import dataclasses
from collections.abc import Iterable

import numpy as np


@dataclasses.dataclass(frozen=True)
class RunningMoments:
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
    def of(cls, rows: np.ndarray) -> "RunningMoments":
        """The moments of (n f) rows."""
        rows = np.asarray(rows, np.float64)
        return cls(len(rows), rows.sum(axis=0), np.square(rows).sum(axis=0))

    def __add__(self, other: "RunningMoments") -> "RunningMoments":
        """Those of the rows behind both."""
        total, square = self.total + other.total, self.square + other.square
        return RunningMoments(self.count + other.count, total, square)

    def constant(self) -> np.ndarray:
        """Which features never change, (f) bool."""
        mean, square = self.total / self.count, self.square / self.count
        # Rounding leaves a constant feature a variance of about 1e-16 of its square.
        return square - mean**2 <= 1e-10 * np.maximum(square, 1e-30)


@dataclasses.dataclass(frozen=True)
class Standardizer:
    """Brings every feature to mean 0 and deviation 1.

    Attributes:
        mean: (f) of the training split.
        std: (f) of the training split; 1 where a feature never changes.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, parts: Iterable[RunningMoments]) -> "Standardizer":
        """The standard of all the rows behind `parts`; there must be at least one."""
        parts = [part for part in parts if part.count]
        whole = sum(parts[1:], start=parts[0])
        mean, square = whole.total / whole.count, whole.square / whole.count
        deviation = np.sqrt(np.where(whole.constant(), 1.0, square - mean**2))
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(n f) float32."""
        return ((rows - self.mean) / self.std).astype(np.float32)


def pad_or_truncate(rows: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
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


def add_white_noise(
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
