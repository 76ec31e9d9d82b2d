"""How each modality of the digits data set is made from a digit and a generator.

Every function here is pure: the same arguments, generator state included, give the
same bytes. A change to anything in this file is a new `VERSION`.
"""

import dataclasses
import string
from collections.abc import Sequence

import numpy as np
import scipy

from mmfusion_jax.data.datasets.digits.text_to_speech import Utterance


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VERSION = "1.0.0"
WORDS = _names("zero one two three four five six seven eight nine")
SIZES = {"train": 1200, "valid": 197, "test": 400}
"""Examples of each split: all the digits that scikit-learn has."""

SAMPLE_RATE = 16_000
PICTURE = 28
FRAMES, SIDE = 16, 32
LONGEST = 16

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
"""The words of all sentences; a word's place is its number, and 0 is padding."""


@dataclasses.dataclass(frozen=True)
class DigitsGenerationConfig:
    """How much each modality is degraded; chosen on the validation split.

    Attributes:
        energy: share of the variance of the training images that images keep.
        snr: lowest and highest signal-to-noise ratio of the sound, in dB, drawn
            evenly; the signal counts where the word is spoken.
        babble: share of examples in babble; the others are in white noise.
        voices: utterances that make up babble.
        rate: slowest and fastest speech, in words a minute.
        pitch: lowest and highest, on eSpeak NG's scale of 0..99.
        late: how far from the middle a word may start, as a share of the room left.
        scale: smallest and largest size of handwriting on video, in pixels of video
            per pixel of handwriting.
        turn: largest angle of handwriting on video at its start, in radians.
        spin: largest change of the angle over a clip, in radians.
        drift: longest way that handwriting moves over a clip, in pixels.
        contrast: faintest and strongest ink, of 255.
        occluder: smallest and largest radius of the occluder, in pixels.
        grain: standard deviation of the sensor noise, of 255.
        dropped: chance of each word of a sentence to be dropped.
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
    digit: int, split: str, recipe: DigitsGenerationConfig, rng: np.random.Generator
) -> Utterance:
    """The word for `digit` by some speaker of `split`."""
    speakers = SPEAKERS[split]
    accent, speaker = rng.integers(len(ACCENTS)), rng.integers(len(speakers))
    voice = f"{ACCENTS[accent]}+{speakers[speaker]}"
    rate, pitch = rng.integers(*recipe.rate), rng.integers(*recipe.pitch)
    return Utterance(WORDS[digit], voice, int(rate), int(pitch))


def trim_silence(sound: np.ndarray, rate: int) -> np.ndarray:
    """The spoken part at 16 kHz and root mean square 1, (t) with t <= 1 s."""
    loud = np.flatnonzero(np.abs(sound.astype(np.float64)) > 0.01 * np.abs(sound).max())
    word = sound[loud[0] : loud[-1] + 1].astype(np.float64)
    word = scipy.signal.resample_poly(word, SAMPLE_RATE, rate)[:SAMPLE_RATE]
    return word / np.sqrt(np.mean(word**2))


def add_noise(
    word: np.ndarray,
    others: Sequence[np.ndarray],
    recipe: DigitsGenerationConfig,
    rng: np.random.Generator,
) -> np.ndarray:
    """One second of a word in white noise or babble.

    Args:
        word: (t), root mean square 1.
        others: words that babble is made of, played backwards.
        recipe: SNR, share of babble, place of the word.
        rng: the example's own generator.

    Returns:
        (16000) int16.
    """
    room = SAMPLE_RATE - len(word)
    start = int(room * (0.5 + recipe.late * rng.uniform(-0.5, 0.5)))
    noise = rng.standard_normal(SAMPLE_RATE)
    if rng.random() < recipe.babble:
        noise = 0.05 * noise
        for other in rng.integers(len(others), size=recipe.voices):
            again = np.resize(others[other][::-1], SAMPLE_RATE)
            noise += np.roll(again, rng.integers(SAMPLE_RATE))
    noise /= np.sqrt(np.mean(noise**2))
    gain = 10 ** (rng.uniform(*recipe.snr) / 20)
    noise[start : start + len(word)] += gain * word
    loudness = 1000 / np.sqrt(np.mean(noise**2))  # well below the int16 limits
    return np.clip(np.rint(loudness * noise), -32768, 32767).astype(np.int16)


def render_video(
    handwriting: np.ndarray, recipe: DigitsGenerationConfig, rng: np.random.Generator
) -> np.ndarray:
    """A clip of drifting, turning handwriting behind an occluder.

    Args:
        handwriting: (8 8) in [0, 1].
        recipe: path, ink, occluder and noise.
        rng: the example's own generator.

    Returns:
        (16 32 32 1) uint8.
    """
    time = np.linspace(-0.5, 0.5, FRAMES)[:, None, None]  # t 1 1
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2  # h w

    heading, way = rng.uniform(0, 2 * np.pi), rng.uniform(0, recipe.drift)
    centre = rng.uniform(-2, 2, size=2)
    dy = y - centre[0] - way * np.sin(heading) * time  # t h w
    dx = x - centre[1] - way * np.cos(heading) * time
    angle = recipe.turn * rng.uniform(-1, 1) + recipe.spin * rng.uniform(-1, 1) * time
    scale = rng.uniform(*recipe.scale)
    row = (np.cos(angle) * dy - np.sin(angle) * dx) / scale + 3.5
    column = (np.sin(angle) * dy + np.cos(angle) * dx) / scale + 3.5
    ink = scipy.ndimage.map_coordinates(
        handwriting, [row, column], order=1, prefilter=False
    )
    clip = 64 + rng.uniform(*recipe.contrast) * ink

    heading, aside = rng.uniform(0, 2 * np.pi), rng.uniform(-6, 6)
    along = SIDE * time
    oy = y - along * np.sin(heading) - aside * np.cos(heading)
    ox = x - along * np.cos(heading) + aside * np.sin(heading)
    hidden = oy**2 + ox**2 < rng.uniform(*recipe.occluder) ** 2
    clip = np.where(hidden, rng.uniform(32, 224), clip)
    clip += recipe.grain * rng.standard_normal(clip.shape)
    return np.clip(np.rint(clip), 0, 255).astype(np.uint8)[..., None]


def pca_reconstruct(images: np.ndarray, train: np.ndarray, energy: float) -> np.ndarray:
    """Enlarged handwriting, reduced to a few principal components.

    Args:
        images: (n 8 8) in [0, 1].
        train: indices of the images that the components are fitted on.
        energy: share of their variance to keep; the fewest components that reach it.

    Returns:
        (n 28 28 1) uint8.

    Reference:
        AV-MNIST removes 75 % of the energy of its images in this way.
    """
    zoom = PICTURE / images.shape[1]
    large = np.asarray(
        scipy.ndimage.zoom(
            images, (1, zoom, zoom), order=1, mode="nearest", grid_mode=True
        )
    ).reshape(len(images), -1)
    mean = large[train].mean(axis=0)
    variances, components = np.linalg.eigh(np.cov(large[train].T))  # smallest first
    share = np.cumsum(variances[::-1]) / np.sum(variances)
    kept = components[:, ::-1][:, : np.searchsorted(share, energy) + 1]
    back = mean + (large - mean) @ kept @ kept.T
    pixels = np.rint(255 * np.clip(back, 0, 1)).astype(np.uint8)
    return pixels.reshape(-1, PICTURE, PICTURE, 1)


def sentence(
    digit: int, recipe: DigitsGenerationConfig, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """A sentence that mentions `digit`, some of its words dropped.

    Returns:
        Word numbers, (16) int32, 0 after the end, and how many words there are.
    """
    names = {"digit": WORDS[digit], "other": WORDS[(digit + rng.integers(1, 10)) % 10]}
    if digit > 0:
        names["below"] = WORDS[digit - 1]
    if digit < 9:
        names["above"] = WORDS[digit + 1]
    fitting = [line for line in SENTENCES if _fields(line) <= set(names)]
    words = fitting[rng.integers(len(fitting))].format(**names).split()
    stays = rng.random(len(words)) >= recipe.dropped
    stays[rng.integers(len(words))] = True  # a sentence has a word at least
    numbers = [
        VOCABULARY.index(w) for w, stay in zip(words, stays, strict=True) if stay
    ]
    tokens = np.zeros(LONGEST, np.int32)
    tokens[: len(numbers)] = numbers
    return tokens, len(numbers)


def _fields(line: str) -> set[str]:
    """The names in braces."""
    return {field for _, field, _, _ in string.Formatter().parse(line) if field}
