"""The data sets that a config can name."""

import functools

from mmfusion_jax.data.av_mnist import av_mnist
from mmfusion_jax.data.clips import clips
from mmfusion_jax.data.deap import deap
from mmfusion_jax.data.digits import digits
from mmfusion_jax.data.imported import imported
from mmfusion_jax.data.mmmo import mmmo
from mmfusion_jax.data.mosi_utterances import mosi_utterances
from mmfusion_jax.data.ravdess import ravdess
from mmfusion_jax.data.ravdess_features import ravdess_features
from mmfusion_jax.data.stress_predict import stress_predict

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
