"""Datasets: from files to padded, masked examples addressed by the step number.

`registry.py` lists them; none is imported here, so that commands start fast.
"""

from typing import TYPE_CHECKING

from absl import logging

from mmfusion_jax.lazy import attach, by_name

# With jaxlib before 0.11, importing grain logs that it cannot profile its worker
# processes. There are none here, and every run would begin with a warning.
logging.get_absl_logger().addFilter(
    lambda entry: not str(entry.msg).startswith("Grain multiprocess worker profiling")
)

PUBLIC = by_name(
    (
        "mmfusion_jax.data.augment.modality_dropout:ModalityDropout",
        "mmfusion_jax.data.augment.image:RandomImage",
        "mmfusion_jax.data.augment.audio:RandomSpectrogram",
        "mmfusion_jax.data.augment.audio:RandomWaveform",
        "mmfusion_jax.data.augment.text:RandomWords",
        "mmfusion_jax.data.dataset:Dataset",
        "mmfusion_jax.data.dataset:Example",
        "mmfusion_jax.data.dataset:RegressionTarget",
        "mmfusion_jax.data.dataset:dataset_loader",
        "mmfusion_jax.data.in_memory:InMemory",
        "mmfusion_jax.data.outline:outline_dataset",
        "mmfusion_jax.data.pipeline:Pipeline",
        "mmfusion_jax.data.storage.array_record_store",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.data.augment.audio import RandomSpectrogram as RandomSpectrogram
    from mmfusion_jax.data.augment.audio import RandomWaveform as RandomWaveform
    from mmfusion_jax.data.augment.image import RandomImage as RandomImage
    from mmfusion_jax.data.augment.modality_dropout import (
        ModalityDropout as ModalityDropout,
    )
    from mmfusion_jax.data.augment.text import RandomWords as RandomWords
    from mmfusion_jax.data.dataset import Dataset as Dataset
    from mmfusion_jax.data.dataset import Example as Example
    from mmfusion_jax.data.dataset import RegressionTarget as RegressionTarget
    from mmfusion_jax.data.dataset import dataset_loader as dataset_loader
    from mmfusion_jax.data.in_memory import InMemory as InMemory
    from mmfusion_jax.data.outline import outline_dataset as outline_dataset
    from mmfusion_jax.data.pipeline import Pipeline as Pipeline
    from mmfusion_jax.data.storage import array_record_store as array_record_store
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
