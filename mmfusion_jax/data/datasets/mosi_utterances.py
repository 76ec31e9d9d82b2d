"""CMU-MOSI by utterance: what is said of a film, among what was said around it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import Dataset, RegressionTarget, dataset_loader
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import PROTOCOLS
from mmfusion_jax.errors import ConfigError, DataError, suggest
from mmfusion_jax.safe_load.npz import check_finite, read_from

POLARITY, SCORE = "polarity", "score"
CLASSES = ("negative", "positive")
TARGET = RegressionTarget(-3.0, 3.0, family="sentiment")
WIDTHS = {"text": 100, "audio": 73, "video": 100}
MODALITIES = tuple(WIDTHS)
LONGEST = 63
"""Utterances of the longest video."""

COUNTS, SCORED = (1207, 240, 752), (1204, 240, 751)
"""Utterances in train, valid and test, and those of them that have a score."""

ARRAYS = (*MODALITIES, "video_id", "segment", "label_binary", "label_regression")
VALID = "suggested_valid"
EXPECTED_LAYOUT = """\
  folder/train.npz, folder/test.npz    text, audio, video (n f each), video_id,
      segment, label_binary (0 or 1), label_regression (-3..3, NaN for none)
  folder/train.npz                     suggested_valid (bool) besides"""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/mea.py:digits "
    "runs on embedded data, without these files"
)
OPTIMISTIC = (
    "text and video features were learned with the labels of the validation videos: "
    "their validation scores are optimistic, those of the test split are not"
)

Table = Mapping[str, np.ndarray]


def outline(
    *,
    label: str = POLARITY,
    context_before: int = 10,
    context_after: int = 10,
    protocol: str = "validation",
    **_: Any,
) -> Dataset:
    """What `load_mosi_utterances` returns, with zeros for examples; reads nothing."""
    _check(label, context_before, context_after, protocol)
    train, valid, test = SCORED if label == SCORE else COUNTS
    counts = {"train": train, "valid": valid, "test": test}
    if protocol != "validation":
        counts = {"train": train + valid, "test": test}
    steps = min(context_before + 1 + context_after, LONGEST)
    return outline_dataset(
        "mosi_utterances",
        "CMU-MOSI by utterance",
        counts,
        {name: ((steps, width + 1), "float32") for name, width in WIDTHS.items()},
        classes={POLARITY: CLASSES},
        values={SCORE: TARGET} if label == SCORE else {},
    )


@dataset_loader(takes=("label", "protocol"), outline=outline)
def load_mosi_utterances(
    data_dir: str,
    *,
    label: str = POLARITY,
    context_before: int = 10,
    context_after: int = 10,
    protocol: str = "validation",
) -> Dataset:
    """One example for each utterance: it and its neighbours in the same video.

    An example holds "text", "audio" and "video", (t f+1) float32, a step for each
    utterance in the order of the video; the last feature is 1 at the utterance whose
    label is asked and 0 elsewhere. The others have mean 0 and deviation 1 over the
    utterances of the training split. Padding is at the end.

    Labels: "polarity", of `CLASSES`, and, where it is the label in use, "score",
    float32 from -3 to 3. The few utterances without a score are then neighbours only.

    Args:
        data_dir: folder with `train.npz` and `test.npz`.
        label: the label in use, "polarity" or "score".
        context_before: utterances before the asked one to include, 0 for none.
        context_after: utterances after it.
        protocol: "honest" chooses the step on the videos marked `suggested_valid`,
            taken out of training; "fixed" and "paper" train on all training videos.

    Raises:
        ConfigError: the label or the protocol is unknown, or a number is negative.
        DataError: a file is missing, damaged or does not fit the other.

    Deviation:
        Only this split may be used. The text and video features come from networks
        that were trained with the labels of the 62 training videos, so any test video
        among them would be known by heart.
    """
    _check(label, context_before, context_after, protocol)
    tables = _splits(data_dir, protocol)
    train = tables["train"]
    standards = {
        name: Standardizer.fit([RunningMoments.of(train[name])]) for name in MODALITIES
    }
    longest = max(np.bincount(_videos(table)[1]).max() for table in tables.values())
    length = int(min(context_before + 1 + context_after, longest))
    sources = {}
    for split, table in tables.items():
        values = {name: standards[name](table[name]) for name in MODALITIES}
        place, mask = windows(_videos(table)[1], context_before, context_after, length)
        labels = _labels(table, label)
        rows = np.isfinite(labels.get(SCORE, np.zeros(len(place))))
        sources[split] = InMemory(
            {name: _around(x, place, mask)[rows] for name, x in values.items()},
            dict.fromkeys(MODALITIES, mask[rows]),
            {name: label[rows] for name, label in labels.items()},
        )
    return Dataset(
        "mosi_utterances",
        "CMU-MOSI by utterance",
        sources,
        {POLARITY: CLASSES},
        values={SCORE: TARGET} if label == SCORE else {},
        labels={split: source.labels for split, source in sources.items()},
        groups={split: _videos(table)[0].tolist() for split, table in tables.items()},
        facts={
            "licence": "research use",
            "counts": {split: len(source) for split, source in sources.items()},
            "videos": {s: len(_videos(table)[0]) for s, table in tables.items()},
            "steps": length,
            "warnings": [OPTIMISTIC] if "valid" in tables else [],
        },
    )


def windows(
    video: np.ndarray, before: int, after: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """For every utterance, the rows of those around it in the same video.

    Args:
        video: number of the video of each utterance, (n), rising.
        before: most rows before the utterance.
        after: most rows after it.
        length: places t; enough for the longest window.

    Returns:
        The rows in each place, (n t) int, the utterance itself where there is none,
        and which places are real, (n t) bool.
    """
    row = np.arange(len(video))[:, None]
    first = np.searchsorted(video, video)[:, None]
    end = np.searchsorted(video, video, side="right")[:, None]
    place = np.maximum(row - before, first) + np.arange(length)
    mask = place < np.minimum(row + after + 1, end)
    return np.where(mask, place, row), mask


def _around(x: np.ndarray, place: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(n f) utterances to (n t f+1) windows with the mark of the asked one."""
    asked = place == np.arange(len(place))[:, None]
    joined = np.concatenate([x[place], asked[..., None]], axis=-1, dtype=np.float32)
    return np.where(mask[..., None], joined, np.float32(0))


