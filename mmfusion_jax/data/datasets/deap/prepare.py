"""One participant of DEAP: from the preprocessed pickle to a store of seconds."""

import hashlib
import json
from pathlib import Path
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
from mmfusion_jax.errors import DataError
from mmfusion_jax.safe_load.safe_pickle import read_pickle
from mmfusion_jax.safe_load.sandbox import memory_for, run_sandboxed

VERSION = 1
"""Part of the name of every store: raise it when the same file gives other values."""

RATE, BASELINE = 128, 3
"""Samples a second, and seconds before a film begins."""

CHANNELS, EEG = 40, 32
"""All channels, of which the first are EEG."""

RATINGS = ("valence", "arousal", "dominance", "liking")
LOW, HIGH = 1.0, 9.0
SPLIT, SIGNALS = "seconds", "signals"
EXPECTED_LAYOUT = (
    "a dict of `data` (trials, 40 channels, 128 samples for each of 63 seconds) and "
    "`labels` (trials, 4 ratings from 1 to 9)"
)


def open_or_prepare(file: Path) -> Store:
    """The seconds of a participant, read in the cage if they are not there yet.

    The store holds one record for each second after the baseline, the seconds of one
    trial after those of the one before: "signals" (128 40) float32, every channel with
    mean 0 and deviation 1 over all of them. Its manifest holds "ratings", one list for
    each trial, and "seconds", how many a trial has.

    Raises:
        DataError: the file is damaged or not as in `EXPECTED_LAYOUT`.
    """
    state = file.stat()
    known = [VERSION, str(file.absolute()), state.st_size, state.st_mtime_ns]
    digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    folder = cache_folder("deap") / f"{file.stem}-{digest[:16]}"
    if not folder.exists():
        run_sandboxed(
            "mmfusion_jax.data.datasets.deap.prepare:prepare",
            {"file": str(file), "folder": str(folder)},
            memory_gb=memory_for(file),
            cpu_seconds=900,
            timeout=1800,
            subject=f"reading {file.name}",
        )
    return open_store(folder)


def prepare_subject(file: str, folder: str) -> None:
    """Writes the store of a participant; meant for the cage.

    Args:
        file: the pickle.
        folder: where the store shall be.
    """
    signals, ratings = _read(Path(file))
    trials, _, samples = signals.shape
    seconds = samples // RATE - BASELINE
    rows = signals[..., BASELINE * RATE :].swapaxes(1, 2)  # trials samples channels
    standard = Standardizer.fit([RunningMoments.of(trial) for trial in rows])
    manifest = {"ratings": ratings.tolist(), "seconds": seconds}
    records = (
        {SIGNALS: second}
        for trial in rows
        for second in standard(trial).reshape(seconds, RATE, CHANNELS)
    )
    features = {SIGNALS: FeatureSpec((RATE, CHANNELS))}
    write_store(Path(folder), features, {SPLIT: records}, manifest)


def _read(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Signals (trials channels samples) and ratings (trials 4), checked."""
    # Written by Python 2, whose strings hold the bytes of arrays.
    tree: Any = read_pickle(file, encoding="latin1")
    parts = tree if isinstance(tree, dict) else {}
    signals, ratings = (np.asarray(parts.get(name)) for name in ("data", "labels"))
    if wrong := _misshapen(signals, ratings) or _unlikely(signals, ratings):
        raise DataError(
            "D52",
            f"{file}: {wrong}, but it should be {EXPECTED_LAYOUT}.",
            "download it again",
        )
    return signals, ratings


def _misshapen(signals: np.ndarray, ratings: np.ndarray) -> str:
    """What is wrong with the shapes, or ""."""
    if signals.dtype.kind != "f" or signals.ndim != 3 or not len(signals):
        return f"data is {signals.dtype} {signals.shape}"
    if signals.shape[1] != CHANNELS:
        return f"data has {signals.shape[1]} channels"
    if signals.shape[2] % RATE or signals.shape[2] <= BASELINE * RATE:
        return f"data has {signals.shape[2]} samples"
    if ratings.dtype.kind != "f" or ratings.shape != (len(signals), len(RATINGS)):
        return f"labels are {ratings.dtype} {ratings.shape}"
    return ""


def _unlikely(signals: np.ndarray, ratings: np.ndarray) -> str:
    """What is wrong with the values, or ""."""
    if not np.isfinite(signals).all():
        return "data holds values that are not finite"
    if not ((ratings >= LOW) & (ratings <= HIGH)).all():
        return f"labels are not all from {LOW:g} to {HIGH:g}"
    return ""
