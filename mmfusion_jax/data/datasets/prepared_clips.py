"""A data set of decoded clips."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from mmfusion_jax.data.augment.crop_and_flip import CropAndFlip
from mmfusion_jax.data.dataset import Dataset
from mmfusion_jax.data.media.decode_clips import SPLIT, ClipSource, Prepared, summary


def assemble(
    name: str,
    title: str,
    prepared: Prepared,
    keys: Mapping[str, Sequence[str]],
    labels: Mapping[str, Mapping[str, np.ndarray]],
    *,
    classes: Mapping[str, tuple[str, ...]],
    standardise: bool,
    augment: CropAndFlip | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    facts: Mapping[str, Any] | None = None,
    warnings: Iterable[str] = (),
) -> Dataset:
    """A Dataset of prepared clips.

    Args:
        name: the word after the colon of a config.
        title: how results name it.
        prepared: the decoded clips.
        keys: split -> its clips, in order.
        labels: split -> label name -> (n) class numbers, in the order of `keys`.
        classes: label name -> class names.
        standardise: bring the MFCC to mean 0 and deviation 1 by the training split.
        augment: applied to training examples.
        groups: split -> speakers, for the leak check.
        facts: JSON values for the results, beside those that are known here.
        warnings: shown to the user, beside those that are known here.
    """
    recipe, store = prepared.recipe, prepared.store
    records = store.source(SPLIT)
    standard = prepared.standard(keys["train"]) if standardise else None
    sources = {
        split: ClipSource(
            records,
            [prepared.place[key] for key in part],
            labels[split],
            recipe,
            prepared.audio_steps,
            standard,
        )
        for split, part in keys.items()
    }
    total = len(prepared.place)
    lacking = {name: prepared.without(name) for name in recipe.modalities}
    warnings = list(warnings)
    for modality, count in lacking.items():
        if count:
            warnings.append(
                f"{count} of {total} clips have no {modality}; it is masked"
            )
    if prepared.skipped:
        warnings.append(summary(prepared.skipped, total + len(prepared.skipped)))
    known = {
        "prepared": store.folder.name,
        "recipe": store.manifest["recipe"],
        "without": lacking,
        "skipped": dict(prepared.skipped),
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
