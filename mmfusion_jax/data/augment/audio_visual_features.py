"""Random augmentation of MFCC and facial features, for training on few actors."""

import dataclasses
import functools

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.preprocessing import Standardizer
from mmfusion_jax.option_types import Fraction, NonNegativeFloat

BANDS = 40
TOP_HZ = 8000.0


@dataclasses.dataclass(frozen=True)
class RandomFeatures:
    """Simulates another voice and another face.

    Attributes:
        standardizer: Standardizer of the MFCC.
        freq_warp: Frequencies are multiplied by exp(-freq_warp) .. exp(freq_warp), as
            by a longer or shorter vocal tract.
        time_stretch: The speed is multiplied by exp(-time_stretch) ..
            exp(time_stretch).
        shift: Maximum shift in time as a fraction of the clip; the first and the last
            step are repeated.
        mask: Maximum fraction of the steps that is set to the mean, twice.
        noise: Standard deviation of the noise of the audio.
        face_noise: Standard deviation of the noise of the facial features.
        face_scale_std: Facial features are multiplied by exp(N(0, face_scale_std)).

    Reference:
        Frequency warping: Jaitly and Hinton 2013, "Vocal Tract Length Perturbation".
        Time masking: Park et al. 2019, "SpecAugment".
    """

    standardizer: Standardizer
    freq_warp: Fraction = 0.0
    time_stretch: Fraction = 0.0
    shift: Fraction = 0.0
    mask: Fraction = 0.0
    noise: NonNegativeFloat = 0.0
    face_noise: NonNegativeFloat = 0.0
    face_scale_std: NonNegativeFloat = 0.0

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments "audio", (t f), and "video", (t f); passes everything else."""
        audio = self._augment_audio(example["inputs"]["audio"], rng)
        face = example["inputs"]["video"]
        face = face * np.exp(self.face_scale_std * rng.standard_normal())
        face = face + self.face_noise * rng.standard_normal(face.shape)
        inputs = {"audio": audio, "video": face}
        inputs = {name: values.astype(np.float32) for name, values in inputs.items()}
        return {**example, "inputs": {**example["inputs"], **inputs}}

    def _augment_audio(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        steps = len(x)
        # 41 factors are enough, and their matrices are cached.
        factor = np.exp(self.freq_warp * rng.integers(-20, 21) / 20)
        if factor != 1:
            mean, std = self.standardizer.mean, self.standardizer.std
            matrix = warp_matrix(float(factor), x.shape[1])
            x = ((x * std + mean) @ matrix.T - mean) / std
        speed = np.exp(self.time_stretch * rng.uniform(-1, 1))
        center = steps / 2 + self.shift * steps * rng.uniform(-1, 1)
        positions = (np.arange(steps) - steps / 2) * speed + center
        x = x[np.clip(np.round(positions).astype(int), 0, steps - 1)]
        x = x + self.noise * rng.standard_normal(x.shape)
        for _ in range(2):
            width = self.mask * steps * rng.uniform()
            start = rng.uniform(0, steps - width)
            masked = (np.arange(steps) >= start) & (np.arange(steps) < start + width)
            x[masked] = 0
        return x


@functools.cache
def warp_matrix(factor: float, count: int) -> np.ndarray:
    """Returns the effect of frequency warping on cepstral coefficients.

        M = C W C^T,    W interpolates 40 mel bands at the warped frequencies

    Args:
        factor: The energy at f Hz becomes that of factor * f Hz.
        count: Number of coefficients.

    Returns:
        (count, count); the identity for a factor of 1.

    Deviation:
        Higher coefficients, which are not stored, count as 0.
    """
    band, row = np.arange(BANDS), np.arange(count)
    cosines = np.cos(np.pi * row[:, None] * (2 * band + 1) / (2 * BANDS))
    cosines *= np.sqrt(np.where(row == 0, 1, 2) / BANDS)[:, None]
    spacing = _mel(np.array(TOP_HZ)) / (BANDS + 1)
    hertz = 700 * (10 ** (spacing * (band + 1) / 2595) - 1)
    source = _mel(np.minimum(hertz * factor, TOP_HZ)) / spacing - 1
    source = np.clip(source, 0, BANDS - 1)
    # Linear interpolation of the two bands around the source.
    weights = np.maximum(0, 1 - np.abs(source[:, None] - band))
    return cosines @ weights @ cosines.T


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)
