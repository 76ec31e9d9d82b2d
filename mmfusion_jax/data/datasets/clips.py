"""Clips in a folder, with their labels in a CSV file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip
from mmfusion_jax.data.dataset import Dataset, RegressionTarget, dataset_loader
from mmfusion_jax.data.datasets.clip_splits import split_clips, split_warnings
from mmfusion_jax.data.datasets.clip_transcripts import (
    cleaned_row,
    stored_tokenizer,
    train_tokenizer,
    transcript_ids,
)
from mmfusion_jax.data.datasets.prepared_clips import assemble
from mmfusion_jax.data.datasets.split_fixes import SplitOptions
from mmfusion_jax.data.media.class_names import sorted_classes
from mmfusion_jax.data.media.clip_files import ClipFolder
from mmfusion_jax.data.media.clip_spec import MODALITIES as DECODED
from mmfusion_jax.data.media.clip_spec import ClipSpec, DecodeJob
from mmfusion_jax.data.media.decode_clips import check_left_out, decode_all
from mmfusion_jax.data.media.equal_clips import with_contents
from mmfusion_jax.data.media.labels_csv import LABEL, SCORE, LabelRow, read_labels
from mmfusion_jax.data.media.resize import FULL_FRAME, SquareResize
from mmfusion_jax.data.media.transcripts import TranscriptCleaner
from mmfusion_jax.data.media.wordpiece import read_vocabulary
from mmfusion_jax.data.option_checks import check_choice, data_folder
from mmfusion_jax.data.outline import outline_dataset
from mmfusion_jax.data.splits import SPLITS
from mmfusion_jax.errors import (
    ConfigError,
    DataError,
    join_names,
    shorten,
    shown,
    shown_name,
    shown_path,
)
from mmfusion_jax.option_types import (
    Decibel,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Size,
)
from mmfusion_jax.paths import local_path

MODALITIES = ("audio", "image", "text", "video")
EXPECTED_LAYOUT = """\
  clips/labels.csv   file,label[,split][,speaker][,text][,start,end]; score: a number
  clips/a.mp4        any file with video, audio or both
  clips/more/b.wav
  start and end are in seconds; split is train, valid or test; text is the transcript
  python -m mmfusion_jax data init FOLDER writes a labels.csv to fill in"""
FALLBACK_HINT = "python -m mmfusion_jax.main --config=configs/cfn_sr.py"


def outline(
    *,
    modalities: Sequence[str] = ("audio", "video"),
    frames: Size = 30,
    size: Size = 112,
    image_size: Size = 224,
    audio_features: Literal["mfcc", "log_mel", "waveform"] = "mfcc",
    sample_rate: Size = 22050,
    duration: NonNegativeFloat | None = None,
    n_mfcc: Size = 13,
    n_mels: Size = 40,
    deltas: bool = False,
    max_tokens: Size = 64,
    standardize_pixels: bool = False,
    augment: bool = False,
    illumination: Fraction = 0.0,
    classes: Sequence[str] = (),
    **_: Any,
) -> Dataset:
    """Returns the outline of `load_clips`; reads nothing.

    The number of clips is unknown: every split has one example.

    Raises:
        ConfigError: An option is out of range.
        DataError: `classes` or `duration` is missing.
    """
    spec = _clip_spec(
        modalities,
        frames=frames,
        size=size,
        image_size=image_size,
        audio_features=audio_features,
        sample_rate=sample_rate,
        duration=duration or None,
        n_mfcc=n_mfcc,
        n_mels=n_mels,
        deltas=deltas,
    )
    _augmentation(augment, illumination)
    pixels = "float32" if standardize_pixels else "uint8"
    if not classes or not duration:
        raise DataError(
            "D40",
            "config.data.data_dir is missing, and without clips their classes and "
            "duration are unknown.",
            "--config.data.data_dir=FOLDER, or without clips "
            "--config.data.classes=a,b --config.data.duration=3",
        )
    shapes = {
        "audio": ((spec.audio_steps or 1, *spec.audio_shape), "float32"),
        "image": ((1, image_size, image_size, 3), pixels),
        "text": ((max_tokens,), "int32"),
        "video": ((frames, size, size, 3), pixels),
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
    modalities: Sequence[str] = ("audio", "video"),
    frames: Size = 30,
    size: Size = 112,
    image_size: Size = 224,
    resize_mode: Literal["center_crop", "letterbox", "stretch"] = "center_crop",
    crop_box: tuple[Fraction, Fraction, Fraction, Fraction] = FULL_FRAME,
    rgb: bool = True,
    face_crop: bool = False,
    standardize_pixels: bool = False,
    audio_features: Literal["mfcc", "log_mel", "waveform"] = "mfcc",
    sample_rate: Size = 22050,
    offset: NonNegativeFloat = 0.0,
    duration: NonNegativeFloat | None = None,
    n_mfcc: Size = 13,
    n_mels: Size = 40,
    deltas: bool = False,
    pre_emphasis: Fraction = 0.0,
    silence_db: PositiveFloat | None = None,
    peak_normalize: bool = False,
    pad_mode: Literal["reflect", "constant"] = "reflect",
    noise_snr_db: Decibel | None = None,
    noise_seed: NonNegativeInt = 0,
    standardize: bool = True,
    min_max: bool = False,
    augment: bool = False,
    illumination: Fraction = 0.0,
    classes: Sequence[str] = (),
    speaker_column: str = "speaker",
    text_column: str = "text",
    vocabulary: str = "",
    lowercase: bool = True,
    remove_punctuation: bool = False,
    remove_stop_words: bool = False,
    lemmatize: bool = False,
    max_tokens: Size = 64,
    val_fraction: Fraction = 0.15,
    test_fraction: Fraction = 0.15,
    split_seed: NonNegativeInt = 0,
    max_left_out: Fraction = 0.0,
    equal_clips: bool = False,
    outside_files: bool = False,
    workers: NonNegativeInt | None = None,
    timeout: PositiveFloat = 120.0,
) -> Dataset:
    """Loads a folder of clips, decoded once and then read from the cache.

    The inputs of an example are those of `modalities`:

        "video"  (frames size size 3) uint8, sampled uniformly
        "image"  (1 image_size image_size 3) uint8, the key frame: the frame that is
                 displayed in the middle of the clip or segment
        "audio"  (t n_mfcc) float32, or samples (t) float32; padded to the longest clip
        "text"   (max_tokens) int32, ids of the transcript; [CLS] and [SEP] around it

    A clip without a stream or transcript is kept, with that modality masked.

    Example:
        >>> import mmfusion_jax as mmf
        >>> try:
        ...     mmf.datasets.clips("no_such_folder", "labels.csv")
        ... except mmf.UserError as error:
        ...     print(error.code)
        D40

    Args:
        data_dir: Folder of the clips.
        labels: Path of the CSV file of labels; "" means `labels.csv` in `data_dir`.
            Its columns are file, label and optionally split, speaker, text, start,
            end. A column score instead of label, or beside it, is a number to predict.
        modalities: Modalities to use, of "audio", "image", "text" and "video"; at
            least one other than text.
        frames: Number of frames per clip, uniformly sampled.
        size: Side length of a frame in pixels.
        image_size: Side length of the key frame in pixels.
        resize_mode: "center_crop" keeps the central square, "letterbox" adds black
            bars, "stretch" changes the aspect ratio.
        crop_box: Left, top, right, bottom of the part of the frame to use, as
            fractions of its size.
        rgb: False converts the frames to grayscale, repeated for three channels.
        face_crop: Crop the frames to the face that OpenCV detects, one box per clip;
            clips without one are cropped by `resize_mode`. Requires the extra `faces`.
        standardize_pixels: Standardize the frames of every channel with the statistics
            of the training split, to float32; the key frame with those of the frames.
        audio_features: "mfcc", "log_mel", the power of mel bands in dB, or "waveform"
            for samples, as `wav2vec2` expects them.
        sample_rate: Audio sample rate in Hz.
        offset: Seconds of audio to skip at the beginning.
        duration: Seconds of audio to use; None or 0 uses all.
        n_mfcc: Number of MFCC per audio frame.
        n_mels: Number of mel bands of "log_mel".
        deltas: Append the first and second differences over time of the features.
        pre_emphasis: Coefficient of x_n - c x_(n-1); 0 for none.
        silence_db: Remove audio this many dB below the loudest part; None for none.
        peak_normalize: Scale the waveform to a maximum of 1.
        pad_mode: Padding of the ends of the audio, "reflect" or "constant".
        noise_snr_db: Signal-to-noise ratio of added white noise; None adds none.
        noise_seed: Seed of that noise.
        standardize: Standardize the MFCC with the statistics of the training split.
        min_max: Scale the audio features to 0..1 with the minima and maxima of the
            training split, instead of standardizing them.
        augment: Random resized crop and flip of the training videos.
        illumination: With `augment`, their pixels are multiplied by
            1 - illumination .. 1 + illumination.
        classes: Allowed labels, in this order; () uses all labels, sorted, numbers by
            their value.
        speaker_column: Name of the column with the speakers; "" ignores them.
        text_column: Name of the column with the transcripts; read for "text" only.
        vocabulary: Path of a text file with one token per line, such as vocab.txt of
            BERT, of a folder with it, or of a weights file beside it; "" uses the
            words of the training transcripts.
        lowercase: Lower-case transcripts and strip accents, as for BERT uncased.
        remove_punctuation: Keep the words of transcripts only.
        remove_stop_words: Remove the English stop words of scikit-learn, except from
            transcripts of stop words only.
        lemmatize: Replace English words by their lemmas. Requires the extra `text`.
        max_tokens: Number of ids per transcript; longer ones are truncated.
        val_fraction: Fraction of the clips for validation, without a split column.
        test_fraction: Fraction of the clips for test, without a split column.
        split_seed: Seed of the random split.
        max_left_out: Fraction of the clips that may be absent or damaged; these are
            left out and listed. More of them are an error.
        equal_clips: Accept clips with equal content, start and end in two splits, or
            with two labels, and overlapping segments in two splits.
        outside_files: Accept files that are not in `data_dir`; links in it always are.
        workers: Number of decoding processes; None uses one per core.
        timeout: Time limit of one file in seconds.

    Raises:
        ConfigError: An option is out of range.
        DataError: The folder, the labels or clips are missing or wrong.
        MissingDependencyError: PyAV, Pillow or librosa is not installed, or OpenCV or
            simplemma where required.

    Reference:
        Hetero-Fusion-Net, Sec. 5.2: text, image, audio and video of a clip.
        OF-CMAER-CAT, Sec. 4.1: preprocessing.
    Deviation:
        The paper has no clips with all four and does not say what an image is: the key
        frame is ours.
        OF-CMAER-CAT normalizes, and scales to 0..1 before the fusion: audio features
        are scaled to 0..1, pixels are standardized, and words are embedded.
    """
    folder, table = find_table(data_dir, labels)
    spec = _clip_spec(
        modalities,
        frames=frames,
        size=size,
        image_size=image_size,
        rgb=rgb,
        audio_features=audio_features,
        sample_rate=sample_rate,
        offset=offset,
        duration=duration or None,
        n_mfcc=n_mfcc,
        pad_mode=pad_mode,
        noise_snr_db=noise_snr_db,
        noise_seed=noise_seed,
        n_mels=n_mels,
        deltas=deltas,
        pre_emphasis=pre_emphasis,
        silence_db=silence_db or None,
        peak_normalize=peak_normalize,
        face_crop=face_crop,
    )
    if face_crop and tuple(crop_box) != FULL_FRAME:
        raise ConfigError(
            "C10",
            f"config.data.crop_box={shown(tuple(crop_box))} cannot be used with "
            "face_crop=True.",
            "one of the two",
        )
    augmentation = _augmentation(augment, illumination)
    has_text = "text" in modalities
    # Before the clips are decoded, which takes long: a file that is missing is an
    # error at once.
    tokens = read_vocabulary(vocabulary) if has_text and vocabulary else ()
    found = read_labels(
        table,
        folder,
        classes,
        speaker_column,
        text_column if has_text else "",
        outside=outside_files,
        max_absent=max_left_out,
    )
    rows = with_contents(found.rows, folder)
    options = SplitOptions(val_fraction, test_fraction, split_seed, equal_clips)
    # Splits of all clips, before they are decoded, which takes long: a table that
    # cannot be split is an error at once.
    split_clips(table, rows, options)
    cleaner = TranscriptCleaner(remove_punctuation, remove_stop_words, lemmatize)
    if has_text:
        rows = [cleaned_row(row, cleaner, lowercase) for row in rows]
    transform = SquareResize(size, resize_mode, tuple(crop_box))
    image_transform = SquareResize(image_size, resize_mode, tuple(crop_box))
    jobs = [
        DecodeJob(
            row.key,
            folder / row.file,
            folder / row.file,
            transform,
            row.start,
            row.end,
            image_transform=image_transform,
        )
        for row in rows
    ]
    decoded = decode_all(
        "clips", jobs, spec, source=folder, workers=workers, timeout=timeout
    )
    total = len(rows) + len(found.absent)
    check_left_out({**found.absent, **decoded.skipped}, total, max_left_out)
    # Splits are drawn from the clips that can be used, so that they have the fractions
    # that were asked for.
    rows = [row for row in rows if row.key in decoded.index]
    found_splits = split_clips(table, rows, options)
    splits = found_splits.rows
    names = tuple(classes) or sorted_classes(row.label for row in rows if row.label)
    tokenizer = (
        train_tokenizer(tokens, splits["train"], lowercase) if has_text else None
    )
    return assemble(
        "clips",
        f"clips in {shorten(folder.name)}",
        decoded,
        {split: [row.key for row in part] for split, part in splits.items()},
        {split: _labels(part, names) for split, part in splits.items()},
        classes={LABEL: names} if names else {},
        values=_targets(rows),
        standardize=standardize,
        min_max=min_max,
        standardize_pixels=standardize_pixels,
        augment=augmentation,
        groups=found_splits.groups,
        facts={
            "split": found_splits.how,
            "resize_mode": resize_mode,
            "crop_box": list(crop_box),
            **({"vocabulary_size": len(tokenizer.vocabulary)} if tokenizer else {}),
        },
        warnings=[
            *split_warnings(found_splits),
            *_without_row(folder, table, [row.file for row in found.rows]),
        ],
        token_ids=transcript_ids(tokenizer, splits, max_tokens) if tokenizer else None,
        absent=found.absent,
        crop={"mode": resize_mode, "box": list(crop_box)},
        tokenizer=stored_tokenizer(tokenizer, max_tokens, cleaner)
        if tokenizer
        else None,
    )


def _labels(rows: Sequence[LabelRow], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns the classes and scores of rows, each (n)."""
    labels = {}
    if names:
        labels[LABEL] = np.array([names.index(row.label) for row in rows])
    scores = [row.score for row in rows if row.score is not None]
    if len(scores) == len(rows):
        labels[SCORE] = np.array(scores, np.float32)
    return labels


