"""Builds the digits data set: from handwriting and eSpeak NG to a store."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from mmfusion_jax.data.datasets.digits import generate as make
from mmfusion_jax.data.datasets.digits.generate import DigitsGenerationConfig
from mmfusion_jax.data.datasets.digits.text_to_speech import Utterance, speak
from mmfusion_jax.data.media.decode import mfcc
from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    Store,
    cache_folder,
    open_store,
    write_store,
)
from mmfusion_jax.data.storage.progress import track
from mmfusion_jax.errors import missing_dependency

N_FFT, HOP, BANDS, COEFFICIENTS = 512, 256, 40, 13
STEPS = 1 + make.SAMPLE_RATE // HOP
BABBLE_UTTERANCES = 50  # utterances of each split that its babble is made of

FEATURES = {
    "image": FeatureSpec((make.PICTURE, make.PICTURE, 1), "uint8"),
    "sound": FeatureSpec((make.SAMPLE_RATE,), "int16"),
    "mfcc": FeatureSpec((STEPS, COEFFICIENTS), "float32"),
    "video": FeatureSpec((make.FRAMES, make.SIDE, make.SIDE, 1), "uint8"),
    "text": FeatureSpec((make.LONGEST,), "int32"),
    "words": FeatureSpec((), "int32"),
    "digit": FeatureSpec((), "int32"),
    "handwriting": FeatureSpec((), "int32"),
    "voice": FeatureSpec((), "str"),
}

Record = dict[str, Any]


def build_or_open(
    folder: str | Path | None = None,
    recipe: DigitsGenerationConfig | None = None,
    limit: int | None = None,
) -> Store:
    """The store of a recipe, built if it is not there.

    Args:
        folder: folder that holds prepared data; None for the cache of the user.
        recipe: how hard each modality is; None for the recipe of the data set.
        limit: examples to make of each split; None makes all. Those that are made are
            the same either way.

    Raises:
        MissingDependencyError: it is not there, and the extra `demo` is not installed.
    """
    recipe = recipe or DigitsGenerationConfig()
    plan = {
        "version": make.VERSION,
        "recipe": dataclasses.asdict(recipe),
        "speakers": make.SPEAKERS,
        "accents": make.ACCENTS,
        "sentences": make.SENTENCES,
        "limit": limit,
    }
    plan_hash = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    name = f"digits-{make.VERSION}-{plan_hash[:8]}"
    place = Path(folder).expanduser() / name if folder else cache_folder(name)
    if not place.exists():
        _check_extras()
        manifest = plan | {"made_with": _versions()}
        with threadpool_limits(1):  # more threads add up in another order
            splits = _hashed(_splits(recipe, limit), manifest)
            write_store(place, FEATURES, splits, manifest)
    return open_store(place)


def coefficients(sound: np.ndarray) -> np.ndarray:
    """The MFCC of one second, (16000) int16 to (63 13) float32."""
    waveform = sound.astype(np.float32) / 32768
    return mfcc(
        waveform, make.SAMPLE_RATE, COEFFICIENTS, n_fft=N_FFT, hop=HOP, bands=BANDS
    )


def _splits(
    recipe: DigitsGenerationConfig, limit: int | None
) -> dict[str, Iterator[Record]]:
    """The examples of every split; none is made before it is asked for."""
    images, labels = _handwriting()
    chosen = _chosen(labels)
    faint = make.pca_reconstruct(images, chosen["train"], recipe.energy)

    def written(i: int) -> Record:
        """What the handwriting alone decides."""
        digit = int(labels[i])
        text, words = make.sentence(digit, recipe, _rng("sentence", i))
        return {
            "image": faint[i],
            "video": make.render_video(images[i], recipe, _rng("video", i)),
            "text": text,
            "words": words,
            "digit": digit,
            "handwriting": i,
        }

    def examples(split: str) -> Iterator[Record]:
        here = [int(i) for i in chosen[split][:limit]]
        said = [_utterance(int(labels[i]), split, recipe, "voice", i) for i in here]
        crowd = [
            _utterance(n % 10, split, recipe, "crowd", n)
            for n in range(BABBLE_UTTERANCES)
        ]
        others = [make.trim_silence(sound, rate) for rate, sound in speak(crowd)]
        spoken = track(speak(said), len(here), f"building digits, {split} split")
        for i, utterance, (rate, sound) in zip(here, said, spoken, strict=True):
            word = make.trim_silence(sound, rate)
            noisy = make.add_noise(word, others, recipe, _rng("noise", i))
            heard = {"sound": noisy, "mfcc": coefficients(noisy)}
            yield written(i) | heard | {"voice": utterance.voice}

    return {split: examples(split) for split in chosen}


def _utterance(
    digit: int, split: str, recipe: DigitsGenerationConfig, purpose: str, number: int
) -> Utterance:
    return make.draw_utterance(digit, split, recipe, _rng(purpose, number))


def _rng(purpose: str, number: int) -> np.random.Generator:
    """The generator of one draw of one example; no other draw changes it."""
    return np.random.default_rng([*purpose.encode(), number])


def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits, (1797 8 8) in [0, 1], and which they are, (1797)."""
    from sklearn.datasets import load_digits  # half a second that reading can spare

    bunch: Any = load_digits()
    return bunch.images / 16, bunch.target


def _chosen(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Split -> indices of its handwriting, stratified and shuffled."""
    from sklearn.model_selection import train_test_split

    rest, chosen = np.arange(len(labels)), {}
    for split in ("test", "valid"):
        rest, chosen[split] = train_test_split(
            rest, test_size=make.SIZES[split], stratify=labels[rest], random_state=0
        )
    return {split: chosen.get(split, rest) for split in make.SIZES}


def _hashed(
    splits: dict[str, Iterator[Record]], manifest: dict[str, Any]
) -> dict[str, Iterable[Record]]:
    """Passes examples on and keeps a hash of all of them in `manifest`."""
    digest = hashlib.sha256()

    def seen(examples: Iterator[Record]) -> Iterator[Record]:
        for example in examples:
            for name, spec in FEATURES.items():
                value = example[name]
                text = spec.dtype == "str"
                digest.update(value.encode() if text else np.asarray(value).tobytes())
            yield example
        manifest["fingerprint"] = digest.hexdigest()[:16]

    return {split: seen(examples) for split, examples in splits.items()}


def _check_extras() -> None:
    """Raises ExtraError for what only the first build needs; loads nothing."""
    for module in ("espeakng_loader", "librosa"):
        if importlib.util.find_spec(module) is None:
            raise missing_dependency(module, "demo", "building the digits data set")


def _versions() -> dict[str, str]:
    """The libraries that decide the bytes."""
    names = ("espeakng-loader", "librosa", "numpy", "scikit-learn", "scipy")
    return {name: importlib.metadata.version(name) for name in names}
