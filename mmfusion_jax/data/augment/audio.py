"""Random audio augmentation: time stretch, pitch shift, noise."""

import dataclasses
from typing import Annotated, Any, TypeAlias

import numpy as np

from mmfusion_jax.data.augment.interpolate import interpolate_at
from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.preprocessing import pad_or_truncate
from mmfusion_jax.errors import ConfigError, missing_dependency, shown, shown_name
from mmfusion_jax.option_types import (
    Decibel,
    Fraction,
    Increasing,
    NonNegativeFloat,
    PositiveInt,
    Range,
)

Semitones: TypeAlias = Annotated[float, Range(0, 24)]
Axis: TypeAlias = Annotated[int, Range(-4, 3)]


_WINDOW = 2048  # samples, the default of librosa


@dataclasses.dataclass(frozen=True)
class RandomWaveform:
    """Time-stretches and pitch-shifts a waveform and adds noise.

    Each of the three is applied with probability `prob`. Shorter audio is padded and
    masked; longer audio is truncated.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> example = {
        ...     "inputs": {"audio": np.ones(800, np.float32)},
        ...     "masks": {"audio": np.ones(800, bool)},
        ... }
        >>> augment = mmf.data.RandomWaveform("audio", sample_rate=8000, prob=1.0)
        >>> augment(example, np.random.default_rng(0))["inputs"]["audio"].shape
        (800,)

    Attributes:
        modality: Name of the modality, (t) or (t 1) float samples.
        sample_rate: Sample rate in Hz.
        time_stretch: The speed is multiplied by exp(-time_stretch) ..
            exp(time_stretch).
        semitones: Maximum pitch shift in semitones, up or down.
        snr_db: Minimum and maximum signal-to-noise ratio in dB.
        prob: Probability of each change.

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: time stretching, pitch shifting, background noise.
    Deviation:
        The paper gives no ranges for the defaults. The noise is pink, similar to that
        of rooms and streets.
    """

    modality: str
    sample_rate: PositiveInt
    time_stretch: Fraction = 0.1
    semitones: Semitones = 2.0
    snr_db: Annotated[tuple[Decibel, Decibel], Increasing()] = (10.0, 30.0)
    prob: Fraction = 0.5

    def __post_init__(self):
        _check(self.modality, self.time_stretch, self.semitones, self.prob)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the modality if present; passes everything else through.

        Raises:
            MissingDependencyError: librosa is not installed.
        """
        samples = example["inputs"][self.modality]
        mask = example["masks"][self.modality]
        if not mask.any():
            return example
        x = samples.reshape(len(samples))[mask].astype(np.float32)
        librosa = _librosa()
        # All numbers are drawn, also those of changes that are not applied, so that a
        # change of `prob` does not change the others.
        apply = rng.random(3) < self.prob
        speed = float(np.exp(self.time_stretch * rng.uniform(-1, 1)))
        semitones = float(self.semitones * rng.uniform(-1, 1))
        snr = float(rng.uniform(self.snr_db[0], self.snr_db[1]))
        if apply[0]:
            x = _time_stretch(librosa, x, speed)
        if apply[1]:
            x = _pitch_shift(librosa, x, self.sample_rate, semitones)
        if apply[2]:
            noise = pink_noise(len(x), rng)
            # The noise is relative to this audio, whatever its level.
            power = np.mean(np.square(x, dtype=np.float64))
            x = x + np.sqrt(power / 10 ** (snr / 10)) * noise
        return _replaced(example, self.modality, x.astype(samples.dtype))


@dataclasses.dataclass(frozen=True)
class RandomSpectrogram:
    """Time stretch, pitch shift and noise for spectrograms.

    Time and frequency are stretched by linear interpolation, with the last bin repeated
    beyond it; white noise is added to all values.

    Example:
        >>> import numpy as np
        >>> import mmfusion_jax as mmf
        >>> example = {
        ...     "inputs": {"audio": np.ones((20, 8), np.float32)},
        ...     "masks": {"audio": np.ones(20, bool)},
        ... }
        >>> augment = mmf.data.RandomSpectrogram("audio", prob=1.0)
        >>> augment(example, np.random.default_rng(0))["inputs"]["audio"].shape
        (20, 8)

    Attributes:
        modality: Name of the modality, (t f) frames, or an image such as (1 f t 1).
        time, frequency: Axes of the array.
        time_stretch: The speed is multiplied by exp(-time_stretch) ..
            exp(time_stretch).
        semitones: Maximum pitch shift in semitones, up or down; exact for bins of equal
            width in Hz, approximate for mel bands. Use 0 for cepstral coefficients
            (MFCC), which are not frequencies; `RandomFeatures` can warp them.
        noise: Standard deviation of the noise, relative to that of the spectrogram.
        prob: Probability of each change.

    Reference:
        Hetero-Fusion-Net, Sec. 5.2.
    """

    modality: str
    time: Axis = 0
    frequency: Axis = 1
    time_stretch: Fraction = 0.1
    semitones: Semitones = 2.0
    noise: NonNegativeFloat = 0.1
    prob: Fraction = 0.5

    def __post_init__(self):
        _check(self.modality, self.time_stretch, self.semitones, self.prob)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Augments the modality if present; passes everything else through."""
        values = example["inputs"][self.modality]
        mask = example["masks"][self.modality]
        if not mask.any():
            return example
        x = values[mask].astype(np.float32)
        apply = rng.random(3) < self.prob
        speed = np.exp(self.time_stretch * rng.uniform(-1, 1))
        pitch = 2 ** (self.semitones * rng.uniform(-1, 1) / 12)
        if apply[0]:
            steps = x.shape[self.time]
            length = max(round(steps / speed), 1) if self.time == 0 else steps
            x = interpolate_at(x, np.arange(length) * speed, self.time)
        if apply[1]:
            x = interpolate_at(
                x, np.arange(x.shape[self.frequency]) / pitch, self.frequency
            )
        if apply[2]:
            scale = np.float32(self.noise * x.std())
            x = x + scale * rng.standard_normal(x.shape, np.float32)
        if np.issubdtype(values.dtype, np.integer):
            limits = np.iinfo(values.dtype)
            x = np.clip(np.round(x), limits.min, limits.max)
        return _replaced(example, self.modality, x.astype(values.dtype))


