"""How AV-MNIST is made of handwriting, spoken digits and noise.

Every function here is pure. A change to what goes into the store is a new `VERSION`;
sounds are mixed and looked at when an example is read.

Our construction: the file that is passed around cannot be made again (its speech is
TIDIGITS, which is not free). "ours" marks what the descriptions of it do not give.
"""

import dataclasses

import numpy as np

VERSION = 1
ENERGY = 0.25
"""Share of the variance of the training images that images may keep."""

RATE = 8000
"""Samples a second, and the samples of an example."""

WINDOW, HOP, SIDE = 256, 70, 112
RANGE_DB = 80.0
"""How far below the loudest bin of a spectrogram black is; ours."""

FAINT = 0.01
"""Share of the peak below which the ends of a noise clip count as silence; ours."""

SPLITS = ("train", "valid", "test")
TEST_BELOW, VALID_FROM = 5, 45
"""Numbers of recordings (0-49): tested below, validated from there on."""

TEST_FOLD = 5
"""Of the noise clips; the others are heard in training and validation."""


@dataclasses.dataclass(frozen=True)
class Components:
    """The directions in which images vary most.

    Attributes:
        mean: (p) of the images they were fitted on.
        axes: (p k), orthonormal, the strongest first.
        variance_fraction: of the variance that they hold.
    """

    mean: np.ndarray
    axes: np.ndarray
    variance_fraction: float

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Images of these directions alone, (n h w) uint8 to (n h w) uint8."""
        away = images.reshape(len(images), -1) - self.mean
        back = self.mean + away @ self.axes @ self.axes.T
        return np.clip(np.rint(back), 0, 255).astype(np.uint8).reshape(images.shape)


def components(images: np.ndarray, energy: float = ENERGY) -> Components:
    """The strongest principal components that hold at most `energy` of the variance.

    Args:
        images: (n h w) uint8, n > 1.
        energy: share of the variance; one component is kept at least.

    Reference:
        AV-MNIST removes 75 % of the energy of its images.
    Deviation:
        Of MNIST three components hold 23.0 % and four 28.4 %: three, so that 75 % at
        least are removed. Energy is the variance about the mean image.
    """
    flat = images.reshape(len(images), -1)
    mean = flat.mean(axis=0)
    moment = np.zeros((flat.shape[1],) * 2)
    for part in np.array_split(flat, max(1, len(flat) // 4096)):  # spares memory
        away = part - mean
        moment += away.T @ away
    variances, axes = np.linalg.eigh(moment)  # smallest first
    share = np.cumsum(variances[::-1]) / max(np.sum(variances), 1e-12)
    count = max(1, int(np.searchsorted(share, energy, side="right")))
    return Components(mean, axes[:, ::-1][:, :count], float(share[count - 1]))


def stratified_order(digits: np.ndarray) -> np.ndarray:
    """An order of the images in which the last ones are of every digit.

    Args:
        digits: (n) of the images.

    Returns:
        (n) places: those of the images as they are; a draw with a fixed seed where
        all images of a digit come before those of the next.

    Deviation:
        The last images of the training split are for validation. Copies of MNIST that
        were made from folders of pictures are sorted, and their last 5,000 are nines.
    """
    places = np.arange(len(digits))
    if (np.diff(digits.astype(np.int64)) >= 0).all():
        return np.random.default_rng(0).permutation(places)
    return places


def speech_split(number: int, speaker: str, held_out: str = "") -> str:
    """The split that a recording is for.

    Args:
        number: of the recording, 0-49 for each speaker and digit.
        speaker: who speaks.
        held_out: a speaker heard in the test split alone, and nobody else there; ""
            divides the recordings of every speaker.

    Deviation:
        Recordings below 5 are for the test split, the others for training and
        validation; of these we give 45-49 to validation, so that it does not hear what
        was trained on.
    """
    tested = speaker == held_out if held_out else number < TEST_BELOW
    if tested:
        return "test"
    return "valid" if number >= VALID_FROM else "train"


def noise_fits(fold: int, split: str) -> bool:
    """Whether noise clips of a fold are heard in a split."""
    return (fold == TEST_FOLD) == (split == "test")


def pair_with_speech(
    digits: np.ndarray, spoken: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A recording for every image, drawn evenly from those of its digit.

    Args:
        digits: (n) of the images.
        spoken: (m) of the recordings; holds every digit of `digits`.
        rng: draws.

    Returns:
        (n) places in `spoken`.
    """
    draw = rng.random(len(digits))
    chosen = np.zeros(len(digits), np.int64)
    for digit in np.unique(digits):
        places, here = np.flatnonzero(spoken == digit), digits == digit
        chosen[here] = places[(draw[here] * len(places)).astype(np.int64)]
    return chosen


def trim_silence(clip: np.ndarray) -> np.ndarray:
    """A noise clip without silent ends, played again until it lasts a second.

    Args:
        clip: (t) int16 at `RATE`, not silent throughout.

    Returns:
        (t) int16, t >= 8000.

    Deviation:
        Clips of ESC are filled up with zeros, in which there is no noise to add.
    """
    level = np.abs(clip.astype(np.int32))
    loud = np.flatnonzero(level > FAINT * level.max())
    clip = clip[loud[0] : loud[-1] + 1]
    return clip if len(clip) >= RATE else np.resize(clip, RATE)


def segment(clip: np.ndarray, place: float) -> np.ndarray:
    """One second of a noise clip, (t) to (8000); `place` in [0, 1) says which."""
    start = int(place * (len(clip) - RATE + 1))
    return clip[start : start + RATE]


def add_noise(word: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """One second of a word in noise.

    Args:
        word: (t); cut after a second, or followed by silence.
        noise: (8000).
        snr_db: mean power of the word, while it is spoken, over that of the noise.

    Returns:
        (8000) float64; noise that is silent adds nothing.
    """
    said = word[:RATE].astype(np.float64)
    noise = noise.astype(np.float64)
    power, wanted = np.mean(noise**2), np.mean(said**2) / 10 ** (snr_db / 10)
    heard = noise * np.sqrt(wanted / power) if power else noise
    heard[: len(said)] += said
    return heard


def spectrogram(sound: np.ndarray) -> np.ndarray:
    """The lower bins of the spectrum of a second over time.

    Args:
        sound: (8000).

    Returns:
        (112 112) uint8, frequency by time: 255 is the loudest bin, 0 what is 80 dB
        below it or more; all 0 for silence.

    Reference:
        AV-MNIST: spectrograms of 112 by 112.
    Deviation:
        Periodic Hann windows of 256 samples, the first around sample 0, one every 70:
        of 115 frames and 129 bins the first 112 of each. Each example has its own
        scale, in dB.
    """
    padded = np.pad(sound, WINDOW // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][:SIDE]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    size = np.abs(np.fft.rfft(frames * hann)).T[:SIDE]
    peak = size.max()
    if not peak:
        return np.zeros((SIDE, SIDE), np.uint8)
    floor = 10 ** (-RANGE_DB / 20)
    decibel = 20 * np.log10(np.maximum(size / peak, floor))
    return np.rint(255 * (1 + decibel / RANGE_DB)).astype(np.uint8)
