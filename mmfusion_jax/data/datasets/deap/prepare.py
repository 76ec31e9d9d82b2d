"""Converts one DEAP participant from a pickle to a store."""

import hashlib
import json
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.storage.array_record_store import (
    FeatureSpec,
    Store,
    cache_folder,
    open_store,
    write_store,
)
from mmfusion_jax.data.storage.file_checksums import file_checksums
from mmfusion_jax.errors import DataError, shorten
from mmfusion_jax.safe_load.safe_pickle import read_pickle
from mmfusion_jax.safe_load.sandbox import memory_for, run_sandboxed

VERSION = 1
"""Part of the name of every store: increase it when the stored values change."""

RATE, BASELINE = 128, 3
"""Sample rate in Hz, and seconds before the video starts."""

CHANNELS, EEG = 40, 32
"""Number of channels, and of EEG channels, which are the first."""

RATINGS = ("valence", "arousal", "dominance", "liking")
"""Names of the ratings, in the order of the columns of the files."""

LOW, HIGH = 1.0, 9.0
"""Range of the ratings."""

SPLIT, SIGNALS = "seconds", "signals"
"""Names of the only split of a store, and of the entry of its records."""

EXPECTED_LAYOUT = (
    "a dict of `data` (trials, 40 channels, 63 seconds of 128 samples) and "
    "`labels` (trials, 4 ratings from 1 to 9)"
)


def open_or_prepare(file: Path) -> Store:
    """Opens the store of a participant; prepares it in the sandbox if it is missing.

    The store has one record per second after the baseline, trial by trial: "signals"
    (128 40) float32, every channel standardized over all records. Its manifest has
    "ratings", one list per trial, and "seconds", the length of a trial.

    Raises:
        DataError: The file is damaged or not as in `EXPECTED_LAYOUT`.
    """
    key = [VERSION, str(file.absolute()), file_checksums([file])[file]]
    digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()
    folder = cache_folder("deap") / f"{file.stem}-{digest[:16]}"
    if not folder.exists():
        run_sandboxed(
            "mmfusion_jax.data.datasets.deap.prepare:prepare_subject",
            {"file": str(file), "folder": str(folder)},
            NoneType,
            memory_gb=memory_for(file),
            cpu_seconds=900,
            timeout=1800,
            subject=f"reading {shorten(file.name)}",
        )
    return open_store(folder)


def prepare_subject(file: str, folder: str) -> None:
    """Writes the store of a participant; runs in the sandbox.

    Args:
        file: Path of the pickle.
        folder: Path of the store.
    """
    signals, ratings = _read(Path(file))
    trials, _, samples = signals.shape
    seconds = samples // RATE - BASELINE
    rows = signals[..., BASELINE * RATE :].swapaxes(1, 2)  # trials samples channels
    # Over all trials of the participant, also of a test participant: this reads neither
    # ratings nor other participants. One trial at a time saves memory, since squares
    # of all values are computed.
    standardizer = Standardizer.fit([RunningMoments.of(trial) for trial in rows])
    manifest = {"ratings": ratings.tolist(), "seconds": seconds}
    records = (
        {SIGNALS: second}
        for trial in rows
        for second in standardizer(trial).reshape(seconds, RATE, CHANNELS)
    )
    features = {SIGNALS: FeatureSpec((RATE, CHANNELS))}
    write_store(Path(folder), features, {SPLIT: records}, manifest)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns signals (trials channels samples) and ratings (trials 4), checked."""
    # Written by Python 2, whose strings hold the bytes of arrays.
    tree: Any = read_pickle(file, encoding="latin1")
    fields = tree if isinstance(tree, dict) else {}
    signals, ratings = (np.asarray(fields.get(name)) for name in ("data", "labels"))
    if problem := _shape_error(signals, ratings) or _value_error(signals, ratings):
        raise DataError(
            "D52",
            f"{file}: {problem}; expected {EXPECTED_LAYOUT}.",
            "download it again",
        )
    return signals, ratings


def _shape_error(signals: np.ndarray, ratings: np.ndarray) -> str:
    """Returns what is wrong with the shapes, or ""."""
    if signals.dtype.kind != "f" or signals.ndim != 3 or not len(signals):
        return f"data is {signals.dtype.name} {signals.shape}"
    if signals.shape[1] != CHANNELS:
        return f"data has {signals.shape[1]} channels"
    if signals.shape[2] % RATE or signals.shape[2] <= BASELINE * RATE:
        return f"data has {signals.shape[2]} samples"
    if ratings.dtype.kind != "f" or ratings.shape != (len(signals), len(RATINGS)):
        return f"labels are {ratings.dtype.name} {ratings.shape}"
    return ""


def _value_error(signals: np.ndarray, ratings: np.ndarray) -> str:
    """Returns what is wrong with the values, or ""."""
    if not np.isfinite(signals).all():
        return "data contains NaN or infinite values"
    if not ((ratings >= LOW) & (ratings <= HIGH)).all():
        return f"labels are not all from {LOW:g} to {HIGH:g}"
    return ""
