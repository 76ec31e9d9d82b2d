"""Checks of encoders, fusion blocks, models, losses, datasets and augmentations.

For tests of your own parts:

    import mmfusion_jax as mmf

    def test_my_gate():
        mmf.testing.check_fusion(MyGate(), {"audio": (5, 8), "video": (7, 8)})

Every check makes its inputs, tries all properties that a part of its kind must have,
and returns a `Report`; if some do not hold, it raises an AssertionError with one
sentence for each, which has the smallest counterexample.
"""

from typing import TYPE_CHECKING

from mmfusion_jax.lazy import attach, by_name

PUBLIC = by_name(
    (
        "mmfusion_jax.testing.augmentations:check_augmentation",
        "mmfusion_jax.testing.datasets:check_dataset",
        "mmfusion_jax.testing.losses:check_loss",
        "mmfusion_jax.testing.modules:check_encoder",
        "mmfusion_jax.testing.modules:check_fusion",
        "mmfusion_jax.testing.modules:check_model",
        "mmfusion_jax.testing.report:Report",
    )
)
"""Public name -> import path."""

if TYPE_CHECKING:
    from mmfusion_jax.testing.augmentations import (
        check_augmentation as check_augmentation,
    )
    from mmfusion_jax.testing.datasets import check_dataset as check_dataset
    from mmfusion_jax.testing.losses import check_loss as check_loss
    from mmfusion_jax.testing.modules import check_encoder as check_encoder
    from mmfusion_jax.testing.modules import check_fusion as check_fusion
    from mmfusion_jax.testing.modules import check_model as check_model
    from mmfusion_jax.testing.report import Report as Report
else:
    __getattr__, __dir__, __all__ = attach(__name__, PUBLIC)
