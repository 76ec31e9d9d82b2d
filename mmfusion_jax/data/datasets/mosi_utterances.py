"""CMU-MOSI utterances with context."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from mmfusion_jax.data.dataset import (
    Dataset,
    RegressionTarget,
    dataset_loader,
    unique_ids,
)
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.option_checks import check_at_least
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import check_protocol
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    join_names,
    shown,
    shown_name,
    suggest,
)
from mmfusion_jax.option_types import NonNegativeInt
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.predictor_file import Preprocessing
from mmfusion_jax.safe_load.npz import check_finite, read_from

POLARITY, SCORE = "polarity", "score"
CLASSES = ("negative", "positive")
TARGET = RegressionTarget(-3.0, 3.0, family="sentiment")
WIDTHS = {"text": 100, "audio": 73, "video": 100}
MODALITIES = tuple(WIDTHS)
LONGEST = 63
"""Number of utterances of the longest video."""

COUNTS, SCORED = (1207, 240, 752), (1204, 240, 751)
"""Number of utterances in train, valid and test, and of those with a score."""

ARRAYS = (*MODALITIES, "video_id", "segment", "label_binary", "label_regression")
VALID = "suggested_valid"
EXPECTED_LAYOUT = """\
  folder/train.npz, folder/test.npz    text, audio, video (n f each), video_id,
      segment, label_binary (0 or 1), label_regression (-3..3, NaN for none)
  folder/train.npz                     also suggested_valid (bool)"""
FALLBACK_HINT = (
    "python -m mmfusion_jax.main --config=configs/mea.py:digits "
    "runs on embedded data, without these files"
)
OPTIMISTIC = (
    "text and video features were trained with the labels of the validation videos: "
    "validation scores are optimistic, test scores are not"
)

Table = Mapping[str, np.ndarray]


def outline(
    *,
    label: str = POLARITY,
    context_before: NonNegativeInt = 10,
    context_after: NonNegativeInt = 10,
    protocol: str = "validation",
    **_: Any,
) -> Dataset:
    """Returns the outline of `load_mosi_utterances`; reads nothing."""
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
    context_before: NonNegativeInt = 10,
    context_after: NonNegativeInt = 10,
    protocol: str = "validation",
) -> Dataset:
    """Loads one example per utterance, with its context in the same video.

    The inputs of an example are "text", "audio" and "video", (t f+1) float32, one step
    per utterance in the order of the video; the last feature is 1 at the target
    utterance and 0 elsewhere. The others are standardized over the utterances of the
    training split. Padding is at the end.

    Labels: "polarity", with the classes `CLASSES`, and, if it is the label in use,
    "score", float32 from -3 to 3. The few utterances without a score are then context
    only.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.mosi_utterances("no_such_folder")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: Folder with `train.npz` and `test.npz`.
        label: The label in use, "polarity" or "score".
        context_before: Number of utterances before the target utterance.
        context_after: Number of utterances after it.
        protocol: "validation" selects the checkpoint on the videos marked
            `suggested_valid`, which are held out from training; "fixed_epochs" and
            "as_published" train on all training videos.

    Raises:
        ConfigError: The label or the protocol is unknown, or a number is negative.
        DataError: A file is missing, damaged or does not match the other.

    Reference:
        The files of bc-LSTM (Poria et al. 2017), and its split: 62 training and 31 test
        videos.
    Deviation:
        Only this split may be used. The text and video features come from networks
        trained with the labels of the 62 training videos: with any other split, test
        videos would be among their training data.
    """
    _check(label, context_before, context_after, protocol)
    tables = _splits(data_dir, protocol)
    train = tables["train"]
    standardizers = {
        name: Standardizer.fit([RunningMoments.of(train[name])]) for name in MODALITIES
    }
    # No window is longer than the longest video, whatever the context.
    longest = max(np.bincount(_videos(table)[1]).max() for table in tables.values())
    length = int(min(context_before + 1 + context_after, longest))
    sources, ids = {}, {}
    for split, table in tables.items():
        values = {name: standardizers[name](table[name]) for name in MODALITIES}
        index, mask = windows(_videos(table)[1], context_before, context_after, length)
        labels = _labels(table, label)
        # Utterances without a score are dropped only now: they are context of others.
        rows = np.isfinite(labels.get(SCORE, np.zeros(len(index))))
        names = zip(table["video_id"][rows], table["segment"][rows], strict=True)
        ids[split] = [f"{video}/{segment}" for video, segment in names]
        sources[split] = InMemory(
            {name: _with_context(x, index, mask)[rows] for name, x in values.items()},
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
            "license": "research use",
            "counts": {split: len(source) for split, source in sources.items()},
            "videos": {s: len(_videos(table)[0]) for s, table in tables.items()},
            "steps": length,
            "warnings": [OPTIMISTIC] if "valid" in tables else [],
        },
        example_ids=unique_ids(ids),
        preprocessing=Preprocessing(
            {name: one.scaling for name, one in standardizers.items()}
        ),
    )


def windows(
    video: np.ndarray, before: int, after: int, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the context of every utterance in the same video.

    Args:
        video: Index of the video of each utterance, (n), ascending.
        before: Maximum number of utterances before the target.
        after: Maximum number of utterances after it.
        length: Number of steps t; at least the longest window.

    Returns:
        The utterance of each step, (n t) int, the target itself where it is padding,
        and the mask, (n t) bool.
    """
    row = np.arange(len(video))[:, None]
    first = np.searchsorted(video, video)[:, None]
    end = np.searchsorted(video, video, side="right")[:, None]
    index = np.maximum(row - before, first) + np.arange(length)
    mask = index < np.minimum(row + after + 1, end)
    # After the end of a video the row itself: a valid index, also after the last video,
    # whose values are set to 0 afterwards.
    return np.where(mask, index, row), mask