def pink_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with a power spectrum of 1 / f and mean power 1, (count)."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequencies = np.maximum(np.arange(len(spectrum)), 1)
    noise = np.fft.irfft(spectrum / np.sqrt(frequencies), count)
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)


def _replaced(example: Example, modality: str, x: np.ndarray) -> Example:
    """Returns the example with new audio, padded or truncated to its length."""
    old = example["inputs"][modality]
    rows, mask = pad_or_truncate(x.reshape(-1, *old.shape[1:]), len(old))
    return {
        **example,
        "inputs": {**example["inputs"], modality: rows},
        "masks": {**example["masks"], modality: mask},
    }


def _librosa() -> Any:
    """Imports librosa, which takes a second."""
    try:
        import librosa
    except ImportError as error:
        raise missing_dependency("librosa", "media", "augmenting waveforms") from error
    return librosa


def _time_stretch(librosa: Any, x: np.ndarray, speed: float) -> np.ndarray:
    """Changes the speed but not the pitch, by a phase vocoder, (n / speed)."""
    # Audio shorter than the window is padded with silence: stft would warn about it.
    padded = librosa.util.fix_length(x, size=max(len(x), _WINDOW))
    spectrum = _phase_vocoder(librosa.stft(padded, n_fft=_WINDOW), speed)
    return librosa.istft(spectrum, dtype=x.dtype, length=round(len(x) / speed))


def _phase_vocoder(spectrum: np.ndarray, speed: float) -> np.ndarray:
    """Frames of a short-time Fourier transform at `speed`, (f t / speed).

    Magnitudes are interpolated; phases advance from frame to frame as in the original.
    """
    # librosa has a phase vocoder, but that of 1.0 differs from that of 0.11 at the end
    # of the audio, warns about the arguments of librosa.effects.time_stretch, and warns
    # about an invalid cast in one call and not in the next.
    times = np.arange(0, spectrum.shape[1], speed)
    left = times.astype(int)
    padded = np.pad(spectrum, ((0, 0), (0, 2)))
    first, second = padded[:, left], padded[:, left + 1]
    weight = times - left
    magnitude = (1 - weight) * np.abs(first) + weight * np.abs(second)
    advance = np.angle(second) - np.angle(first)
    start = np.angle(spectrum[:, :1])
    advances = np.concatenate([start, advance[:, :-1]], axis=1)
    phase = np.cumsum(advances, axis=1, dtype=float)
    return (magnitude * np.exp(1j * phase)).astype(spectrum.dtype)


def _pitch_shift(
    librosa: Any, x: np.ndarray, sample_rate: int, semitones: float
) -> np.ndarray:
    """Changes the pitch but not the speed, as librosa.effects.pitch_shift, (n)."""
    speed = 2.0 ** (-semitones / 12)
    stretched = _time_stretch(librosa, x, speed)
    shifted = librosa.resample(
        stretched, orig_sr=sample_rate / speed, target_sr=sample_rate
    )
    return librosa.util.fix_length(shifted, size=len(x))


def _check(modality: str, time_stretch: float, semitones: float, prob: float) -> None:
    """Raises ConfigError for values that are out of range."""
    if not (0 <= time_stretch <= 1 and 0 <= semitones <= 24 and 0 <= prob <= 1):
        raise ConfigError(
            "C10",
            f"config.data.augmentations.{shown_name(modality)}: "
            f"time_stretch={shown(time_stretch)}, semitones={shown(semitones)} or "
            f"prob={shown(prob)} is out of range.",
            "time_stretch 0..1, semitones 0..24, prob 0..1",
        )
