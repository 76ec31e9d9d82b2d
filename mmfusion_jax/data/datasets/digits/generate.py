"""Generates each modality of the digits dataset from a digit and a generator.

Every function here is pure: the same arguments, including the generator state, give the
same bytes. Any change of the bytes needs a new `VERSION`.
"""

import dataclasses
import string
from collections.abc import Sequence

import numpy as np
import scipy

from mmfusion_jax.data.datasets.digits.text_to_speech import Utterance


def _names(text: str) -> tuple[str, ...]:
    """Splits a line into names."""
    return tuple(text.split())


VERSION = "1.0.0"
WORDS = _names("zero one two three four five six seven eight nine")
SIZES = {"train": 1200, "valid": 197, "test": 400}
"""Number of examples of each split, in total all digits of scikit-learn."""

SAMPLE_RATE = 16_000
IMAGE_SIZE = 28
FRAMES, FRAME_SIZE = 16, 32
MAX_WORDS = 16

ACCENTS = _names(
    "en en-us en-029 en-gb-scotland en-gb-x-rp en-gb-x-gbclan en-gb-x-gbcwmd"
)
# Speakers that eSpeak NG derives from one another stay in one split.
SPEAKERS = {
    "train": _names(
        "m1 m2 m3 m4 m5 f1 f2 f3 Alicia Andrea Andy Annie Diogo Gene Henrique Hugo "
        "Lee Reed adam announcer aunty benjamin boris caleb david ed edward grandpa "
        "ian john klatt marcelo max michel miguel norbert pablo paul pedro quincy "
        "sandro steph travis"
    ),
    "valid": _names("m6 f4 Denis belinda grandma gustave robert"),
    "test": _names("m7 m8 f5 Alex Mario Michael Mike antonio linda rob victor"),
}

# {below} and {above} are the digit's neighbours, {other} is any other digit.
SENTENCES = (
    "the code ends in {digit}",
    "please dial {digit} and wait",
    "my house is number {digit}",
    "there were {digit} birds on the wire",
    "the train leaves from platform {digit}",
    "she counted {digit} steps to the door",
    "take bus number {digit} to the station",
    "we need {digit} more chairs in the room",
    "the answer is not {other} but {digit}",
    "he wrote {other} and then changed it to {digit}",
    "it is one more than {below}",
    "it is one less than {above}",
    "the number between {below} and {above}",
)
_PLAIN = {w for line in SENTENCES for w in line.split() if not w.startswith("{")}
VOCABULARY = ("", *WORDS, *sorted(_PLAIN - set(WORDS)))
"""Words of all sentences; a word's index is its id, and 0 is padding."""


@dataclasses.dataclass(frozen=True)
class DigitsGenerationConfig:
    """Degradation of each modality; tuned on the validation split.

    Attributes:
        energy: Fraction of the variance of the training images that images keep.
        snr: Minimum and maximum signal-to-noise ratio of the audio in dB, uniform; the
            power of the signal is that of the spoken part.
        babble: Probability of babble noise; otherwise white noise.
        voices: Number of utterances in babble.
        rate: Minimum and maximum words per minute.
        pitch: Minimum and maximum pitch, 0..99.
        late: Range of the start of the word around the center, as a fraction of the
            remaining time.
        scale: Minimum and maximum pixels of video per pixel of handwriting.
        turn: Maximum rotation of the handwriting in radians.
        spin: Maximum change of the rotation over a clip in radians.
        drift: Maximum translation over a clip in pixels.
        contrast: Minimum and maximum brightness of the ink, of 255.
        occluder: Minimum and maximum radius of the occluder in pixels.
        grain: Standard deviation of the sensor noise, of 255.
        dropped: Probability of each word of a sentence to be dropped.
    """

    energy: float = 0.25
    snr: tuple[float, float] = (-10.0, 2.0)
    babble: float = 0.2
    voices: int = 6
    rate: tuple[int, int] = (130, 220)
    pitch: tuple[int, int] = (25, 80)
    late: float = 0.2
    scale: tuple[float, float] = (2.3, 2.7)
    turn: float = 0.2
    spin: float = 0.4
    drift: float = 4.0
    contrast: tuple[float, float] = (80.0, 150.0)
    occluder: tuple[float, float] = (4.0, 7.0)
    grain: float = 30.0
    dropped: float = 0.3


def draw_utterance(
    digit: int, split: str, config: DigitsGenerationConfig, rng: np.random.Generator
) -> Utterance:
    """Draws an utterance of `digit` by a speaker of `split`."""
    speakers = SPEAKERS[split]
    accent, speaker = rng.integers(len(ACCENTS)), rng.integers(len(speakers))
    voice = f"{ACCENTS[accent]}+{speakers[speaker]}"
    rate, pitch = rng.integers(*config.rate), rng.integers(*config.pitch)
    return Utterance(WORDS[digit], voice, int(rate), int(pitch))


def trim_silence(audio: np.ndarray, rate: int) -> np.ndarray:
    """Returns the spoken part at 16 kHz, (t) with t <= 1 s, root mean square 1."""
    loud = np.flatnonzero(np.abs(audio.astype(np.float64)) > 0.01 * np.abs(audio).max())
    word = audio[loud[0] : loud[-1] + 1].astype(np.float64)
    word = scipy.signal.resample_poly(word, SAMPLE_RATE, rate)[:SAMPLE_RATE]
    return word / np.sqrt(np.mean(word**2))