def _with_context(x: np.ndarray, index: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Maps (n f) utterances to (n t f+1) windows with the target flag."""
    target = index == np.arange(len(index))[:, None]
    joined = np.concatenate([x[index], target[..., None]], axis=-1, dtype=np.float32)
    return np.where(mask[..., None], joined, np.float32(0))


def _videos(table: Table) -> tuple[np.ndarray, np.ndarray]:
    """Returns the names of the videos, and the index of that of each utterance."""
    return np.unique(table["video_id"], return_inverse=True)


def _labels(table: Table, label: str) -> dict[str, np.ndarray]:
    """Returns the labels that a run on `label` reads; NaN for a missing score."""
    labels: dict[str, np.ndarray] = {POLARITY: table["label_binary"].astype(np.int32)}
    if label == SCORE:
        labels[SCORE] = table["label_regression"].astype(np.float32)
    return labels


def _check(label: str, before: int, after: int, protocol: str) -> None:
    """Raises ConfigError for invalid arguments."""
    if label not in (POLARITY, SCORE):
        raise ConfigError(
            "C07",
            f"config.data.label={shown(label)} is not a label of CMU-MOSI by "
            "utterance.",
            suggest(label, (POLARITY, SCORE)),
        )
    check_protocol(protocol)
    check_at_least(0, context_before=before, context_after=after)


def _splits(data_dir: str, protocol: str) -> dict[str, Table]:
    """Returns the utterances of each split, in the order of their videos."""
    train, test = (_table(data_dir, split) for split in ("train", "test"))
    folder = local_path("data_dir", data_dir)
    for name in MODALITIES:
        if train[name].shape[1:] != test[name].shape[1:]:
            raise DataError(
                "D52",
                f"{folder}: {shown_name(name)} has different features in "
                "test.npz and train.npz.",
                "use files from the same source",
            )
    held_out = train[VALID]
    if protocol != "validation":
        return {"train": train, "test": test}
    if held_out.all() or not held_out.any():
        raise DataError(
            "D45",
            "config.protocol='validation' requires that suggested_valid in train.npz "
            "marks some videos, but not all.",
            "--config.protocol=fixed_epochs",
        )
    chosen = {"train": ~held_out, "valid": held_out}
    parts = {s: {k: v[rows] for k, v in train.items()} for s, rows in chosen.items()}
    return {**parts, "test": test}


def _table(data_dir: str, split: str) -> Table:
    """Returns the utterances of one file, sorted and checked."""
    file = f"{split}.npz"
    names = (*ARRAYS, VALID) if split == "train" else ARRAYS
    arrays = read_from(data_dir, file, names, EXPECTED_LAYOUT, FALLBACK_HINT)
    path = local_path("data_dir", data_dir) / file
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
            "D52",
            f"{path}: invalid {join_names(wrong, file)}. Expected layout:\n"
            f"{EXPECTED_LAYOUT}",
        )
    # By video and then by segment (the last key is the first to sort by): `windows`
    # needs the utterances of a video next to each other and in order.
    order = np.lexsort([arrays["segment"], arrays["video_id"]])
    return {name: values[order] for name, values in arrays.items()}