def _videos(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """The names of the videos, and the number of that of each utterance."""
    return np.unique(table["video_id"], return_inverse=True)


def _labels(table: Table, label: str) -> dict[str, np.ndarray]:
    """The labels that a run on `label` may read; NaN for no score."""
    labels: dict[str, np.ndarray] = {POLARITY: table["label_binary"].astype(np.int32)}
    if label == SCORE:
        labels[SCORE] = table["label_regression"].astype(np.float32)
    return labels


def _check(label: str, before: int, after: int, protocol: str) -> None:
    """Raises ConfigError for arguments that cannot work."""
    if label not in (POLARITY, SCORE):
        raise ConfigError(
            "C07",
            f"config.data.label={label!r} is no label of CMU-MOSI by utterance.",
            suggest(label, (POLARITY, SCORE)),
        )
    if protocol not in PROTOCOLS:
        raise ConfigError(
            "C03", f"protocol={protocol!r} is unknown; {suggest(protocol, PROTOCOLS)}"
        )
    for name, count in {"before": before, "after": after}.items():
        if count < 0:
            raise ConfigError(
                "C10", f"config.data.{name}={count} is negative.", "0 or more"
            )


def _splits(dir: str, protocol: str) -> dict[str, Table]:
    """The utterances of each split, in the order of their videos."""
    train, test = (_table(dir, split) for split in ("train", "test"))
    for name in MODALITIES:
        if train[name].shape[1:] != test[name].shape[1:]:
            raise DataError(
                "D52",
                f"{Path(dir).expanduser()}: {name} has other features in test.npz "
                "than in train.npz.",
                "take both from the same source",
            )
    held = train[VALID]
    if protocol != "validation":
        return {"train": train, "test": test}
    if held.all() or not held.any():
        raise DataError(
            "D45",
            "protocol='honest' needs some videos marked suggested_valid in train.npz, "
            "and some that are not.",
            "--config.protocol=fixed",
        )
    chosen = {"train": ~held, "valid": held}
    parts = {s: {k: v[rows] for k, v in train.items()} for s, rows in chosen.items()}
    return {**parts, "test": test}


def _table(dir: str, split: str) -> Table:
    """The utterances of one file, sorted, and checked by themselves."""
    file = f"{split}.npz"
    names = (*ARRAYS, VALID) if split == "train" else ARRAYS
    arrays = read_from(dir, file, names, EXPECTED_LAYOUT, FALLBACK_HINT)
    path = Path(dir).expanduser() / file
    check_finite(path, {name: arrays[name] for name in MODALITIES})
    wrong = [
        name
        for name, values in arrays.items()
        if values.shape[:1] != arrays["video_id"].shape
        or values.ndim != (2 if name in MODALITIES else 1)
    ]
    score = arrays["label_regression"]
    if not np.isin(arrays["label_binary"], (0, 1)).all():
        wrong.append("label_binary")
    if (np.abs(score[np.isfinite(score)]) > TARGET.high).any():
        wrong.append("label_regression")
    if wrong or not len(score):
        raise DataError(
            "D52", f"{path}: {', '.join(wrong) or file} is not as in\n{EXPECTED_LAYOUT}"
        )
    order = np.lexsort([arrays["segment"], arrays["video_id"]])
    return {name: values[order] for name, values in arrays.items()}
