"""ICT-MMMO: film reviews, 20 word-aligned steps; most clips have no text."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias

import numpy as np

from mmfusion_jax.data.dataset import Dataset, RegressionTarget, dataset_loader
from mmfusion_jax.data.in_memory import InMemory
from mmfusion_jax.data.option_checks import out_of_range
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.preprocessing import RunningMoments, Standardizer
from mmfusion_jax.data.splits import SPLITS, check_protocol, cross_validation_split
from mmfusion_jax.errors import ConfigError, DataError, join_names, shown
from mmfusion_jax.option_types import Range
from mmfusion_jax.paths import local_path
from mmfusion_jax.results.predictor_file import Clipping, Preprocessing
from mmfusion_jax.safe_load.npz import check_finite, read_from

SCORE, POSITIVE = "score", "positive"
CLASSES = ("not positive", "positive")
TARGET = RegressionTarget(1.0, 5.0, 3.0)
WIDTHS = {"text": 300, "audio": 74, "video": 36}
Quantile: TypeAlias = Annotated[float, Range(0, 0.5, below=True)]
MODALITIES = tuple(WIDTHS)
STEPS = 20
COUNTS, COMPLETE = (220, 40, 80), 120
"""Number of clips of the official splits, and of all clips with text."""

FILE = "mmmo.npz"
# The file has no train_text: none of the clips of the official training split has text.
ARRAYS = tuple(
    f"{split}_{name}"
    for split in SPLITS
    for name in (*MODALITIES, "label")
    if (split, name) != ("train", "text")
)
EXPECTED_LAYOUT = """\
  folder/mmmo.npz    train_audio, train_video, train_label; the same and text for
      valid and test; (n t f) each, labels (n) from 1 to 5"""
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
    clip_quantile: Quantile = 0.01,
    **_: Any,
) -> Dataset:
    """Returns the outline of `load_ict_mmmo`; reads nothing."""
    _check(fold, folds, protocol, keep_clips_without_text, clip_quantile)
    if folds == 1:
        rows = _official_split(np.repeat(SPLITS, COUNTS), protocol)
    else:
        rows = _fold_rows(np.arange(COMPLETE), fold, folds, protocol)
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
    clip_quantile: Quantile = 0.01,
) -> Dataset:
    """Loads film reviews by word: GloVe, COVAREP and FACET features, and the rating.

    The inputs of an example are "text" (t 300), "audio" (t 74) and "video" (t 36),
    float32, over the same 20 steps. Steps in which a modality is all zeros are masked;
    in a clip without text the text is missing. Audio is clipped at quantiles and every
    feature is standardized, over the valid steps of the training split. Text stays
    unchanged if no training clip has text.

    Labels: "score", float32 from 1 to 5, and "positive", with the classes `CLASSES`: a
    score above 3.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.mmmo("no_such_folder")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: Folder with `mmmo.npz`.
        fold: Index of the fold.
        folds: 1 for the official split, in which no training clip has text; else the
            number of cross-validation folds over the clips with text, in a fixed order.
        protocol: "validation" selects the checkpoint on the validation split or the
            next fold, which is held out from training; "fixed_epochs" and
            "as_published" train on everything but the test split.
        keep_clips_without_text: With folds, also train on the clips without text.
        clip_quantile: Fraction of the values of each audio feature to clip at each end.

    Raises:
        ConfigError: An argument is invalid.
        DataError: The file is missing or damaged.

    Reference:
        Wöllmer et al. 2013; features and official split of MFN (Zadeh et al. 2018).
    """
    _check(fold, folds, protocol, keep_clips_without_text, clip_quantile)
    raw, masks, score, official = _load(data_dir)
    if folds == 1:
        rows = _official_split(official, protocol)
    else:
        complete = np.flatnonzero(masks["text"].any(axis=1))
        rows = _fold_rows(complete, fold, folds, protocol)
        if keep_clips_without_text:
            without = np.flatnonzero(~masks["text"].any(axis=1))
            rows["train"] = np.concatenate([rows["train"], without])
    train = rows["train"]
    # COVAREP features have outliers of up to 64 standard deviations, which would
    # determine mean and standard deviation.
    low, high = _quantiles(raw["audio"][train][masks["audio"][train]], clip_quantile)
    raw["audio"] = np.clip(raw["audio"], low, high)
    standardizers = {n: _standardizer(x, masks[n], train) for n, x in raw.items()}
    inputs = {n: _standardize(x, masks[n], standardizers[n]) for n, x in raw.items()}
    labels = {SCORE: score, POSITIVE: (score > TARGET.neutral).astype(np.int32)}
    examples = InMemory(inputs, masks, labels)
    sources = {split: examples.rows(chosen) for split, chosen in rows.items()}
    # The file names neither clips nor speakers, so the leakage check only finds a clip
    # that is in two splits.
    names = np.array([f"{split} {i:d}" for i, split in enumerate(official)])
    ids = {split: names[chosen].tolist() for split, chosen in rows.items()}
    return Dataset(
        "mmmo",
        "ICT-MMMO",
        sources,
        {POSITIVE: CLASSES},
        values={SCORE: TARGET},
        labels={split: source.labels for split, source in sources.items()},
        groups=ids,
        facts={
            "license": "features released for research",
            "counts": {split: len(chosen) for split, chosen in rows.items()},
            "warnings": _warnings(masks["text"][train]),
        },
        example_ids=ids,
        preprocessing=Preprocessing(
            {name: one.scaling for name, one in standardizers.items() if one},
            clipping={"audio": Clipping(low.tolist(), high.tolist())},
        ),
    )


def _official_split(split_of: np.ndarray, protocol: str) -> dict[str, np.ndarray]:
    """Returns the rows of each split; without validation, "train" includes "valid"."""
    rows = {split: np.flatnonzero(split_of == split) for split in SPLITS}
    if protocol != "validation":
        rows["train"] = np.concatenate([rows["train"], rows.pop("valid")])
    return rows


def _fold_rows(
    complete: np.ndarray, fold: int, folds: int, protocol: str
) -> dict[str, np.ndarray]:
    """Returns the rows of each split of a fold over the clips with text."""
    # Permuted, since the clips are in the order of the official splits. The seed is
    # fixed, so that runs with several seeds have the same folds.
    order = np.random.default_rng(0).permutation(complete).tolist()
    splits = cross_validation_split(
        order, fold, folds, protocol, max(1, len(order) // folds)
    )
    return {split: np.array(chosen) for split, chosen in splits.items()}


def _quantiles(valid: np.ndarray, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns a low and a high quantile of each feature of (n f) steps, (f) each."""
    low, high = np.quantile(valid, [quantile, 1 - quantile], axis=0).astype(np.float32)
    return low, high


