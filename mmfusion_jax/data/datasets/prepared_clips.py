"""Builds a Dataset from decoded clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip, OnPixels
from mmfusion_jax.data.dataset import Dataset, RegressionTarget
from mmfusion_jax.data.media.clip_remark import REMARK_KINDS
from mmfusion_jax.data.media.decode_clips import (
    SPLIT,
    ClipSource,
    DecodedClips,
    summarize_skipped,
)
from mmfusion_jax.data.preprocessing import (
    MinMaxScaler,
    PixelStandardizer,
    Standardizer,
)
from mmfusion_jax.errors import join_names, shorten, shown_name
from mmfusion_jax.results.predictor_file import (
    ClipDecoding,
    Preprocessing,
    Scaling,
    Tokenizer,
)


def assemble(
    name: str,
    title: str,
    decoded: DecodedClips,
    keys: Mapping[str, Sequence[str]],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    classes: Mapping[str, tuple[str, ...]],
    standardize: bool,
    min_max: bool = False,
    standardize_pixels: bool = False,
    augment: CropAndFlip | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Iterable[str] = (),
    token_ids: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
    values: Mapping[str, RegressionTarget] | None = None,
    absent: Mapping[str, str] | None = None,
    crop: Mapping[str, Any] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Dataset:
    """Returns a Dataset of decoded clips.

    Args:
        name: The word after the colon of a config.
        title: Its name in results.
        decoded: The decoded clips.
        keys: Split -> keys of its clips, in order.
        labels: Split -> label name -> (n) class indices or scores, in the order of
            `keys`.
        classes: Label name -> class names.
        standardize: Standardize the MFCC with the statistics of the training split.
        min_max: Scale the audio features to 0..1 with those of the training split.
        standardize_pixels: Standardize frames with the statistics of the training
            split, after the augmentation.
        augment: Augmentation of training examples.
        groups: Split -> speakers, for the leakage check.
        facts: Additional JSON values for the results.
        warnings: Additional warnings for the user.
        token_ids: Split -> ids (n t) and mask (n t) of the modality "text", in the
            order of `keys`; None without it.
        values: Label name -> meaning of a score.
        absent: Key of each clip whose file is absent -> the reason.
        crop: How frames are cropped and resized, JSON values by name.
        tokenizer: How transcripts became `token_ids`.
    """
    spec, store = decoded.spec, decoded.store
    records = store.source(SPLIT)
    # Of the training split of this fold: the store has raw MFCC, which serve all folds.
    standardizer = decoded.standardizer(keys["train"]) if standardize else None
    scaler = decoded.min_max_scaler(keys["train"]) if min_max else None
    pixels = decoded.pixel_standardizer(keys["train"]) if standardize_pixels else None
    sources = {
        split: ClipSource(
            records,
            [decoded.index[key] for key in part],
            labels[split],
            spec,
            decoded.audio_steps,
            [decoded.digest(key) for key in part],
            # Min-max scaling is the last step; it undoes the standardization.
            [one for one in (scaler or standardizer,) if one is not None],
            pixels,
            token_ids[split] if token_ids else None,
        )
        for split, part in keys.items()
    }
    total = len(decoded.index)
    missing = {name: decoded.count_without(name) for name in spec.modalities}
    if token_ids:
        masks = [mask for _, mask in token_ids.values()]
        missing["text"] = sum(int(np.sum(~mask.any(axis=1))) for mask in masks)
    warnings = list(warnings)
    for modality, count in missing.items():
        if count:
            warnings.append(
                f"{count} of {total} clips have no "
                f"{shown_name(modality)}, which is masked"
            )
    if spec.face_crop and (without := decoded.count_without_face):
        warnings.append(
            f"{without:d} of {total} clips have no detected face; their frames are "
            "cropped by resize_mode"
        )
    warnings += remark_warnings(decoded)
    skipped = {**(absent or {}), **decoded.skipped}
    if skipped:
        warnings.append(summarize_skipped(skipped, total + len(skipped)))
    common_facts = {
        "prepared": store.folder.name,
        "spec": store.manifest["spec"],
        "missing": missing,
        "skipped": skipped,
        "standardized": standardizer is not None and scaler is None,
        "min_max": scaler is not None,
        "standardized_pixels": pixels is not None,
        "warnings": warnings,
    }
    return Dataset(
        name,
        title,
        sources,
        classes,
        _on_frames(augment, pixels) if "video" in spec.modalities else None,
        labels,
        groups or {},
        {**common_facts, **(facts or {})},
        values=values or {},
        ids={"text": _id_range(token_ids)} if token_ids else {},
        example_ids=keys,
        preprocessing=Preprocessing(
            _scaling(spec.modalities, scaler or standardizer, pixels),
            ClipDecoding(store.manifest["spec"], {**(crop or {})}),
            tokenizer,
        ),
    )


def remark_warnings(decoded: DecodedClips) -> list[str]:
    """Returns how many clips have silent audio, black frames and the like."""
    keys: dict[str, list[str]] = {}
    for key, remarks in decoded.remarks.items():
        for kind in dict.fromkeys(remark.kind for remark in remarks):
            keys.setdefault(kind, []).append(key)
    return [
        f"{len(found)} of {len(decoded.index)} clips have "
        f"{shorten(REMARK_KINDS.get(kind, kind))}: {join_names(found[:10])}"
        + (", ..." if len(found) > 10 else "")
        for kind, found in keys.items()
    ]


def _scaling(
    modalities: Sequence[str],
    audio: Standardizer | MinMaxScaler | None,
    pixels: PixelStandardizer | None,
) -> dict[str, Scaling]:
    """Returns the scaling of every decoded modality that has one."""
    found = {"audio": audio, "image": pixels, "video": pixels}
    return {name: one.scaling for name in modalities if (one := found[name])}


def _on_frames(
    augment: CropAndFlip | None, pixels: PixelStandardizer | None
) -> CropAndFlip | OnPixels | None:
    """Returns the augmentation of frames, which may be standardized."""
    return OnPixels(augment, pixels) if augment and pixels else augment


def _id_range(
    token_ids: Mapping[str, tuple[np.ndarray, np.ndarray]],
) -> tuple[int, int]:
    """Returns the minimum and maximum id of unmasked tokens; 0 if there are none."""
    ids = np.concatenate([values[mask] for values, mask in token_ids.values()])
    return int(ids.min(initial=0)), int(ids.max(initial=0))
