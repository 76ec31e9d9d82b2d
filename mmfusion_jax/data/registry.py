"""Short names of the datasets that a config can name."""

DATASETS = {
    "av_mnist": "mmfusion_jax.data.datasets.av_mnist.dataset:load_av_mnist",
    "clips": "mmfusion_jax.data.datasets.clips:load_clips",
    "deap": "mmfusion_jax.data.datasets.deap.windows:load_deap",
    "digits": "mmfusion_jax.data.datasets.digits.dataset:load_digits",
    "iemocap": "mmfusion_jax.data.datasets.sentiment_files:load_iemocap",
    "mmmo": "mmfusion_jax.data.datasets.ict_mmmo:load_ict_mmmo",
    "mosei": "mmfusion_jax.data.datasets.sentiment_files:load_mosei",
    "mosi": "mmfusion_jax.data.datasets.sentiment_files:load_mosi",
    "mosi_utterances": (
        "mmfusion_jax.data.datasets.mosi_utterances:load_mosi_utterances"
    ),
    "ravdess": "mmfusion_jax.data.datasets.ravdess.videos:load_ravdess",
    "ravdess_features": (
        "mmfusion_jax.data.datasets.ravdess.features:load_ravdess_features"
    ),
    "sims": "mmfusion_jax.data.datasets.sentiment_files:load_sims",
    "stress_predict": "mmfusion_jax.data.datasets.stress_predict:load_stress_predict",
}
"""Short name -> import path."""