def _standardizer(
    x: np.ndarray, mask: np.ndarray, train: np.ndarray
) -> Standardizer | None:
    """Fits the valid steps of rows `train` of (n t f); None if there are none."""
    valid = x[train][mask[train]]
    return Standardizer.fit([RunningMoments.of(valid)]) if len(valid) else None


def _standardize(
    x: np.ndarray, mask: np.ndarray, standardizer: Standardizer | None
) -> np.ndarray:
    """Standardizes (n t f); 0 where masked."""
    x = standardizer(x) if standardizer else x
    return np.where(mask[..., None], x, np.float32(0))


def _warnings(mask: np.ndarray) -> list[str]:
    """Returns a warning if training clips have no text, from its mask (n t)."""
    with_text = int(mask.any(axis=1).sum())
    if with_text == len(mask):
        return []
    return [
        f"{with_text:d} of {len(mask)} training clips have text; config.data.folds=5 "
        "trains on clips with text"
    ]


def _check(
    fold: int, folds: int, protocol: str, keep_clips_without_text: bool, quantile: float
) -> None:
    """Raises ConfigError for invalid arguments."""
    check_protocol(protocol)
    if folds == 1 and (fold or keep_clips_without_text):
        raise ConfigError(
            "C06",
            f"config.data.fold={fold} and "
            f"config.data.keep_clips_without_text={shown(keep_clips_without_text)} "
            "need config.data.folds above 1: the official split has one fold and "
            "trains on clips without text anyway.",
            "--config.data.folds=5",
        )
    if not 0 <= quantile < 0.5:
        raise out_of_range("clip_quantile", quantile, "0 to below 0.5")


def _load(
    data_dir: str,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Returns inputs, masks, scores and splits of all clips, by split."""
    arrays = read_from(data_dir, FILE, ARRAYS, EXPECTED_LAYOUT, FALLBACK_HINT)
    path = local_path("data_dir", data_dir) / FILE
    check_finite(path, arrays)
    wrong = _misshapen(arrays)
    if wrong:
        raise DataError(
            "D52",
            f"{path}: invalid {join_names(wrong)}. Expected layout:\n{EXPECTED_LAYOUT}",
        )
    width = arrays["test_text"].shape[-1]
    no_text = np.zeros((*arrays["train_audio"].shape[:2], width), np.float32)
    arrays["train_text"] = no_text
    concatenate = lambda name: np.concatenate([arrays[f"{s}_{name}"] for s in SPLITS])
    inputs = {name: concatenate(name).astype(np.float32) for name in MODALITIES}
    # The file has no lengths; steps of zeros occur within a clip and at its ends.
    masks = {name: np.asarray(x.any(axis=-1)) for name, x in inputs.items()}
    counts = [len(arrays[f"{split}_label"]) for split in SPLITS]
    splits = np.repeat(SPLITS, counts)
    return inputs, masks, concatenate("label").astype(np.float32), splits


def _misshapen(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Returns the arrays whose shape or range is invalid."""
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
