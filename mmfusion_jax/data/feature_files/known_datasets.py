"""The data sets of the sentiment field: their labels, splits and where files are."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from mmfusion_jax.data.dataset import RegressionTarget
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.errors import DataError

MMSA = "https://github.com/thuiar/MMSA, section on datasets"
MULT = "https://github.com/yaohungt/Multimodal-Transformer, section on data"
POLARITIES = ("negative", "neutral", "positive")


@dataclasses.dataclass(frozen=True)
class FeatureDatasetSpec:
    """A data set that comes as files of features.

    Attributes:
        title: as papers call it.
        label: the label that papers ask for.
        target: of the label "score"; None where there is none.
        flags: names of the label "emotions"; () where there is none.
        counts: sizes of train, valid and test as published, in every release known.
        files: what to get, and where.
        by_video: every video is in one split only.
        config: a config that trains on it.
        shapes: "text", "audio", "video" of an example as most releases have them, steps
            and features.
        pieces: a release has the text also as ids of word pieces.
        unimodal: labels of one modality alone, of the same meaning as "score".
    """

    title: str
    label: str
    target: RegressionTarget | None
    flags: tuple[str, ...]
    counts: tuple[tuple[int, int, int], ...]
    files: tuple[str, ...]
    by_video: bool
    config: str
    shapes: Mapping[str, tuple[int, int]]
    pieces: bool = True
    unimodal: tuple[str, ...] = ()


FEATURE_DATASETS = {
    "mosi": FeatureDatasetSpec(
        "CMU-MOSI",
        "score",
        RegressionTarget(-3.0, 3.0, family="sentiment"),
        (),
        ((1284, 229, 686), (1281, 229, 685)),
        (
            f"aligned_50.pkl or unaligned_50.pkl (text of BERT): {MMSA}",
            f"mosi_data.pkl or mosi_data_noalign.pkl (text of GloVe): {MULT}",
        ),
        True,
        "configs/mea.py:mosi",
        {"text": (50, 768), "audio": (50, 5), "video": (50, 20)},
    ),
    "mosei": FeatureDatasetSpec(
        "CMU-MOSEI",
        "score",
        RegressionTarget(-3.0, 3.0, family="sentiment"),
        (),
        ((16326, 1871, 4659),),
        (
            f"aligned_50.pkl or unaligned_50.pkl (text of BERT): {MMSA}",
            f"mosei_senti_data.pkl or its noalign form (text of GloVe): {MULT}",
        ),
        True,
        "configs/mea.py:mosei",
        {"text": (50, 768), "audio": (50, 74), "video": (50, 35)},
    ),
    "sims": FeatureDatasetSpec(
        "CH-SIMS",
        "score",
        RegressionTarget(-1.0, 1.0, family="sims"),
        (),
        ((1368, 456, 457),),
        (f"unaligned_39.pkl: {MMSA}",),
        False,
        "configs/mcl_mcf.py:sims",
        {"text": (39, 768), "audio": (400, 33), "video": (55, 709)},
        unimodal=("score_text", "score_audio", "score_video"),
    ),
    "iemocap": FeatureDatasetSpec(
        "IEMOCAP",
        "emotions",
        None,
        ("neutral", "happy", "sad", "angry"),
        ((2717, 798, 938),),
        (f"iemocap_data.pkl or iemocap_data_noalign.pkl: {MULT}",),
        False,
        "configs/mea.py:iemocap",
        {"text": (20, 300), "audio": (20, 74), "video": (20, 35)},
        pieces=False,
    ),
}


def check_labels(
    kind: FeatureDatasetSpec, where: str, split: str, found: Sequences
) -> None:
    """Raises DataError if the labels of a split are not those of the data set."""
    if kind.label not in found.labels:
        have = ", ".join(found.labels)
        raise DataError(
            "D74",
            f"{where} has the labels {have}; those of {kind.title} are {kind.label}.",
            _other(kind, found),
        )
    if kind.target is None:
        count = found.labels[kind.label].shape[1]
        if count != len(kind.flags):
            raise DataError(
                "D74",
                f"{where} has {count} emotions; {kind.title} has {len(kind.flags)}: "
                f"{', '.join(kind.flags)}.",
            )
        return
    low, high = kind.target.low, kind.target.high
    for name, values in found.labels.items():
        bad = np.flatnonzero(~((values >= low) & (values <= high)))
        if bad.size:
            raise DataError(
                "D74",
                f"{where}, split {split!r}, example {bad[0]}: {name} "
                f"{values[bad[0]]:g} is not from {low:g} to {high:g}, as those of "
                f"{kind.title} are.",
                _other(kind, found) or "repair the labels, or leave the example out",
            )


def _other(kind: FeatureDatasetSpec, found: Sequences) -> str:
    """The other names that such labels may go by."""
    likely = [
        name
        for name, other in FEATURE_DATASETS.items()
        if other is not kind and other.label in found.labels and _may_be(other, found)
    ]
    return "perhaps " + " or ".join(f"--as={name}" for name in likely) if likely else ""


def _may_be(kind: FeatureDatasetSpec, found: Sequences) -> bool:
    """Whether every label is in the range of a data set."""
    if kind.target is None:
        return True
    low, high = kind.target.low, kind.target.high
    return all(
        bool(((values >= low) & (values <= high)).all())
        for values in found.labels.values()
    )
