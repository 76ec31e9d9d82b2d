"""The changes of training examples that a config can name."""

from mmfusion_jax.data.augment.audio import VarySpectrogram, VaryWaveform
from mmfusion_jax.data.augment.image import VaryImage
from mmfusion_jax.data.augment.text import VaryWords

AUGMENTATIONS = {
    "image": VaryImage,
    "spectrogram": VarySpectrogram,
    "waveform": VaryWaveform,
    "words": VaryWords,
}
