"""Random changes of MFCC and of measurements of a face, for training on few actors."""

import dataclasses
import functools

import numpy as np

from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.preprocessing import Standardizer

BANDS = 40
TOP_HZ = 8000.0


@dataclasses.dataclass(frozen=True)
class RandomFeatures:
    """Makes a training clip sound like another voice and look like another face.

    Attributes:
        standardizer: that brought the MFCC to mean 0 and deviation 1.
        freq_warp: frequencies are stretched by a factor of exp(-warp) .. exp(warp), as
            by a longer or shorter vocal tract.
        time_stretch: time is stretched by exp(-speed) .. exp(speed) around the middle.
        shift: time moves by up to this share of the clip, either way; the first and
            the last step are repeated where nothing was recorded.
        mask: up to this share of the steps is set to the mean, twice.
        noise: deviation of the noise on every value of the sound.
        face_noise: deviation of the noise on every measurement of the face.
        face_scale_std: measurements of the face are scaled by exp(N(0, face_scale)).

    Reference:
        Warping frequencies: Jaitly and Hinton 2013, "Vocal Tract Length Perturbation".
        Masks over time: Park et al. 2019, "SpecAugment".
    """

    standardizer: Standardizer
    freq_warp: float = 0.0
    time_stretch: float = 0.0
    shift: float = 0.0
    mask: float = 0.0
    noise: float = 0.0
    face_noise: float = 0.0
    face_scale_std: float = 0.0

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes "audio", (t f), and "video", (t f); everything else passes."""
        sound = self._sound(example["inputs"]["audio"], rng)
        face = example["inputs"]["video"]
        face = face * np.exp(self.face_scale_std * rng.standard_normal())
        face = face + self.face_noise * rng.standard_normal(face.shape)
        inputs = {"audio": sound, "video": face}
        inputs = {name: values.astype(np.float32) for name, values in inputs.items()}
        return {**example, "inputs": {**example["inputs"], **inputs}}

    def _sound(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        steps = len(x)
        # Twenty factors either way are fine enough, and their matrices are kept.
        factor = np.exp(self.freq_warp * rng.integers(-20, 21) / 20)
        if factor != 1:
            mean, deviation = self.standardizer.mean, self.standardizer.std
            matrix = warp_matrix(float(factor), x.shape[1])
            x = ((x * deviation + mean) @ matrix.T - mean) / deviation
        pace = np.exp(self.time_stretch * rng.uniform(-1, 1))
        middle = steps / 2 + self.shift * steps * rng.uniform(-1, 1)
        places = (np.arange(steps) - steps / 2) * pace + middle
        x = x[np.clip(np.round(places).astype(int), 0, steps - 1)]
        x = x + self.noise * rng.standard_normal(x.shape)
        for _ in range(2):
            width = self.mask * steps * rng.uniform()
            start = rng.uniform(0, steps - width)
            hit = (np.arange(steps) >= start) & (np.arange(steps) < start + width)
            x[hit] = 0
        return x


@functools.cache
def warp_matrix(factor: float, count: int) -> np.ndarray:
    """What stretching all frequencies by 1 / factor does to cepstral coefficients.

        M = C W C^T,    W moves each of 40 mel bands to where its sound was before

    Args:
        factor: the energy at f Hz becomes that of factor * f Hz.
        count: number of coefficients.

    Returns:
        (count, count); the identity for a factor of 1.

    Deviation:
        The higher coefficients, which were not kept, count as 0.
    """
    band, row = np.arange(BANDS), np.arange(count)
    cosines = np.cos(np.pi * row[:, None] * (2 * band + 1) / (2 * BANDS))
    cosines *= np.sqrt(np.where(row == 0, 1, 2) / BANDS)[:, None]
    spacing = _mel(np.array(TOP_HZ)) / (BANDS + 1)
    hertz = 700 * (10 ** (spacing * (band + 1) / 2595) - 1)
    source = _mel(np.minimum(hertz * factor, TOP_HZ)) / spacing - 1
    source = np.clip(source, 0, BANDS - 1)
    # Linear interpolation: a band takes from the two that lie around its source.
    weights = np.maximum(0, 1 - np.abs(source[:, None] - band))
    return cosines @ weights @ cosines.T


def _mel(hertz: np.ndarray) -> np.ndarray:
    return 2595 * np.log10(1 + hertz / 700)
