"""Random changes of sound: pace, pitch, noise."""

import dataclasses
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.interpolate import interpolate_at
from mmfusion_jax.data.dataset import Example
from mmfusion_jax.data.preprocessing import pad_or_truncate
from mmfusion_jax.errors import ConfigError, missing_dependency

_WINDOW = 2048  # samples, as librosa takes by default


@dataclasses.dataclass(frozen=True)
class RandomWaveform:
    """Changes the pace and the pitch of a waveform and adds noise.

    Each of the three happens with the chance `prob`. A sound that becomes shorter is
    filled up and masked; one that becomes longer is cut.

    Attributes:
        modality: (t) or (t 1) float samples.
        sample_rate: of them, in Hz.
        time_stretch: the pace is multiplied by exp(-stretch) .. exp(stretch).
        semitones: the pitch moves by up to so many, either way.
        snr_db: least and greatest power of the sound over that of the noise, in dB.
        prob: chance of each change.

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: time stretching, pitch shifting, background noise.
    Deviation:
        The paper gives no ranges: the defaults are ours. The noise is pink, as that
        of rooms and streets is, nearly.
    """

    modality: str
    sample_rate: int
    time_stretch: float = 0.1
    semitones: float = 2.0
    snr_db: tuple[float, ...] = (10.0, 30.0)
    prob: float = 0.5

    def __post_init__(self):
        _check(self.modality, self.time_stretch, self.semitones, self.prob)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the modality, unless it is missing; everything else passes.

        Raises:
            MissingDependencyError: librosa is not installed.
        """
        samples = example["inputs"][self.modality]
        mask = example["masks"][self.modality]
        if not mask.any():
            return example
        x = samples.reshape(len(samples))[mask].astype(np.float32)
        librosa = _librosa()
        hit = rng.random(3) < self.prob
        pace = float(np.exp(self.time_stretch * rng.uniform(-1, 1)))
        steps = float(self.semitones * rng.uniform(-1, 1))
        snr = float(rng.uniform(self.snr_db[0], self.snr_db[1]))
        if hit[0]:
            x = _stretch(librosa, x, pace)
        if hit[1]:
            x = _shift(librosa, x, self.sample_rate, steps)
        if hit[2]:
            noise = pink_noise(len(x), rng)
            power = np.mean(np.square(x, dtype=np.float64))
            x = x + np.sqrt(power / 10 ** (snr / 10)) * noise
        return _with(example, self.modality, x.astype(samples.dtype))


@dataclasses.dataclass(frozen=True)
class RandomSpectrogram:
    """The same three for sound of which only a spectrogram is left.

    Time and frequency are stretched by linear interpolation, the last bin standing for
    those beyond it; white noise is added to all values.

    Attributes:
        modality: (t f) frames, or a picture such as (1 f t 1).
        time, frequency: axes of the array.
        time_stretch: the pace is multiplied by exp(-stretch) .. exp(stretch).
        semitones: frequencies are multiplied by up to so many semitones, either way;
            right for bins of equal width in Hz, nearly so for mel bands. 0 for
            cepstral coefficients (MFCC), whose bins are no frequencies: for those the
            noise stands alone with the pace, and `RandomFeatures` knows a warp of the
            vocal tract.
        noise: deviation of the noise, as a share of that of the spectrogram.
        prob: chance of each change.

    Reference:
        Hetero-Fusion-Net, Sec. 5.2.
    """

    modality: str
    time: int = 0
    frequency: int = 1
    time_stretch: float = 0.1
    semitones: float = 2.0
    noise: float = 0.1
    prob: float = 0.5

    def __post_init__(self):
        _check(self.modality, self.time_stretch, self.semitones, self.prob)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Changes the modality, unless it is missing; everything else passes."""
        values = example["inputs"][self.modality]
        mask = example["masks"][self.modality]
        if not mask.any():
            return example
        x = values[mask].astype(np.float32)
        hit = rng.random(3) < self.prob
        pace = np.exp(self.time_stretch * rng.uniform(-1, 1))
        pitch = 2 ** (self.semitones * rng.uniform(-1, 1) / 12)
        if hit[0]:
            steps = x.shape[self.time]
            length = max(round(steps / pace), 1) if self.time == 0 else steps
            x = interpolate_at(x, np.arange(length) * pace, self.time)
        if hit[1]:
            x = interpolate_at(
                x, np.arange(x.shape[self.frequency]) / pitch, self.frequency
            )
        if hit[2]:
            scale = np.float32(self.noise * x.std())
            x = x + scale * rng.standard_normal(x.shape, np.float32)
        if np.issubdtype(values.dtype, np.integer):
            limits = np.iinfo(values.dtype)
            x = np.clip(np.round(x), limits.min, limits.max)
        return _with(example, self.modality, x.astype(values.dtype))