def _targets(rows: Sequence[LabelRow]) -> dict[str, RegressionTarget]:
    """Returns the range of the scores; {} without a column of scores."""
    scores = [row.score for row in rows if row.score is not None]
    if not scores:
        return {}
    low, high = min(scores), max(scores)
    neutral = 0.0 if low < 0 < high else (low + high) / 2
    return {SCORE: RegressionTarget(low, high, neutral)}


def _without_row(folder: Path, table: Path, files: Sequence[str]) -> list[str]:
    """Returns a warning for media files in the folder that the table does not name."""
    others = ClipFolder(folder).without_row(files)
    if not others:
        return []
    return [
        f"{len(others)} media files in the folder have no row in "
        f"{shown_name(table.name)}: {join_names(others[:10])}"
        + (", ..." if len(others) > 10 else "")
    ]


def _clip_spec(modalities: Sequence[str], **options: Any) -> ClipSpec:
    """Returns what to decode for `modalities`; text is not decoded."""
    for modality in modalities:
        check_choice("modalities", modality, MODALITIES)
    return ClipSpec(tuple(m for m in DECODED if m in modalities), **options)


def _augmentation(augment: bool, illumination: float) -> CropAndFlip | None:
    """Returns the augmentation of the training videos."""
    if illumination and not augment:
        raise ConfigError(
            "C10",
            f"config.data.illumination={shown(illumination)} requires augment=True.",
            "--config.data.augment=True, or --config.data.illumination=0",
        )
    return CropAndFlip(illumination=illumination) if augment else None


def find_table(data_dir: str, labels: str) -> tuple[Path, Path]:
    """Returns the folder of the clips and the CSV file of labels."""
    fix = f"{FALLBACK_HINT} runs on embedded data, without clips"
    folder = data_folder(data_dir, EXPECTED_LAYOUT, fix)
    table = local_path("labels", labels) if labels else folder / "labels.csv"
    # A relative path is first one in the working directory, then one in the folder.
    if labels and not table.is_file():
        table = folder / table
    if not table.is_file():
        what = "is a folder" if table.is_dir() else "does not exist"
        about = f"config.data.labels={shown_path(labels)}: " if labels else ""
        raise DataError(
            "D40",
            f"{about}{table} {what}. Expected layout:\n{EXPECTED_LAYOUT}",
            fix,
        )
    return folder, table
