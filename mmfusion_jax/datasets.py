"""Datasets by the names that a config uses: functions that return a `Dataset`.

Example:
    >>> import mmfusion_jax as mmf
    >>> "digits" in dir(mmf.datasets)
    True
"""

# ruff: noqa: F401 (imports with another name count as unused)

from typing import TYPE_CHECKING

from mmfusion_jax.data.registry import DATASETS
from mmfusion_jax.lazy import attach

PUBLIC = DATASETS
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.data.datasets.av_mnist.dataset import load_av_mnist as av_mnist
    from mmfusion_jax.data.datasets.clips import load_clips as clips
    from mmfusion_jax.data.datasets.deap.windows import load_deap as deap
    from mmfusion_jax.data.datasets.digits.dataset import load_digits as digits
    from mmfusion_jax.data.datasets.ict_mmmo import load_ict_mmmo as mmmo
    from mmfusion_jax.data.datasets.mosi_utterances import (
        load_mosi_utterances as mosi_utterances,
    )
    from mmfusion_jax.data.datasets.ravdess.features import (
        load_ravdess_features as ravdess_features,
    )
    from mmfusion_jax.data.datasets.ravdess.videos import load_ravdess as ravdess
    from mmfusion_jax.data.datasets.sentiment_files import load_iemocap as iemocap
    from mmfusion_jax.data.datasets.sentiment_files import load_mosei as mosei
    from mmfusion_jax.data.datasets.sentiment_files import load_mosi as mosi
    from mmfusion_jax.data.datasets.sentiment_files import load_sims as sims
    from mmfusion_jax.data.datasets.stress_predict import (
        load_stress_predict as stress_predict,
    )
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