def add_noise(
    word: np.ndarray,
    others: Sequence[np.ndarray],
    config: DigitsGenerationConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """Adds white noise or babble to a word, for one second.

    Args:
        word: (t), root mean square 1.
        others: Words of the babble, which are reversed.
        config: SNR, probability of babble, position of the word.
        rng: Generator of the example.

    Returns:
        (16000) int16.
    """
    remaining = SAMPLE_RATE - len(word)
    start = int(remaining * (0.5 + config.late * rng.uniform(-0.5, 0.5)))
    noise = rng.standard_normal(SAMPLE_RATE)
    if rng.random() < config.babble:
        # Faint white noise stays, so that no step is silent. The words are reversed and
        # rotated: they sound like speech, but not like a digit that could be the label.
        noise = 0.05 * noise
        for other in rng.integers(len(others), size=config.voices):
            repeated = np.resize(others[other][::-1], SAMPLE_RATE)
            noise += np.roll(repeated, rng.integers(SAMPLE_RATE))
    noise /= np.sqrt(np.mean(noise**2))
    gain = 10 ** (rng.uniform(*config.snr) / 20)
    noise[start : start + len(word)] += gain * word
    loudness = 1000 / np.sqrt(np.mean(noise**2))  # well below the int16 limits
    return np.clip(np.rint(loudness * noise), -32768, 32767).astype(np.int16)


def render_video(
    handwriting: np.ndarray, config: DigitsGenerationConfig, rng: np.random.Generator
) -> np.ndarray:
    """Renders moving, rotating handwriting behind an occluder.

    Args:
        handwriting: (8 8) in [0, 1].
        config: Motion, ink, occluder and noise.
        rng: Generator of the example.

    Returns:
        (16 32 32 1) uint8.
    """
    # Around 0, so that motion and rotation are centered on the clip.
    time = np.linspace(-0.5, 0.5, FRAMES)[:, None, None]  # t 1 1
    y, x = np.mgrid[:FRAME_SIZE, :FRAME_SIZE] - (FRAME_SIZE - 1) / 2  # h w

    heading, distance = rng.uniform(0, 2 * np.pi), rng.uniform(0, config.drift)
    center = rng.uniform(-2, 2, size=2)
    dy = y - center[0] - distance * np.sin(heading) * time  # t h w
    dx = x - center[1] - distance * np.cos(heading) * time
    angle = config.turn * rng.uniform(-1, 1) + config.spin * rng.uniform(-1, 1) * time
    scale = rng.uniform(*config.scale)
    # For every pixel of a frame, its position in the handwriting, whose center is 3.5;
    # positions outside of it give 0.
    row = (np.cos(angle) * dy - np.sin(angle) * dx) / scale + 3.5
    column = (np.sin(angle) * dy + np.cos(angle) * dx) / scale + 3.5
    ink = scipy.ndimage.map_coordinates(
        handwriting, [row, column], order=1, prefilter=False
    )
    clip = 64 + rng.uniform(*config.contrast) * ink

    # The occluder crosses the entire frame in a clip; `aside` is the distance of its
    # path from the center.
    heading, aside = rng.uniform(0, 2 * np.pi), rng.uniform(-6, 6)
    along = FRAME_SIZE * time
    oy = y - along * np.sin(heading) - aside * np.cos(heading)
    ox = x - along * np.cos(heading) + aside * np.sin(heading)
    hidden = oy**2 + ox**2 < rng.uniform(*config.occluder) ** 2
    clip = np.where(hidden, rng.uniform(32, 224), clip)
    clip += config.grain * rng.standard_normal(clip.shape)
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)[..., None]


def pca_reconstruct(images: np.ndarray, train: np.ndarray, energy: float) -> np.ndarray:
    """Reconstructs upsampled handwriting from a few principal components.

    Args:
        images: (n 8 8) in [0, 1].
        train: Indices of the images that the components are fitted on.
        energy: Fraction of their variance that the components reach.

    Returns:
        (n 28 28 1) uint8.

    Reference:
        AV-MNIST removes 75 % of the energy of its images in this way.
    """
    zoom = IMAGE_SIZE / images.shape[1]
    large = np.asarray(
        scipy.ndimage.zoom(
            images, (1, zoom, zoom), order=1, mode="nearest", grid_mode=True
        )
    ).reshape(len(images), -1)
    mean = large[train].mean(axis=0)
    variances, components = np.linalg.eigh(np.cov(large[train].T))  # smallest first
    explained = np.cumsum(variances[::-1]) / np.sum(variances)
    # The first number of components that reaches `energy`.
    kept = components[:, ::-1][:, : np.searchsorted(explained, energy) + 1]
    back = mean + (large - mean) @ kept @ kept.T
    pixels = np.rint(255 * np.clip(back, 0, 1)).astype(np.uint8)
    return pixels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE, 1)


def sentence(
    digit: int, config: DigitsGenerationConfig, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Draws a sentence that contains `digit`, with some words dropped.

    Returns:
        Word ids, (16) int32, padded with 0, and the number of words.
    """
    names = {"digit": WORDS[digit], "other": WORDS[(digit + rng.integers(1, 10)) % 10]}
    if digit > 0:
        names["below"] = WORDS[digit - 1]
    if digit < 9:
        names["above"] = WORDS[digit + 1]
    # Zero has no digit below it and nine none above.
    possible = [line for line in SENTENCES if _fields(line) <= set(names)]
    words = possible[rng.integers(len(possible))].format(**names).split()
    kept = rng.random(len(words)) >= config.dropped
    kept[rng.integers(len(words))] = True  # at least one word
    ids = [VOCABULARY.index(w) for w, keep in zip(words, kept, strict=True) if keep]
    tokens = np.zeros(MAX_WORDS, np.int32)
    tokens[: len(ids)] = ids
    return tokens, len(ids)


def _fields(line: str) -> set[str]:
    """Returns the names in braces."""
    return {field for _, field, _, _ in string.Formatter().parse(line) if field}
