"""Any folder of clips with a table of labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip
from mmfusion_jax.data.dataset import Dataset, dataset_loader
from mmfusion_jax.data.datasets.prepared_clips import assemble
from mmfusion_jax.data.media.clip_spec import MODALITIES, ClipSpec, DecodeJob
from mmfusion_jax.data.media.decode import HOP
from mmfusion_jax.data.media.decode_clips import decode_all
from mmfusion_jax.data.media.labels_csv import LabelRow, read_labels
from mmfusion_jax.data.media.resize import FULL_FRAME, SquareResize
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.splits import SPLITS, random_splits
from mmfusion_jax.errors import ConfigError, DataError

LABEL = "label"
EXPECTED_LAYOUT = """\
  clips/labels.csv   file,label[,split][,speaker][,start,end]
  clips/a.mp4        any file that holds pictures, sound or both
  clips/more/b.wav
  start and end are seconds; split is train, valid or test"""
FALLBACK_HINT = "python -m mmfusion_jax.main --config=configs/cfn_sr.py"


def outline(
    *,
    modalities: Sequence[str] = MODALITIES,
    frames: int = 30,
    size: int = 112,
    sample_rate: int = 22050,
    duration: float | None = None,
    n_mfcc: int = 13,
    classes: Sequence[str] = (),
    **_: Any,
) -> Dataset:
    """What `load_clips` returns, with zeros for examples; reads nothing.

    Their number is not known: one of each split stands for all.

    Raises:
        DataError: without the clips, `classes` and `duration` must be given.
    """
    if not classes or not duration:
        raise DataError(
            "D40",
            "the clips are your own: their classes and length are not known.",
            "--config.data.dir=FOLDER, or without clips "
            "--config.data.classes=a,b --config.data.duration=3",
        )
    shapes = {
        "audio": ((1 + round(sample_rate * duration) // HOP, n_mfcc), "float32"),
        "video": ((frames, size, size, 3), "uint8"),
    }
    return outline_dataset(
        "clips",
        "clips",
        dict.fromkeys(SPLITS, 1),
        {name: shapes[name] for name in modalities},
        classes={LABEL: tuple(classes)},
    )


@dataset_loader(outline=outline)
def load_clips(
    data_dir: str,
    labels: str = "",
    *,
    modalities: Sequence[str] = MODALITIES,
    frames: int = 30,
    size: int = 112,
    resize_mode: str = "crop",
    crop_box: Sequence[float] = FULL_FRAME,
    rgb: bool = True,
    sample_rate: int = 22050,
    offset: float = 0.0,
    duration: float | None = None,
    n_mfcc: int = 13,
    pad_mode: str = "reflect",
    noise_snr_db: float | None = None,
    noise_seed: int = 0,
    standardize: bool = True,
    augment: bool = False,
    classes: Sequence[str] = (),
    speaker_column: str = "speaker",
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    split_seed: int = 0,
    strict: bool = False,
    workers: int | None = None,
    timeout: float = 120.0,
) -> Dataset:
    """Clips of one's own, decoded once and then read from the cache.

    An example holds "video", (frames size size 3) uint8, and "audio", (t n_mfcc)
    float32 padded to the longest clip. A clip without pictures or without sound is
    kept, with that modality masked.

    Args:
        data_dir: folder of the clips.
        labels: the table, beside the clips or anywhere; "" means `labels.csv` in
            `data_dir`. Its columns are file, label and perhaps split, speaker, start,
            end.
        modalities: which of "audio" and "video" to take.
        frames: per clip, evenly spaced in time.
        size: side of a frame in pixels.
        resize_mode: "crop" takes the middle square, "pad" adds black bars, "squeeze"
            distorts.
        crop_box: left, top, right, bottom of the part of the frame to use, as shares,
            where the camera stands still.
        rgb: False keeps the brightness, three times.
        sample_rate: of the sound, in Hz.
        offset: seconds of sound to leave out at the beginning.
        duration: seconds of sound to take; None or 0 takes all.
        n_mfcc: coefficients of a sound frame.
        pad_mode: of the edges of the sound, "reflect" or "constant".
        noise_snr_db: white noise added to the sound; None adds none.
        noise_seed: of that noise.
        standardize: bring the MFCC to mean 0 and deviation 1 by the training split.
        augment: random resized crop and flip of the training videos.
        classes: the labels that may occur, in this order; () takes those that do,
            sorted.
        speaker_column: the column that tells who is seen and heard.
        val_fraction: of the clips, for choosing the step; without a split column.
        test_fraction: of the clips; without a split column.
        split_seed: of the random split.
        strict: stop at a file that cannot be decoded instead of leaving it out.
        workers: processes that decode; None takes one for each core.
        timeout: seconds that one file may take.

    Raises:
        ConfigError: an option is out of range.
        DataError: folder, table or clips are missing or wrong.
        MissingDependencyError: PyAV, Pillow or librosa is not installed.
    """
    folder, table = _places(data_dir, labels)
    recipe = ClipSpec(
        tuple(modalities), frames, size, rgb, sample_rate, offset, duration or None,
        n_mfcc, pad_mode, noise_snr_db, noise_seed,
    )  # fmt: skip
    rows = read_labels(table, folder, classes, speaker_column)
    look = SquareResize(size, resize_mode, tuple(crop_box))
    jobs = [
        DecodeJob(
            row.key, folder / row.file, folder / row.file, look, row.start, row.end
        )
        for row in rows
    ]
    prepared = decode_all(
        "clips", jobs, recipe, strict=strict, workers=workers, timeout=timeout
    )
    rows = [row for row in rows if row.key in prepared.index]
    groups = _groups(rows)
    shares = _shares(val_fraction, test_fraction)
    divided, how = _divide(rows, groups, shares, split_seed)
    names = tuple(classes) or tuple(sorted({row.label for row in rows}))
    _check_classes(table, divided)
    return assemble(
        "clips",
        f"clips in {folder.name}",
        prepared,
        {split: [row.key for row in part] for split, part in divided.items()},
        {
            split: {LABEL: np.array([names.index(row.label) for row in part])}
            for split, part in divided.items()
        },
        classes={LABEL: names},
        standardize=standardize,
        augment=CropAndFlip() if augment else None,
        groups={
            split: sorted({groups[row.key] for row in part})
            for split, part in divided.items()
            if groups
        },
        facts={"split": how, "fit": resize_mode, "region": list(crop_box)},
        warnings=_warnings(rows, groups, how),
    )


def _places(dir: str, labels: str) -> tuple[Path, Path]:
    """The folder and the table; DataError says how they must look."""
    fix = f"{FALLBACK_HINT} runs on embedded data, without clips"
    if not dir or not Path(dir).expanduser().is_dir():
        what = f"{dir!r} is not a folder." if dir else "no folder of clips was named."
        raise DataError(
            "D40", f"config.data.dir: {what} It looks like\n{EXPECTED_LAYOUT}", fix
        )
    folder = Path(dir).expanduser()
    table = Path(labels).expanduser() if labels else folder / "labels.csv"
    if not table.is_file():
        table = folder / table
    if not table.is_file():
        what = "is a folder" if table.is_dir() else "is not there"
        raise DataError(
            "D40",
            f"config.data.labels={labels!r}: {table} {what}. It looks like\n"
            f"{EXPECTED_LAYOUT}",
            fix,
        )
    return folder, table


def _groups(rows: Sequence[LabelRow]) -> dict[str, str]:
    """Key of a clip -> what must not cross splits; {} if nothing is known.

    That is its speaker, or, where files are cut into spans, the file.
    """
    if any(row.speaker for row in rows):
        return {row.key: row.speaker for row in rows}
    if len({row.file for row in rows}) < len(rows):
        return {row.key: row.file for row in rows}
    return {}


def _shares(valid: float, test: float) -> dict[str, float]:
    """Split -> share of the clips."""
    if valid < 0 or test <= 0 or valid + test >= 1:
        raise ConfigError(
            "C10",
            f"valid_share={valid} and test_share={test} leave no clips to test or to "
            "train on.",
            "two shares such as 0.15 and 0.15",
        )
    return {"train": 1 - valid - test, "test": test, "valid": valid}


def _divide(
    rows: Sequence[LabelRow],
    groups: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
) -> tuple[dict[str, list[LabelRow]], str]:
    """The rows of each split, and how it came about."""
    if any(row.split for row in rows):
        chosen, how = [row.split for row in rows], "by the column split"
    else:
        apart = [groups[row.key] for row in rows] if groups else None
        chosen = random_splits([row.label for row in rows], shares, seed, apart)
        kind = "by class" if apart is None else "by speaker or file"
        how = f"at random {kind}, split_seed {seed}"
    divided = {
        split: [row for row, name in zip(rows, chosen, strict=True) if name == split]
        for split in SPLITS
    }
    for split in ("train", "test"):
        if not divided[split]:
            raise DataError(
                "D45",
                f"no clip is in split {split!r} ({how}).",
                f"give {split!r} to some rows of the column split, or add clips",
            )
    return {split: part for split, part in divided.items() if part}, how


def _check_classes(table: Path, divided: Mapping[str, Sequence[LabelRow]]) -> None:
    """What is asked must have been taught."""
    taught = {row.label for row in divided["train"]}
    for split, part in divided.items():
        for row in part:
            if row.label not in taught:
                raise DataError(
                    "D46",
                    f"{table} line {row.line}: split {split!r} asks for class "
                    f"{row.label!r}, of which no clip is in split 'train'.",
                    "move some of its clips to train, or remove the class",
                )


def _warnings(
    rows: Sequence[LabelRow], groups: Mapping[str, str], how: str
) -> list[str]:
    """What may make scores look better than they are."""
    if groups and any(row.speaker for row in rows):
        return []
    if how.startswith("at random"):
        return [
            "no column `speaker`: a random split may put the same person into training "
            "and test; scores will look too good"
        ]
    return ["no column `speaker`: whether a person is in two splits was not checked"]
