"""Generates AV-MNIST from handwriting, spoken digits and noise.

Every function here is pure. Any change of the stored values needs a new `VERSION`;
audio is mixed and its spectrogram computed when an example is read.

The commonly used file cannot be reproduced (its speech is TIDIGITS, which is not free).
Comments mark what its descriptions do not specify.
"""

import dataclasses

import numpy as np

VERSION = 1
ENERGY = 0.25
"""Maximum fraction of the variance of the training images that images keep."""

RATE = 8000
"""Sample rate in Hz, and number of samples of an example."""

WINDOW, HOP, SIDE = 256, 70, 112
RANGE_DB = 80.0
"""Dynamic range of a spectrogram in dB; not specified."""

SILENCE = 0.01
"""Fraction of the peak below which the ends of a noise clip are silence; not
specified."""

SPLITS = ("train", "valid", "test")
TEST_BELOW, VALID_FROM = 5, 45
"""Recordings (0-49) below the first number are for test, from the second on for
validation."""

TEST_FOLD = 5
"""Test fold of the noise clips; the others are for training and validation."""


@dataclasses.dataclass(frozen=True)
class Components:
    """Principal components of images.

    Attributes:
        mean: Mean of the training images, (p).
        axes: Orthonormal components, (p k), the largest variance first.
        variance_fraction: Fraction of the variance that they explain.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance_fraction: float

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Projects images on the components, (n h w) uint8 to (n h w) uint8."""
        centered = images.reshape(len(images), -1) - self.mean
        projected = self.mean + centered @ self.axes @ self.axes.T
        return (
            np.clip(np.rint(projected), 0, 255).astype(np.uint8).reshape(images.shape)
        )


def components(images: np.ndarray, energy: float = ENERGY) -> Components:
    """Returns the components that explain at most `energy` of the variance.

    Args:
        images: (n h w) uint8, n > 1.
        energy: Maximum fraction of the variance; there is at least one component.

    Reference:
        AV-MNIST removes 75 % of the energy of its images.
    Deviation:
        Three components explain 23.0 % of MNIST and four 28.4 %: three are kept, so
        that at least 75 % is removed. Energy is the variance about the mean image.
    """
    flat = images.reshape(len(images), -1)
    mean = flat.mean(axis=0)
    moment = np.zeros((flat.shape[1],) * 2)
    for part in np.array_split(flat, max(1, len(flat) // 4096)):  # saves memory
        centered = part - mean
        moment += centered.T @ centered
    variances, axes = np.linalg.eigh(moment)  # smallest first
    explained = np.cumsum(variances[::-1]) / max(np.sum(variances), 1e-12)
    count = max(1, int(np.searchsorted(explained, energy, side="right")))
    return Components(mean, axes[:, ::-1][:, :count], float(explained[count - 1]))


def stratified_order(digits: np.ndarray) -> np.ndarray:
    """Returns an order of the images in which the last ones include every digit.

    Args:
        digits: (n) digits of the images.

    Returns:
        (n) indices: the original order; a permutation with a fixed seed if the images
        are sorted by digit.

    Deviation:
        The last images of the training split are for validation. Copies of MNIST made
        from folders of images are sorted, and their last 5,000 are nines.
    """
    indices = np.arange(len(digits))
    if (np.diff(digits.astype(np.int64)) >= 0).all():
        return np.random.default_rng(0).permutation(indices)
    return indices


def speech_split(number: int, speaker: str, held_out: str = "") -> str:
    """Returns the split of a recording.

    Args:
        number: Number of the recording, 0-49 for each speaker and digit.
        speaker: Speaker of the recording.
        held_out: The only speaker of the test split; "" splits the recordings of every
            speaker.

    Deviation:
        Test recordings are 0-4, the others are for training and validation; here 45-49
        are for validation, so that no recording is in both.
    """
    tested = speaker == held_out if held_out else number < TEST_BELOW
    if tested:
        return "test"
    return "valid" if number >= VALID_FROM else "train"


def noise_fits(fold: int, split: str) -> bool:
    """Returns whether the noise clips of a fold belong to a split."""
    return (fold == TEST_FOLD) == (split == "test")


def pair_with_speech(
    digits: np.ndarray, spoken: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draws a recording of its digit for every image, uniformly.

    Args:
        digits: (n) digits of the images.
        spoken: (m) digits of the recordings; must contain every digit of `digits`.
        rng: Generator of the draws.

    Returns:
        (n) indices into `spoken`.
    """
    # One number per image, in their order: the recording of an image does not depend on
    # the number of images.
    draw = rng.random(len(digits))
    chosen = np.zeros(len(digits), np.int64)
    for digit in np.unique(digits):
        candidates, rows = np.flatnonzero(spoken == digit), digits == digit
        chosen[rows] = candidates[(draw[rows] * len(candidates)).astype(np.int64)]
    return chosen


def trim_silence(clip: np.ndarray) -> np.ndarray:
    """Trims silence from the ends of a noise clip and repeats it for a second.

    Args:
        clip: (t) int16 at `RATE`, not all zeros.

    Returns:
        (t) int16, t >= 8000.

    Deviation:
        Clips of ESC are padded with zeros, which contain no noise.
    """
    # int32, because the absolute value of -32768 is not an int16.
    level = np.abs(clip.astype(np.int32))
    loud = np.flatnonzero(level > SILENCE * level.max())
    clip = clip[loud[0] : loud[-1] + 1]
    return clip if len(clip) >= RATE else np.resize(clip, RATE)


def segment(clip: np.ndarray, offset: float) -> np.ndarray:
    """Returns a second of a noise clip, (t) to (8000), at an offset in [0, 1)."""
    start = int(offset * (len(clip) - RATE + 1))
    return clip[start : start + RATE]


def add_noise(word: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Adds noise to a word, for one second.

    Args:
        word: (t); truncated to a second, or followed by silence.
        noise: (8000).
        snr_db: Signal-to-noise ratio in dB; the power of the signal is that of the
            spoken part.

    Returns:
        (8000) float64; silent noise adds nothing.
    """
    signal = word[:RATE].astype(np.float64)
    noise = noise.astype(np.float64)
    power, target = np.mean(noise**2), np.mean(signal**2) / 10 ** (snr_db / 10)
    mixed = noise * np.sqrt(target / power) if power else noise
    mixed[: len(signal)] += signal
    return mixed


def spectrogram(audio: np.ndarray) -> np.ndarray:
    """Computes the spectrogram of a second, without the highest frequencies.

    Args:
        audio: (8000).

    Returns:
        (112 112) uint8, frequency by time: 255 is the loudest bin, 0 is 80 dB below it
        or less; all 0 for silence.

    Reference:
        AV-MNIST: spectrograms of 112 by 112.
    Deviation:
        Periodic Hann windows of 256 samples, the first centered at sample 0, with a hop
        of 70: the first 112 of 115 frames and 129 bins. Each example is scaled
        separately, in dB.
    """
    padded = np.pad(audio, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:SIDE]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitude = np.abs(np.fft.rfft(frames * hann)).T[:SIDE]
    peak = magnitude.max()
    if not peak:
        return np.zeros((SIDE, SIDE), np.uint8)
    floor = 10 ** (-RANGE_DB / 20)
    decibel = 20 * np.log10(np.maximum(magnitude / peak, floor))
    return np.rint(255 * (1 + decibel / RANGE_DB)).astype(np.uint8)
