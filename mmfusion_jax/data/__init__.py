"""Data sets: from files to padded, masked examples addressed by the step number."""

from mmfusion_jax.data.clips import clips
from mmfusion_jax.data.digits import digits
from mmfusion_jax.data.ravdess import ravdess
from mmfusion_jax.data.ravdess_features import ravdess_features

DATASETS = {
    "clips": clips,
    "digits": digits,
    "ravdess": ravdess,
    "ravdess_features": ravdess_features,
}
