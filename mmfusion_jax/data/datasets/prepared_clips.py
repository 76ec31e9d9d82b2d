"""A data set of decoded clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.media.decode_clips import (
    SPLIT,
    ClipSource,
    DecodedClips,
    summarize_skipped,
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
    augment: CropAndFlip | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Iterable[str] = (),
) -> Dataset:
    """A Dataset of prepared clips.

    Args:
        name: the word after the colon of a config.
        title: how results name it.
        decoded: the decoded clips.
        keys: split -> its clips, in order.
        labels: split -> label name -> (n) class numbers, in the order of `keys`.
        classes: label name -> class names.
        standardize: bring the MFCC to mean 0 and deviation 1 by the training split.
        augment: applied to training examples.
        groups: split -> speakers, for the leak check.
        facts: JSON values for the results, beside those that are known here.
        warnings: shown to the user, beside those that are known here.
    """
    recipe, store = decoded.spec, decoded.store
    records = store.source(SPLIT)
    standard = decoded.standardizer(keys["train"]) if standardize else None
    sources = {
        split: ClipSource(
            records,
            [decoded.index[key] for key in part],
            labels[split],
            recipe,
            decoded.audio_steps,
            standard,
        )
        for split, part in keys.items()
    }
    total = len(decoded.index)
    lacking = {name: decoded.count_without(name) for name in recipe.modalities}
    warnings = list(warnings)
    for modality, count in lacking.items():
        if count:
            warnings.append(
                f"{count} of {total} clips have no {modality}; it is masked"
            )
    if decoded.skipped:
        warnings.append(
            summarize_skipped(decoded.skipped, total + len(decoded.skipped))
        )
    known = {
        "prepared": store.folder.name,
        "recipe": store.manifest["recipe"],
        "without": lacking,
        "skipped": dict(decoded.skipped),
        "standardised": standard is not None,
        "warnings": warnings,
    }
    use = augment if "video" in recipe.modalities else None
    return Dataset(
        name,
        title,
        sources,
        classes,
        use,
        labels,
        groups or {},
        {**known, **(facts or {})},
    )
