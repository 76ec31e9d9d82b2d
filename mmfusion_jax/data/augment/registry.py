"""Short names of the augmentations that a config can name."""

AUGMENTATIONS = {
    "image": "mmfusion_jax.data.augment.image:RandomImage",
    "spectrogram": "mmfusion_jax.data.augment.audio:RandomSpectrogram",
    "waveform": "mmfusion_jax.data.augment.audio:RandomWaveform",
    "words": "mmfusion_jax.data.augment.text:RandomWords",
}
"""Short name -> import path."""
