"""Checks of encoders, fusion blocks, models, losses, datasets and augmentations.

For tests of your own parts:

    from mmfusion_jax import testing

    def test_my_gate():
        testing.check_fusion(MyGate(), {"audio": (5, 8), "video": (7, 8)})

Every check makes its inputs, tries all properties that a part of its kind must have,
and returns a `Report`; if some do not hold, it raises an AssertionError with one
sentence for each, which has the smallest counterexample.
"""

from mmfusion_jax.testing.augmentations import check_augmentation
from mmfusion_jax.testing.datasets import check_dataset
from mmfusion_jax.testing.losses import check_loss
from mmfusion_jax.testing.modules import check_encoder, check_fusion, check_model
from mmfusion_jax.testing.report import Report

__all__ = [
    "Report",
    "check_augmentation",
    "check_dataset",
    "check_encoder",
    "check_fusion",
    "check_loss",
    "check_model",
]
