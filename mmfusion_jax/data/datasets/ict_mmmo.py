"""ICT-MMMO: reviews of films, 20 steps aligned to words; most clips have no text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, RegressionTarget, dataset_loader
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import PROTOCOLS, SPLITS, cross_validation_split
from mmfusion_jax.errors import ConfigError, DataError, suggest
from mmfusion_jax.safe_load.npz import check_finite, read_from

SCORE, POSITIVE = "score", "positive"
CLASSES = ("not positive", "positive")
TARGET = RegressionTarget(1.0, 5.0, 3.0)
WIDTHS = {"text": 300, "audio": 74, "video": 36}
MODALITIES = tuple(WIDTHS)
STEPS = 20
COUNTS, COMPLETE = (220, 40, 80), 120
"""Clips of the official splits, and how many of them all have text."""

FILE = "mmmo.npz"
ARRAYS = tuple(
    f"{split}_{name}"
    for split in SPLITS
    for name in (*MODALITIES, "label")
    if (split, name) != ("train", "text")
)
EXPECTED_LAYOUT = """\
  folder/mmmo.npz    train_audio, train_video, train_label; the same and text for
      valid and for test; (n t f) each, labels (n) from 1 to 5"""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/mea.py:digits "
    "runs on embedded data, without this file"
)


def outline(
    *,
    fold: int = 0,
    folds: int = 1,
    protocol: str = "validation",
    keep_clips_without_text: bool = False,
    clip_quantile: float = 0.01,
    **_: Any,
) -> Dataset:
    """What `load_ict_mmmo` returns, with zeros for examples; reads nothing."""
    _check(fold, folds, protocol, keep_clips_without_text, clip_quantile)
    if folds == 1:
        rows = _official(np.repeat(SPLITS, COUNTS), protocol)
    else:
        rows = _folded(np.arange(COMPLETE), fold, folds, protocol)
    counts = {split: len(chosen) for split, chosen in rows.items()}
    counts["train"] += (sum(COUNTS) - COMPLETE) * keep_clips_without_text
    return outline_dataset(
        "mmmo",
        "ICT-MMMO",
        counts,
        {name: ((STEPS, width), "float32") for name, width in WIDTHS.items()},
        classes={POSITIVE: CLASSES},
        values={SCORE: TARGET},
    )


@dataset_loader(takes=("fold", "folds", "protocol"), outline=outline)
def load_ict_mmmo(
    data_dir: str,
    *,
    fold: int = 0,
    folds: int = 1,
    protocol: str = "validation",
    keep_clips_without_text: bool = False,
    clip_quantile: float = 0.01,
) -> Dataset:
    """Reviews of films by word: GloVe, COVAREP and FACET, and how good the film was.

    An example holds "text" (t 300), "audio" (t 74) and "video" (t 36), float32, over
    the same 20 steps. Steps in which a modality is all zero are masked; a clip without
    text has no step of it. Audio is cut off at quantiles, and every feature has mean 0
    and deviation 1, over the real steps of the training split. Text stays as it is
    where no training clip has any.

    Labels: "score", float32 from 1 to 5, and "positive", of `CLASSES`, a score above 3.

    Args:
        data_dir: folder with `mmmo.npz`.
        fold: number of the fold, below `folds`.
        folds: 1 for the official split, in which no training clip has text; above
            that, how many parts the complete clips are divided into, in an order that
            never changes.
        protocol: "honest" chooses the step on the validation split or the next fold,
            taken out of training; "fixed" and "paper" train on all but the test split.
        keep_clips_without_text: with folds, also train on the clips without text.
        clip_quantile: share of the values of each audio feature to cut off at either
            end.

    Raises:
        ConfigError: fold, folds, protocol, textless or tail cannot work.
        DataError: the file is missing or damaged.
    """
    _check(fold, folds, protocol, keep_clips_without_text, clip_quantile)
    raw, masks, score, part = _load(data_dir)
    if folds == 1:
        rows = _official(part, protocol)
    else:
        complete = np.flatnonzero(masks["text"].any(axis=1))
        rows = _folded(complete, fold, folds, protocol)
        if keep_clips_without_text:
            without = np.flatnonzero(~masks["text"].any(axis=1))
            rows["train"] = np.concatenate([rows["train"], without])
    train = rows["train"]
    raw["audio"] = _cut(
        raw["audio"], raw["audio"][train][masks["audio"][train]], clip_quantile
    )
    inputs = {n: _standard(x, masks[n], train) for n, x in raw.items()}
    labels = {SCORE: score, POSITIVE: (score > TARGET.neutral).astype(np.int32)}
    taken = lambda arrays, chosen: {name: x[chosen] for name, x in arrays.items()}
    sources = {
        split: InMemory(*(taken(a, chosen) for a in (inputs, masks, labels)))
        for split, chosen in rows.items()
    }
    names = np.array([f"{split} {i}" for i, split in enumerate(part)])
    return Dataset(
        "mmmo",
        "ICT-MMMO",
        sources,
        {POSITIVE: CLASSES},
        values={SCORE: TARGET},
        labels={split: source.labels for split, source in sources.items()},
        groups={split: names[chosen].tolist() for split, chosen in rows.items()},
        facts={
            "licence": "features released for research",
            "counts": {split: len(chosen) for split, chosen in rows.items()},
            "warnings": _warnings(masks["text"][train]),
        },
    )


def _official(part: np.ndarray, protocol: str) -> dict[str, np.ndarray]:
    """The rows of each split of the file; without "valid" they are for training."""
    rows = {split: np.flatnonzero(part == split) for split in SPLITS}
    if protocol != "validation":
        rows["train"] = np.concatenate([rows["train"], rows.pop("valid")])
    return rows


def _folded(
    complete: np.ndarray, fold: int, folds: int, protocol: str
) -> dict[str, np.ndarray]:
    """The rows of each split of a fold over the clips that are complete."""
    order = np.random.default_rng(0).permutation(complete).tolist()
    splits = cross_validation_split(
        order, fold, folds, protocol, max(1, len(order) // folds)
    )
    return {split: np.array(chosen) for split, chosen in splits.items()}


def _cut(x: np.ndarray, real: np.ndarray, tail: float) -> np.ndarray:
    """(n t f) within the quantiles of each feature over (n f) real steps."""
    low, high = np.quantile(real, [tail, 1 - tail], axis=0).astype(np.float32)
    return np.clip(x, low, high)


def _standard(x: np.ndarray, mask: np.ndarray, train: np.ndarray) -> np.ndarray:
    """(n t f) by the moments of the real steps of rows `train`; 0 where masked."""
    real = x[train][mask[train]]
    if len(real):
        x = Standardizer.fit([RunningMoments.of(real)])(x)
    return np.where(mask[..., None], x, np.float32(0))


def _warnings(text: np.ndarray) -> list[str]:
    """What a reader of results must know of (n t) masks of training text."""
    have = int(text.any(axis=1).sum())
    if have == len(text):
        return []
    said = f"{have} of {len(text)} training clips have text"
    return [f"{said}; config.data.folds=5 trains on complete clips"]


def _check(fold: int, folds: int, protocol: str, textless: bool, tail: float) -> None:
    """Raises ConfigError for arguments that cannot work."""
    if protocol not in PROTOCOLS:
        raise ConfigError(
            "C03", f"protocol={protocol!r} is unknown; {suggest(protocol, PROTOCOLS)}"
        )
    if folds == 1 and (fold or textless):
        raise ConfigError(
            "C06",
            f"fold={fold}, textless={textless}: the official split has one fold, and "
            "it trains on clips without text anyway.",
            "--config.data.folds=5",
        )
    if not 0 <= tail < 0.5:
        raise ConfigError(
            "C10", f"config.data.tail={tail} is out of range.", "0 to below 0.5"
        )


def _load(
    dir: str,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Inputs, masks, scores and split of all clips: train, then valid, then test."""
    arrays = read_from(dir, FILE, ARRAYS, EXPECTED_LAYOUT, FALLBACK_HINT)
    path = Path(dir).expanduser() / FILE
    check_finite(path, arrays)
    wrong = _misshapen(arrays)
    if wrong:
        raise DataError(
            "D52", f"{path}: {', '.join(wrong)} is not as in\n{EXPECTED_LAYOUT}"
        )
    width = arrays["test_text"].shape[-1]
    none = np.zeros((*arrays["train_audio"].shape[:2], width), np.float32)
    arrays["train_text"] = none
    joined = lambda name: np.concatenate([arrays[f"{s}_{name}"] for s in SPLITS])
    inputs = {name: joined(name).astype(np.float32) for name in MODALITIES}
    masks = {name: np.asarray(x.any(axis=-1)) for name, x in inputs.items()}
    counts = [len(arrays[f"{split}_label"]) for split in SPLITS]
    part = np.repeat(SPLITS, counts)
    return inputs, masks, joined("label").astype(np.float32), part


def _misshapen(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The arrays whose shape or range does not fit those of the test split."""
    wrong = []
    steps = arrays["test_audio"].shape[1:2]
    for name, values in arrays.items():
        split, kind = name.split("_")
        count = arrays[f"{split}_label"].shape[:1]
        shape = count + steps + arrays[f"test_{kind}"].shape[2:]
        if kind == "label":
            bad = values.ndim != 1 or not len(values)
            bad = bad or values.min() < TARGET.low or values.max() > TARGET.high
        else:
            bad = values.ndim != 3 or values.shape != shape
        wrong += [name] if bad else []
    return wrong
