"""The data sets that a config can name."""

import functools
from collections.abc import Mapping
from typing import Any

from mmfusion_jax.data.datasets.av_mnist.build_store import (
    list_imports as av_mnist_imports,
)
from mmfusion_jax.data.datasets.av_mnist.dataset import load_av_mnist
from mmfusion_jax.data.datasets.av_mnist.dataset import outline as av_mnist_outline
from mmfusion_jax.data.datasets.clips import load_clips
from mmfusion_jax.data.datasets.clips import outline as clips_outline
from mmfusion_jax.data.datasets.deap.windows import load_deap
from mmfusion_jax.data.datasets.deap.windows import outline as deap_outline
from mmfusion_jax.data.datasets.digits.dataset import load_digits
from mmfusion_jax.data.datasets.digits.dataset import outline as digits_outline
from mmfusion_jax.data.datasets.ict_mmmo import load_ict_mmmo
from mmfusion_jax.data.datasets.ict_mmmo import outline as mmmo_outline
from mmfusion_jax.data.datasets.mosi_utterances import load_mosi_utterances
from mmfusion_jax.data.datasets.mosi_utterances import (
    outline as mosi_utterances_outline,
)
from mmfusion_jax.data.datasets.ravdess.features import load_ravdess_features
from mmfusion_jax.data.datasets.ravdess.features import (
    outline as ravdess_features_outline,
)
from mmfusion_jax.data.datasets.ravdess.videos import load_ravdess
from mmfusion_jax.data.datasets.ravdess.videos import outline as ravdess_outline
from mmfusion_jax.data.datasets.sentiment_files import list_imports, load_sentiment_file
from mmfusion_jax.data.datasets.sentiment_files import outline as imported_outline
from mmfusion_jax.data.datasets.stress_predict import load_stress_predict
from mmfusion_jax.data.datasets.stress_predict import outline as stress_predict_outline
from mmfusion_jax.data.feature_files.known_datasets import FEATURE_DATASETS

DATASETS = {
    "av_mnist": load_av_mnist,
    "clips": load_clips,
    "deap": load_deap,
    "digits": load_digits,
    "iemocap": functools.partial(load_sentiment_file, "iemocap"),
    "mmmo": load_ict_mmmo,
    "mosei": functools.partial(load_sentiment_file, "mosei"),
    "mosi": functools.partial(load_sentiment_file, "mosi"),
    "mosi_utterances": load_mosi_utterances,
    "ravdess": load_ravdess,
    "ravdess_features": load_ravdess_features,
    "sims": functools.partial(load_sentiment_file, "sims"),
    "stress_predict": load_stress_predict,
}

OUTLINES = {
    "av_mnist": av_mnist_outline,
    "clips": clips_outline,
    "deap": deap_outline,
    "digits": digits_outline,
    "iemocap": functools.partial(imported_outline, "iemocap"),
    "mmmo": mmmo_outline,
    "mosei": functools.partial(imported_outline, "mosei"),
    "mosi": functools.partial(imported_outline, "mosi"),
    "mosi_utterances": mosi_utterances_outline,
    "ravdess": ravdess_outline,
    "ravdess_features": ravdess_features_outline,
    "sims": functools.partial(imported_outline, "sims"),
    "stress_predict": stress_predict_outline,
}
"""The same data sets, known by their shapes and classes alone."""


def has_files(name: str, options: Mapping[str, Any]) -> bool:
    """Whether the user has or names files of a data set: a folder, or an import.

    Args:
        name: a key of `DATASETS`.
        options: arguments of the data set.
    """
    if options.get("dir") or options.get("file"):
        return True
    if name in FEATURE_DATASETS:
        return bool(list_imports(name))
    return name == "av_mnist" and bool(av_mnist_imports())
