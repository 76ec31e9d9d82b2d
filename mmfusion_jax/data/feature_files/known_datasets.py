"""Sentiment and emotion datasets: labels, published sizes and download pages."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from mmfusion_jax.data.dataset import RegressionTarget
from mmfusion_jax.data.feature_files.emotion_labels import CLASS, FLAGS, MOSEI_EMOTIONS
from mmfusion_jax.data.feature_files.padded_sequences import Sequences
from mmfusion_jax.errors import DataError, join_names, shorten, shown, shown_name

MMSA = "https://github.com/thuiar/MMSA, section on datasets"
MULT = "https://github.com/yaohungt/Multimodal-Transformer, section on data"
CMU_LICENSE = (
    "research use, terms: github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK; the videos "
    "belong to users of YouTube"
)
POLARITIES = ("negative", "neutral", "positive")


@dataclasses.dataclass(frozen=True)
class FeatureDatasetSpec:
    """A dataset that is distributed as feature files.

    Attributes:
        title: Its name in papers.
        label: The label that papers predict.
        target: Meaning of the label "score"; None without one.
        flags: Names of the flags of the label "emotions"; () without one. Only some
            files have it if it is not the label that papers predict.
        counts: Sizes of train, valid and test of every known release.
        files: Files to download, and from where.
        by_video: True if every video is in one split only.
        configs: The words of configs that train on it; the first is of a paper that
            reports this dataset.
        license: What its publishers allow, and where the terms are, in one line.
        shapes: Modality -> steps and features of an example, as in most releases.
        has_token_ids: True if a release has the text as BERT token ids too.
        unimodal: Labels of single modalities, with the meaning of "score".
        not_comparable: Label -> what its scores are not comparable with.
    """

    title: str
    label: str
    target: RegressionTarget | None
    flags: tuple[str, ...]
    counts: tuple[tuple[int, int, int], ...]
    files: tuple[str, ...]
    by_video: bool
    configs: tuple[str, ...]
    license: str
    shapes: Mapping[str, tuple[int, int]]
    has_token_ids: bool = True
    unimodal: tuple[str, ...] = ()
    not_comparable: Mapping[str, str] = dataclasses.field(default_factory=dict)


FEATURE_DATASETS = {
    "mosi": FeatureDatasetSpec(
        "CMU-MOSI",
        "score",
        RegressionTarget(-3.0, 3.0, family="sentiment"),
        (),
        ((1284, 229, 686), (1281, 229, 685)),
        (
            f"aligned_50.pkl or unaligned_50.pkl (BERT text): {MMSA}",
            f"mosi_data.pkl or mosi_data_noalign.pkl (GloVe text): {MULT}",
        ),
        True,
        ("mea:mosi", "mcl_mcf:mosi", "mcl_mcf:mosi_vectors"),
        CMU_LICENSE,
        {"text": (50, 768), "audio": (50, 5), "video": (50, 20)},
    ),
    "mosei": FeatureDatasetSpec(
        "CMU-MOSEI",
        "score",
        RegressionTarget(-3.0, 3.0, family="sentiment"),
        MOSEI_EMOTIONS,
        ((16326, 1871, 4659),),
        (
            f"aligned_50.pkl or unaligned_50.pkl (BERT text): {MMSA}",
            f"mosei_senti_data.pkl or its noalign version (GloVe text): {MULT}",
        ),
        True,
        (
            "mea:mosei",
            "mcl_mcf:mosei",
            "mcl_mcf:mosei_vectors",
            "hetero_fusion_net:mosei",
            "of_cmaer_cat:mosei",
        ),
        CMU_LICENSE,
        {"text": (50, 768), "audio": (50, 74), "video": (50, 35)},
        not_comparable={
            FLAGS: "six yes/no flags, set where the intensity of the emotion is above "
            "0: not comparable with the sentiment of MEA, Table III and MCL-MCF, "
            "Table 3, nor with an accuracy over classes",
            CLASS: "one of six emotions, only clips that have exactly one: not "
            "comparable with the sentiment of MEA, Table III and MCL-MCF, Table 3, nor "
            "with yes/no flags on all clips; OF-CMAER-CAT, Table 1 and "
            "Hetero-Fusion-Net, Table 1 do not say which clips and classes they score",
        },
    ),
    "sims": FeatureDatasetSpec(
        "CH-SIMS",
        "score",
        RegressionTarget(-1.0, 1.0, family="sims"),
        (),
        ((1368, 456, 457),),
        (f"unaligned_39.pkl: {MMSA}",),
        False,
        ("mcl_mcf:sims", "mcl_mcf:sims_vectors"),
        "research use, terms: github.com/thuiar/MMSA; the clips are of films, series "
        "and shows",
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
        (
            "mea:iemocap",
            "mea:iemocap_emotion",
            "mcl_mcf:iemocap_emotion",
            "hetero_fusion_net:iemocap",
            "hetero_fusion_net:iemocap_emotion",
            "of_cmaer_cat:iemocap",
            "of_cmaer_cat:iemocap_emotion",
        ),
        "research use, terms: the release form at sail.usc.edu/iemocap, which every "
        "user signs",
        {"text": (20, 300), "audio": (20, 74), "video": (20, 35)},
        has_token_ids=False,
        not_comparable={
            FLAGS: "four yes/no flags, as MulT and MEA, Table IV score them: not "
            "comparable with an accuracy over four classes, such as that of "
            "OF-CMAER-CAT, Table 1",
            CLASS: "one of four classes, only examples that have exactly one: not "
            "comparable with the yes/no flags of MulT and MEA, Table IV, nor with "
            "OF-CMAER-CAT, Table 1, whose speakers are held out; these files do not "
            "name their speakers",
        },
    ),
}


def main_label(spec: FeatureDatasetSpec, labels: Iterable[str]) -> str:
    """Returns the label of a file that is predicted: that of papers, or its emotions.

    Args:
        spec: The dataset.
        labels: Names of the labels that the file has.
    """
    has_emotions_only = spec.flags and spec.label not in labels and FLAGS in labels
    return FLAGS if has_emotions_only else spec.label


def check_labels(
    spec: FeatureDatasetSpec, where: str, split: str, found: Sequences
) -> None:
    """Raises DataError if the labels of a split are not those of the dataset."""
    if main_label(spec, found.labels) not in found.labels:
        raise DataError(
            "D74",
            f"{where} has the labels {join_names(found.labels)}; expected for "
            f"{spec.title}: {shown_name(spec.label)}.",
            suggest_dataset(spec, found.labels),
        )
    if FLAGS in found.labels:
        count = found.labels[FLAGS].shape[1]
        if count != len(spec.flags):
            raise DataError(
                "D74",
                f"{where} has {count} emotions; expected for {spec.title}: "
                f"{join_names(spec.flags, 'none')}.",
            )
    if spec.target is None:
        return
    low, high = spec.target.low, spec.target.high
    for name, values in _scores(found).items():
        outside = values[(values < low) | (values > high)]
        if 2 * outside.size > np.isfinite(values).sum():
            raise DataError(
                "D74",
                f"{where}, split {shown(split)}: {shown_name(name)} is out of range in "
                f"{outside.size:d} of {len(values)} examples, such as {outside[0]:g}; "
                f"expected for {spec.title}: {low:g} to {high:g}.",
                suggest_dataset(spec, found.labels) or "scale the scores to this range",
            )


def license_of(name: str) -> str:
    """Returns the license of a dataset, as its manifest and results show it."""
    spec = FEATURE_DATASETS[name]
    return f"{shown_name(spec.title)}: {shorten(spec.license)}"


def suggest_dataset(spec: FeatureDatasetSpec, labels: Mapping[str, np.ndarray]) -> str:
    """Returns a hint with the other datasets that have such labels, or ""."""
    choices = [
        f"--dataset={name}"
        for name, other in FEATURE_DATASETS.items()
        if other is not spec and other.label in labels and _in_range(other, labels)
    ]
    return f"did you mean {' or '.join(choices)}?" if choices else ""


def _in_range(spec: FeatureDatasetSpec, labels: Mapping[str, np.ndarray]) -> bool:
    """Returns whether every label is in the range of a dataset."""
    if spec.target is None:
        return True
    low, high = spec.target.low, spec.target.high
    return all(
        bool(((values >= low) & (values <= high)).all())
        for name, values in labels.items()
        if name != FLAGS
    )


def _scores(found: Sequences) -> dict[str, np.ndarray]:
    """Returns the labels that are scores, (n) each."""
    return {name: values for name, values in found.labels.items() if name != FLAGS}