def pink_noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls as 1 / f, of mean power 1, (count)."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    rates = np.maximum(np.arange(len(spectrum)), 1)
    noise = np.fft.irfft(spectrum / np.sqrt(rates), count)
    return noise / max(float(np.sqrt(np.mean(noise**2))), 1e-12)


def _with(example: Example, modality: str, x: np.ndarray) -> Example:
    """The example with another sound, padded or cut to the length of the old one."""
    old = example["inputs"][modality]
    rows, mask = pad_or_truncate(x.reshape(-1, *old.shape[1:]), len(old))
    return {
        **example,
        "inputs": {**example["inputs"], modality: rows},
        "masks": {**example["masks"], modality: mask},
    }


def _librosa() -> Any:
    """Librosa, which takes a second to import."""
    try:
        import librosa
    except ImportError as error:
        raise missing_dependency("librosa", "media", "changing waveforms") from error
    return librosa


def _stretch(librosa: Any, x: np.ndarray, pace: float) -> np.ndarray:
    """The same pitch at another pace, by a phase vocoder, (n / pace)."""
    # A sound shorter than the window has silence after it, which stft would warn about.
    whole = librosa.util.fix_length(x, size=max(len(x), _WINDOW))
    spectrum = _at_pace(librosa.stft(whole, n_fft=_WINDOW), pace)
    return librosa.istft(spectrum, dtype=x.dtype, length=round(len(x) / pace))


def _at_pace(spectrum: np.ndarray, pace: float) -> np.ndarray:
    """Frames of a short-time Fourier transform at `pace` times the pace, (f t / pace).

    Magnitudes are interpolated; the phase turns from frame to frame as in the original.
    """
    # librosa has a vocoder, but that of 1.0 ends a sound otherwise than that of 0.11,
    # warns of the arguments that librosa.effects.time_stretch gives it, and warns of an
    # invalid cast in one call and not in the next.
    times = np.arange(0, spectrum.shape[1], pace)
    left = times.astype(int)
    padded = np.pad(spectrum, ((0, 0), (0, 2)))
    first, second = padded[:, left], padded[:, left + 1]
    share = times - left
    size = (1 - share) * np.abs(first) + share * np.abs(second)
    turn = np.angle(second) - np.angle(first)
    start = np.angle(spectrum[:, :1])
    turns = np.concatenate([start, turn[:, :-1]], axis=1)
    phase = np.cumsum(turns, axis=1, dtype=float)
    return (size * np.exp(1j * phase)).astype(spectrum.dtype)


def _shift(librosa: Any, x: np.ndarray, sample_rate: int, steps: float) -> np.ndarray:
    """The same pace at another pitch, as librosa.effects.pitch_shift, (n)."""
    pace = 2.0 ** (-steps / 12)
    moved = librosa.resample(
        _stretch(librosa, x, pace), orig_sr=sample_rate / pace, target_sr=sample_rate
    )
    return librosa.util.fix_length(moved, size=len(x))


def _check(modality: str, stretch: float, semitones: float, share: float) -> None:
    """Raises ConfigError for ranges that cannot be meant."""
    if not (0 <= stretch <= 1 and 0 <= semitones <= 24 and 0 <= share <= 1):
        raise ConfigError(
            "C10",
            f"config.data.augmentations.{modality}: stretch={stretch}, "
            f"semitones={semitones} or share={share} is out of range.",
            "stretch 0..1, semitones 0..24, share 0..1",
        )
