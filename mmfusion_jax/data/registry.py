"""The data sets that a config can name."""

import functools
from collections.abc import Mapping
from typing import Any

from mmfusion_jax.data.datasets.av_mnist.build_store import imports as av_mnist_imports
from mmfusion_jax.data.datasets.av_mnist.dataset import av_mnist
from mmfusion_jax.data.datasets.av_mnist.dataset import outline as av_mnist_outline
from mmfusion_jax.data.datasets.clips import clips
from mmfusion_jax.data.datasets.clips import outline as clips_outline
from mmfusion_jax.data.datasets.deap.windows import deap
from mmfusion_jax.data.datasets.deap.windows import outline as deap_outline
from mmfusion_jax.data.datasets.digits.dataset import digits
from mmfusion_jax.data.datasets.digits.dataset import outline as digits_outline
from mmfusion_jax.data.datasets.ict_mmmo import mmmo
from mmfusion_jax.data.datasets.ict_mmmo import outline as mmmo_outline
from mmfusion_jax.data.datasets.mosi_utterances import mosi_utterances
from mmfusion_jax.data.datasets.mosi_utterances import (
    outline as mosi_utterances_outline,
)
from mmfusion_jax.data.datasets.ravdess.features import (
    outline as ravdess_features_outline,
)
from mmfusion_jax.data.datasets.ravdess.features import ravdess_features
from mmfusion_jax.data.datasets.ravdess.videos import outline as ravdess_outline
from mmfusion_jax.data.datasets.ravdess.videos import ravdess
from mmfusion_jax.data.datasets.sentiment_files import imported, imports
from mmfusion_jax.data.datasets.sentiment_files import outline as imported_outline
from mmfusion_jax.data.datasets.stress_predict import outline as stress_predict_outline
from mmfusion_jax.data.datasets.stress_predict import stress_predict
from mmfusion_jax.data.feature_files.known_datasets import KINDS

DATASETS = {
    "av_mnist": av_mnist,
    "clips": clips,
    "deap": deap,
    "digits": digits,
    "iemocap": functools.partial(imported, "iemocap"),
    "mmmo": mmmo,
    "mosei": functools.partial(imported, "mosei"),
    "mosi": functools.partial(imported, "mosi"),
    "mosi_utterances": mosi_utterances,
    "ravdess": ravdess,
    "ravdess_features": ravdess_features,
    "sims": functools.partial(imported, "sims"),
    "stress_predict": stress_predict,
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
    if name in KINDS:
        return bool(imports(name))
    return name == "av_mnist" and bool(av_mnist_imports())
