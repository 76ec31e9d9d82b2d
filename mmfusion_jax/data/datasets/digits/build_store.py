"""Builds the store of the digits dataset from handwriting and eSpeak NG."""

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
from mmfusion_jax.paths import local_path

N_FFT, HOP, BANDS, COEFFICIENTS = 512, 256, 40, 13
STEPS = 1 + make.SAMPLE_RATE // HOP
BABBLE_UTTERANCES = 50  # per split

WAVEFORM = "sound"
"""Name of the waveform in the store. The names in `FEATURES` and the keys of `plan` are
part of the format: changing them needs a new `generate.VERSION`, which changes the name
of the folder, so that the store is built again. Stores built before this code moved
here still open: the module that `dataset_info.json` names is never imported."""

FEATURES = {
    "image": FeatureSpec((make.IMAGE_SIZE, make.IMAGE_SIZE, 1), "uint8"),
    WAVEFORM: FeatureSpec((make.SAMPLE_RATE,), "int16"),
    "mfcc": FeatureSpec((STEPS, COEFFICIENTS), "float32"),
    "video": FeatureSpec((make.FRAMES, make.FRAME_SIZE, make.FRAME_SIZE, 1), "uint8"),
    "text": FeatureSpec((make.MAX_WORDS,), "int32"),
    "words": FeatureSpec((), "int32"),
    "digit": FeatureSpec((), "int32"),
    "handwriting": FeatureSpec((), "int32"),
    "voice": FeatureSpec((), "str"),
}

Record = dict[str, Any]


def build_or_open(
    cache_dir: str | Path | None = None,
    config: DigitsGenerationConfig | None = None,
    limit: int | None = None,
) -> Store:
    """Opens the store of a generation config; builds it if it is missing.

    Args:
        cache_dir: Folder of prepared data; None for the cache of the user.
        config: Difficulty of each modality; None for that of the dataset.
        limit: Number of examples of each split; None for all. The first ones are the
            same with any limit.

    Raises:
        MissingDependencyError: It is missing, and the extra `demo` is not installed.
    """
    config = config or DigitsGenerationConfig()
    plan = {
        "version": make.VERSION,
        "recipe": dataclasses.asdict(config),
        "speakers": make.SPEAKERS,
        "accents": make.ACCENTS,
        "sentences": make.SENTENCES,
        "limit": limit,
    }
    plan_hash = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
    name = f"digits-{make.VERSION}-{plan_hash[:8]}"
    folder = cache_folder(name)
    if cache_dir:
        folder = local_path("cache_dir", cache_dir) / name
    if not folder.exists():
        _check_extras()
        manifest = plan | {"made_with": _versions()}
        with threadpool_limits(1):  # more threads sum in another order
            splits = _hashed(_splits(config, limit), manifest)
            write_store(folder, FEATURES, splits, manifest)
    return open_store(folder)


def coefficients(audio: np.ndarray) -> np.ndarray:
    """Maps one second, (16000) int16, to its MFCC, (63 13) float32."""
    waveform = audio.astype(np.float32) / 32768
    return mfcc(
        waveform, make.SAMPLE_RATE, COEFFICIENTS, n_fft=N_FFT, hop=HOP, bands=BANDS
    )


def _splits(
    config: DigitsGenerationConfig, limit: int | None
) -> dict[str, Iterator[Record]]:
    """Returns the examples of every split, generated lazily."""
    images, labels = _handwriting()
    chosen = _chosen(labels)
    reconstructed = make.pca_reconstruct(images, chosen["train"], config.energy)

    def without_audio(i: int) -> Record:
        digit = int(labels[i])
        text, words = make.sentence(digit, config, _rng("sentence", i))
        return {
            "image": reconstructed[i],
            "video": make.render_video(images[i], config, _rng("video", i)),
            "text": text,
            "words": words,
            "digit": digit,
            "handwriting": i,
        }

    def examples(split: str) -> Iterator[Record]:
        indices = [int(i) for i in chosen[split][:limit]]
        words = [_utterance(int(labels[i]), split, config, "voice", i) for i in indices]
        # Babble has the voices of its split, so that no voice is in two splits.
        babble = [
            _utterance(n % 10, split, config, "crowd", n)
            for n in range(BABBLE_UTTERANCES)
        ]
        others = [make.trim_silence(audio, rate) for rate, audio in speak(babble)]
        spoken = track(speak(words), len(indices), f"building digits, {split} split")
        for i, utterance, (rate, audio) in zip(indices, words, spoken, strict=True):
            word = make.trim_silence(audio, rate)
            noisy = make.add_noise(word, others, config, _rng("noise", i))
            audio_entries = {WAVEFORM: noisy, "mfcc": coefficients(noisy)}
            yield without_audio(i) | audio_entries | {"voice": utterance.voice}

    return {split: examples(split) for split in chosen}


def _utterance(
    digit: int, split: str, config: DigitsGenerationConfig, purpose: str, index: int
) -> Utterance:
    """Draws an utterance with the generator of a purpose and an example."""
    return make.draw_utterance(digit, split, config, _rng(purpose, index))


def _rng(purpose: str, index: int) -> np.random.Generator:
    """Returns a separate generator for every purpose and example."""
    # An example is then the same with any `limit`, and a change of one modality leaves
    # the bytes of the others as they are.
    return np.random.default_rng([*purpose.encode(), index])


def _handwriting() -> tuple[np.ndarray, np.ndarray]:
    """Returns handwritten digits, (1797 8 8) in [0, 1], and their labels, (1797)."""
    from sklearn.datasets import load_digits  # takes half a second

    bunch: Any = load_digits()
    return bunch.images / 16, bunch.target


def _chosen(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Returns split -> indices of its handwriting, stratified and shuffled."""
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
    """Returns the examples, and adds a hash of all of them to `manifest`.

    The hash is in the results: other versions of the libraries may give other bytes.
    """
    # One hash over all splits. It is set at the end of every split, so the last one
    # counts; `write_store` reads the manifest after the last example.
    digest = hashlib.sha256()

    def hashed(examples: Iterator[Record]) -> Iterator[Record]:
        for example in examples:
            for name, spec in FEATURES.items():
                value = example[name]
                text = spec.dtype == "str"
                digest.update(value.encode() if text else np.asarray(value).tobytes())
            yield example
        manifest["fingerprint"] = digest.hexdigest()[:16]

    return {split: hashed(examples) for split, examples in splits.items()}


def _check_extras() -> None:
    """Raises MissingDependencyError for the libraries of the first build."""
    for module in ("espeakng_loader", "librosa"):
        if importlib.util.find_spec(module) is None:
            raise missing_dependency(module, "demo", "building the digits dataset")


def _versions() -> dict[str, str]:
    """Returns the versions of the libraries that the bytes depend on."""
    names = ("espeakng-loader", "librosa", "numpy", "scikit-learn", "scipy")
    return {name: importlib.metadata.version(name) for name in names}
